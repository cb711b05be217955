"""Rounds of prune, shrink and fine-tune, as in Ridurre: each fine-tuning is a fit of a Trainer of its own.

`rounds` is the loop, `best_units` what a round takes out, `trainer` its Trainer, `record` what rounds leave behind.
`target` finds a sparsity for a cost that is asked for, by `bisect` over the copies of `trial`. `alone` prunes single
layers, has what that costs measured, and puts them back.
"""

from .record import History as History
from .record import Round as Round
from .rounds import PruningRounds as PruningRounds
