"""When to prune, and how sparse to be by then.

The pruner asks after every optimizer step whether an update is due: `last_update(step)` is the newest update step not
after `step`, so that a step which is asked about twice, or jumped over, does no harm. `sparsity(step)` is the share of
the weights that should be zero then. Positions are ints, in optimizer steps, or floats, shares of the run, which
`resolve(total_steps)` turns into steps once the run's length is known.

To write one: a frozen dataclass with `final_sparsity`, `begin_step`, `end_step` and the three methods of
`protocol.Schedule`; `end_step` is always an update. `lightning_prune.steps` checks positions and finds the latest
point of a grid. Then a line here and `conf/pruner/schedule/NAME.yaml`; the laws in tests/laws/test_schedule.py test it
at once.
"""

from .accuracy_budget import AccuracyBudget as AccuracyBudget  # as sparse as a metric allows
from .geometric import Geometric as Geometric  # the share kept shrinks by equal factors; best from 95 % on
from .hold import Hold as Hold  # the zeros that a model came with, and no more
from .iterative import Iterative as Iterative  # a few rounds, each the same share of what is left
from .layer_by_layer import LayerByLayer as LayerByLayer  # one layer after the other, each at an update of its own
from .one_shot import OneShot as OneShot  # everything at one step
from .polynomial import Polynomial as Polynomial  # steep at first and flat at the end; cubic unless told otherwise
from .protocol import HoldingSchedule as HoldingSchedule
from .protocol import Schedule as Schedule
from .protocol import ToldSchedule as ToldSchedule
from .protocol import TurnSchedule as TurnSchedule
