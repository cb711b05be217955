"""What a weight is worth: the higher its score, the longer it stays.

Asked at every update, once for each pruned weight: the criterion gets the weight, output dimension first, and its
gradient if there is one, and returns one finite score per entry. How scores become masks is no matter of its own:
`pattern` makes units of them, `scope` says who competes, `selection` counts.

To write one: a frozen dataclass with `__call__(weight, grad)`, a pure function of what it is given. One that needs
more, the weight's name, the step, a memory saved with the run, the sparsity asked for or the norm behind, has
`at(site)`, which returns the criterion to call there (`protocol.Site`). A score of whole outputs stands at each of the
output's weights, and the class says `of_outputs = True`. One that looks at training says at what, over how many steps,
and what it sums up (`protocol.ObservingCriterion`). Then a line here and `conf/pruner/criterion/NAME.yaml`; the
laws in tests/laws/test_criterion.py test it at once.
"""

from .activation_taylor import ActivationTaylor as ActivationTaylor  # the change of the loss without the unit's values
from .apoz import APoZ as APoZ  # how seldom a unit is silent
from .entropy import Entropy as Entropy  # how much a unit tells: the entropy of its values over examples
from .filter_norm import FilterNorm as FilterNorm  # the norm of the filter, or row, that the weight belongs to
from .first_order_delta import FirstOrderDelta as FirstOrderDelta  # |w| times how fast it has been moving
from .fisher import Fisher as Fisher  # w^2 times the mean squared gradient: OBD
from .geometric_median import GeometricMedian as GeometricMedian  # how far a filter lies from the others of its layer
from .inbound import Inbound as Inbound  # how much what a filter takes from an input channel varies
from .k_means import KMeans as KMeans  # whether a filter stands for a cluster of its layer's filters
from .lamp import LAMP as LAMP  # magnitude beside the larger ones of its layer
from .magnitude import Magnitude as Magnitude  # |w|
from .mean_activation import MeanActivation as MeanActivation  # how large the unit's values are
from .movement import Movement as Movement  # whether training moves it away from zero
from .norm_scale import NormScale as NormScale  # the scale of the norm layer behind the weight
from .norm_taylor import NormTaylor as NormTaylor  # how much the loss is expected to change without a norm's scale
from .obs import OBS as OBS  # w^2 over the inverse Fisher's diagonal; the weights left are corrected
from .output_variance import OutputVariance as OutputVariance  # how much the output varies from example to example
from .protocol import CorrectingCriterion as CorrectingCriterion
from .protocol import Criterion as Criterion
from .protocol import HostedCriterion as HostedCriterion
from .protocol import ObservingCriterion as ObservingCriterion
from .protocol import RememberingCriterion as RememberingCriterion
from .protocol import Site as Site
from .protocol import SitedCriterion as SitedCriterion
from .protocol import check_window as check_window
from .protocol import doubled as doubled
from .protocol import itself as itself
from .protocol import moved_on as moved_on
from .protocol import of_each_weight as of_each_weight
from .protocol import remembered as remembered
from .protocol import share_out as share_out
from .protocol import times_magnitude as times_magnitude
from .protocol import variances as variances
from .protocol import wide as wide
from .random import Random as Random  # nothing: the baseline that every criterion has to beat
from .second_order_delta import SecondOrderDelta as SecondOrderDelta  # |w| times how much its movement has changed
from .snip import Snip as Snip  # |w g|: how sensitive the loss is to it
from .taylor import Taylor as Taylor  # (w g)^2: the change of the loss without it
from .wanda import Wanda as Wanda  # |w| times the norm of its inputs
