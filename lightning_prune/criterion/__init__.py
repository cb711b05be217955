"""What a weight is worth: the higher its score, the longer it stays.

Asked at every update, once for each pruned weight: the criterion gets the weight, output dimension first, and its
gradient if there is one, and returns one finite score per entry. How scores become masks is no matter of its own:
`pattern` makes units of them, `scope` says who competes, `selection` counts.

To write one: a frozen dataclass with `__call__(weight, grad)`, a pure function of what it is given. One that needs
more, the weight's name, the step, a memory saved with the run, the sparsity asked for or the norm behind, has
`at(site)`, which returns the criterion to call there (`protocol.Site`). A score of whole outputs stands at each of the
output's weights, and the class says `of_outputs = True`. Then a line here and `conf/pruner/criterion/NAME.yaml`; the
laws in tests/laws/test_criterion.py test it at once.
"""

from .filter_norm import FilterNorm as FilterNorm  # the norm of the filter, or row, that the weight belongs to
from .first_order_delta import FirstOrderDelta as FirstOrderDelta  # |w| times how fast it has been moving
from .geometric_median import GeometricMedian as GeometricMedian  # how far a filter lies from the others of its layer
from .k_means import KMeans as KMeans  # whether a filter stands for a cluster of its layer's filters
from .magnitude import Magnitude as Magnitude  # |w|
from .norm_scale import NormScale as NormScale  # the scale of the norm layer behind the weight
from .protocol import Criterion as Criterion
from .protocol import RememberingCriterion as RememberingCriterion
from .protocol import Site as Site
from .protocol import SitedCriterion as SitedCriterion
from .protocol import itself as itself
from .protocol import moved_on as moved_on
from .protocol import of_each_weight as of_each_weight
from .protocol import times_magnitude as times_magnitude
from .random import Random as Random  # nothing: the baseline that every criterion has to beat
from .second_order_delta import SecondOrderDelta as SecondOrderDelta  # |w| times how much its movement has changed
