"""The mask and threshold beside each pruned weight, and the only code that writes to pruned weights.

Masks act in place: the model stays a plain model with plain parameters, the same keys and the same order. Pruned
entries are set to zero; gradients and what optimizers remember of them, too.
"""

from .followers import followers as followers
from .followers import suggestion as suggestion
from .masked_weight import MaskedWeight as MaskedWeight
from .masks import Masks as Masks
from .memory import check_own as check_own
from .merged import mask_merged as mask_merged
from .merged import zeros_of as zeros_of
from .places import Places as Places
from .zeros import zero_ as zero_
from .zeros import zero_copies as zero_copies
