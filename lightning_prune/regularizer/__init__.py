"""What is added to the loss for each pruned weight.

Asked at every optimizer step, after gradients are accumulated and reduced and before they are clipped: autograd takes
the gradient of its value, which is added to the weight's. So a regularizer acts once a step, whatever was done to the
loss (accumulation, scaling, several ranks).

To write one: a frozen dataclass with `__call__(weight, threshold)` that returns a scalar, differentiable in the
weight; the output dimension comes first, and the threshold is the score at which the latest update cut. One that
differs by role or time, or that acts on norms and biases too, has `at(moment)` (`protocol.Moment`). Then a line here
and `conf/pruner/regularizer/NAME.yaml`; the laws in tests/laws/test_regularizer.py test it at once.
"""

from .group_lasso import GroupLasso as GroupLasso  # the norms of whole outputs
from .growing import Growing as Growing  # a square penalty that grows on what is to be cut
from .l1 import L1 as L1  # absolute values
from .l2 import L2 as L2  # squares
from .near_threshold import NearThreshold as NearThreshold  # absolute values of what is likely to go next
from .norm_l1 import NormL1 as NormL1  # absolute values of the scales of norms behind channels
from .protocol import Moment as Moment
from .protocol import Regularizer as Regularizer
from .protocol import SitedRegularizer as SitedRegularizer
