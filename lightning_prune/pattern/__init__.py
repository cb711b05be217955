"""What lives and dies together: single weights, blocks, rows, or whole channels of the model.

Asked at every update, between scores and counts. A pattern of one weight makes one score per unit of one score per
entry (`units`) and, of the units kept, a mask (`expand`). A coupled pattern is asked once, when pruning starts: its
units are slices of many weights, which its `couple(model)` finds in the model's graph.

To write one: a frozen dataclass with the methods of `protocol.Pattern`; tensors come with the output dimension first
and the input dimension second. One that differs by weight has `at(name)` instead (`protocol.SitedPattern`), one across
the model `couple` (`protocol.CoupledPattern`). Then a line here and `conf/pruner/pattern/NAME.yaml`; the laws in
tests/laws/test_pattern.py test it at once.
"""

from .block import Block as Block  # rectangles of a weight matrix
from .channel import Channel as Channel  # whole channels, neurons, hidden units and heads, over all layers they touch
from .column import Column as Column  # all weights that one input goes through
from .element import Element as Element  # single weights
from .kernel import Kernel as Kernel  # whole kernels of a convolution
from .n_of_m import NofM as NofM  # at most N of every M consecutive weights: 2:4 for sparse tensor cores
from .protocol import CoupledPattern as CoupledPattern
from .protocol import Pattern as Pattern
from .protocol import SitedPattern as SitedPattern
from .protocol import TiledPattern as TiledPattern
from .protocol import Tiles as Tiles
from .row import Row as Row  # all weights that lead to one output
