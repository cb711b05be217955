"""What is added to the loss for the probabilities of learned masks.

Asked at every optimizer step while masks are learned, with the probabilities of all units to be kept, the share of
zeros to be expected of them, and the share that the schedule asks for. Its gradient goes to the logits alone.

To write one: a frozen dataclass with `__call__(p, expected, asked)` that returns a scalar, and `needs_schedule`, which
says whether it means something only where a schedule asks for a sparsity. Then a line here and
`conf/pruner/mask_regularizer/NAME.yaml`; the laws in tests/laws/test_mask_regularizer.py test it at once.
"""

from .binarizer import Binarizer as Binarizer  # pushes probabilities to 0 and 1, away from tau
from .expected_sparsity import ExpectedSparsity as ExpectedSparsity  # steers the expected sparsity along the schedule
from .mean_probability import MeanProbability as MeanProbability  # each unit has to earn its place
from .protocol import MaskRegularizer as MaskRegularizer
