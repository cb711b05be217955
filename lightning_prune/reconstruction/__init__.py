"""Which weights or units stay, and new values for those: layer by layer, from what the layer reads in training.

Asked at every update in place of the criterion, with what was summed up in the steps before it: the second moment of
what a layer's weight multiplies. It scores, scope and selection count as ever, and once the masks are known it gives
new values to what stays, so that the layer gives nearly what it gave before.

To write one: a frozen dataclass with `observes = "input"`, `window`, `observe` and `at(site)`, as a criterion that
looks at training has them, and `corrected(weight, keep)`. One of single weights has `__call__(weight, grad)` besides;
one of units has `worth(readers)`, and corrects the weights that read them (`protocol.UnitReconstruction`). Then a line
here and `conf/pruner/reconstruction/NAME.yaml`; the laws in tests/laws/test_reconstruction.py test it at once.
"""

from .greedy import Greedy as Greedy  # units go in the order that changes the sum of what they add least
from .lasso import Lasso as Lasso  # units stay whose factor a LASSO leaves; their weights are fitted again
from .protocol import Reader as Reader
from .protocol import Reconstruction as Reconstruction
from .protocol import UnitReconstruction as UnitReconstruction
from .protocol import check_damping as check_damping
from .protocol import chunks as chunks
from .protocol import columns_of as columns_of
from .protocol import contributions as contributions
from .protocol import damped as damped
from .protocol import moment_of as moment_of
from .protocol import products_of_units as products_of_units
from .protocol import rebuilt_from as rebuilt_from
from .protocol import summed as summed
from .reduce_reuse import ReduceReuse as ReduceReuse  # units that vary least go, and are rebuilt from those that stay
from .sparse_gpt import SparseGPT as SparseGPT  # single weights, column by column, the error carried on
