"""The one place that knows pieces: which part of a weight lies on this rank, and how numbers of pieces add up.

A weight that FSDP2 or tensor parallelism has taken apart is a `DTensor`; masks, scores and gradients of it are those of
the piece that lies here. A plain tensor is its own piece: nothing is copied or sent for it.
"""

from .grid import Grid as Grid
from .grid import grid_of as grid_of
from .means import mean_of_rows as mean_of_rows
from .means import summed as summed
from .shard import Shard as Shard
from .shard import check_whole as check_whole
from .shard import grad_of as grad_of
from .shard import is_plain as is_plain
from .shard import like as like
from .shard import local as local
from .shard import reshard as reshard
from .shard import resharding as resharding
from .shard import shard_of as shard_of
from .shard import whole as whole
from .shard import whole_on_host as whole_on_host
from .shard import whole_parameters as whole_parameters
from .sums import Kind as Kind
from .sums import each as each
from .sums import first_error as first_error
from .sums import gathered as gathered
from .sums import highest as highest
from .sums import kind as kind
from .sums import kinds as kinds
from .sums import over_ranks as over_ranks
from .sums import ranks as ranks
from .sums import sum_of as sum_of
from .sums import together as together
from .sums import total as total
from .sums import total_of as total_of
from .sums import wholes as wholes
