"""Exactly how many: from scores and counts to masks.

Asked at every update, once for each pool of the scope, with the scored units of its members and how many weights are
to go. It answers which units stay, and with the threshold, the score at the boundary.

To write one: a frozen dataclass with `__call__(pool, drop, sparsity)` and `exact`, which says whether exactly `drop`
weights go. Units that are not `alive` stay pruned; `protected` ones go last. `lightning_prune.ranking` finds order
statistics in linear time. Then a line here and `conf/pruner/selection/NAME.yaml`; the laws in
tests/laws/test_selection.py test it at once.
"""

from .below_mean import BelowMean as BelowMean  # what scores far below the mean of its pool, so many as there are
from .exact import Exact as Exact  # as many as asked for, to one weight, the same on every machine
from .histogram import Histogram as Histogram  # above a smoothed threshold that a histogram of the scores gives
from .protocol import Selection as Selection
from .protocol import SelectionOfEach as SelectionOfEach
from .protocol import Units as Units
from .protocol import check_finite as check_finite
from .protocol import check_found as check_found
from .protocol import common as common
from .protocol import held as held
from .protocol import is_split as is_split
from .protocol import non_finite as non_finite
from .protocol import shards_of as shards_of
from .sort import Sort as Sort  # at or above a smoothed k-th largest score, ties kept
