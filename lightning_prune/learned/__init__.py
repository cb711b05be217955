"""Masks that are learned: a probability for every unit or weight, trained with the network while the network trains.

`LearnedMasks` goes where a `Pruner` goes. `learning` is what it knows while it is on a model, `logits` and `thresholds`
are what is learned, `masked_units` and `masked_weights` where masks act, through `input_hooks` and `weight_hooks`;
`hardening` puts them into the weights for good.
"""

from .masks import LearnedMasks as LearnedMasks
