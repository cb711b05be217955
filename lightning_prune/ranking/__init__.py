"""Exact order statistics of many values in many tensors, in linear time, with nothing concatenated.

It knows no pruning. `float_keys` makes integers of floats that order alike; `bracket` finds a boundary on the CPU from
a sample, `counting` by counting bits everywhere else, the `digits` of `chunks`; `keep_largest` makes masks of it.
`spared` is who stays in any case, `counts` what the host reads.
"""

from .chunks import by_rows as by_rows
from .chunks import chunks_of as chunks_of
from .chunks import take as take
from .counting import Contest as Contest
from .counts import NUMPY as NUMPY
from .counts import count as count
from .counts import count_nonzero as count_nonzero
from .counts import counts as counts
from .counts import ends as ends
from .counts import is_finite as is_finite
from .counts import on_host as on_host
from .counts import read as read
from .float_keys import NotFiniteError as NotFiniteError
from .keep_largest import keep_largest as keep_largest
from .keep_largest import keep_largest_of_each as keep_largest_of_each
from .spared import Spared as Spared
from .thresholds import Ranked as Ranked
from .thresholds import above as above
from .thresholds import extremes as extremes
from .thresholds import kth_smallest_value as kth_smallest_value
from .thresholds import kth_smallest_values as kth_smallest_values
from .thresholds import where_float64_is as where_float64_is
