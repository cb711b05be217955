"""Pruning step by step: which weights compete, one update of their masks, and the verbs that a training loop calls.

`Pruner` composes the nouns and has the verbs. `attached` is what it knows while it is on a model; `weight_update` and
`unit_update` go from weights to scores, units, counts and masks, once an update. `least_loss` shares a sparsity out to
layers by what each of them costs.
"""

from .pruner import Pruner as Pruner
