"""How the logit of a unit becomes a mask that can be learned.

Asked in every training forward of learned masks: `sample` makes a mask in [0, 1] of a logit and a random draw,
differentiable in the logit. In evaluation a unit is in or out, and `settled` is by what the units that are in are
multiplied. `probability` is what regularizers act on and what a schedule ranks.

To write one: a frozen dataclass with the four methods of `protocol.Gate`; one that learns a threshold for each weight
tensor instead has `at(weight, T)` (`protocol.ThresholdGate`). Then a line here and `conf/pruner/gate/NAME.yaml`; the
laws in tests/laws/test_gate.py test it at once.
"""

from .hard_concrete import HardConcrete as HardConcrete  # a stretched and clipped sigmoid that reaches 0 and 1
from .protocol import Gate as Gate
from .protocol import Threshold as Threshold
from .protocol import ThresholdGate as ThresholdGate
from .sigmoid import Sigmoid as Sigmoid  # a steep sigmoid of a probability against a random threshold
from .soft_threshold import SoftThreshold as SoftThreshold  # a threshold for each weight tensor that trains with it
