"""Who competes with whom, and how many each may keep.

Asked at every update with all layers and the sparsity that the schedule wants: a scope sorts them into pools and says
of each pool how many weights must be zero. Within a pool the lowest scores go, wherever they are but for what each
layer keeps at least. Each rule of `Targets(sparsity=...)` has layers and a sparsity of its own, and is asked apart.

To write one: a frozen dataclass with `__call__(layers, sparsity)` that returns disjoint `protocol.Pool`s which cover
all layers and whose `drop`s add up to round(sparsity N). A layer's `pruned` entries are gone for good and count among
those. Then a line here and `conf/pruner/scope/NAME.yaml`; the laws in tests/laws/test_scope.py test it at once.
"""

from .by_layer import ByLayer as ByLayer  # each layer at a share of zeros given by its name
from .erk import ERK as ERK  # each layer keeps a share by the sum of its dimensions over their product: small ones more
from .global_ranking import GlobalRanking as GlobalRanking  # all weights compete: layers end at different sparsities
from .protocol import Layer as Layer
from .protocol import Pool as Pool
from .protocol import Scope as Scope
from .uniform import Uniform as Uniform  # every layer at the same sparsity
