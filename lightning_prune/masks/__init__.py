"""The mask and threshold beside each pruned weight, and the only code that writes to pruned weights.

Masks act in place: the model stays a plain model with plain parameters, the same keys and the same order. Pruned
entries are set to zero; gradients and what optimizers remember of them, too.
"""

from .checksum import checksums as checksums
from .followers import followers as followers
from .followers import suggestion as suggestion
from .masked_weight import MaskedWeight as MaskedWeight
from .masked_weight import alive as alive
from .masked_weight import apply_all as apply_all
from .masked_weight import mend as mend
from .masked_weight import zero_gradients as zero_gradients
from .masks import Masks as Masks
from .memory import check_own as check_own
from .merged import mask_merged as mask_merged
from .merged import zeros_of as zeros_of
from .places import Places as Places
from .writing import write_all as write_all
from .zeros import zero_ as zero_
from .zeros import zero_copies as zero_copies
