"""What the sparsity is a share of: of weights, of the multiply-adds of a forward, or of its milliseconds.

Asked once, when pruning starts: a budget prices the model, and says from then on what is left to pay where layers have
so many outputs and inputs left. Under `MACs()` a final sparsity of .5 halves the multiply-adds, as closely as whole
units allow. What does not cost by single weights goes with patterns of whole units, `Channel()`.

To write one: a frozen dataclass with `price(model, example_inputs, shapes)`, which returns a `Price`
(`protocol.Price`); what has to be measured for it says so (`protocol.MeasuredBudget`). Then a line here and
`conf/pruner/budget/NAME.yaml`; the laws in tests/laws/test_budget.py test it at once.
"""

from .latency import Latency as Latency  # milliseconds of a forward, measured
from .macs import MACs as MACs  # multiply-adds of a forward
from .protocol import Budget as Budget
from .protocol import Curve as Curve
from .protocol import MeasuredBudget as MeasuredBudget
from .protocol import Price as Price
from .weights import Weights as Weights  # the entries of prunable weights
