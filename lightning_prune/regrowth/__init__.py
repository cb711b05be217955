"""Which pruned weights return, and how many at a time.

Asked at every update, once the masks are known that the schedule asks for: each layer drops a share of what is left to
it, the smallest weights first, and as many return. They begin at zero, and with nothing that an optimizer remembers of
them. So the number of weights is that of the schedule, in each layer. Gradients are seen complete: accumulated, reduced
over ranks, neither clipped nor masked.

To write one: a frozen dataclass with `window`, `resolve(total_steps)`, `share(step)` and `__call__(weight, gradient)`,
which says what each entry would be worth (`protocol.Regrowth`). Then a line here and
`conf/pruner/regrowth/NAME.yaml`; the laws in tests/laws/test_regrowth.py test it at once.
"""

from .gradient import Gradient as Gradient  # those with the largest gradient: RigL, GraNet
from .protocol import Regrowth as Regrowth
