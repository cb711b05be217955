"""Exact order statistics of many values in many tensors, in linear time, with nothing concatenated.

It knows no pruning. `float_keys` makes integers of floats that order alike; `bracket` finds a boundary on the CPU from
a sample, `float_keys.kth_smallest` by counting bits everywhere else; `keep_largest` makes masks of it. `spared` is who
stays in any case.
"""

from .float_keys import NotFiniteError as NotFiniteError
from .keep_largest import count as count
from .keep_largest import keep_largest as keep_largest
from .spared import Spared as Spared
