"""Channels that are left out example by example: a small predictor beside each gated layer says which.

`DynamicGates` goes where a `Pruner` goes. `gate` is the predictor, `links` how it acts on a layer and its norm, `sites`
which layers can have one, `gating` what is known while they train; `onto` puts gates on a plain model again; `readers`,
`counting` and `gate_report` say what is executed.
"""

from .counting import Counted as Counted
from .counting import Counting as Counting
from .gate import ChannelGate as ChannelGate
from .gate_report import GateReport as GateReport
from .gates import DynamicGates as DynamicGates
from .onto import put_gates as put_gates
