"""All architectures on which pruning, shrinking and loading are tried."""

from tests.coupling.tables.convolutions import CONVOLUTIONS
from tests.coupling.tables.sequences import SEQUENCES
from tests.coupling.tables.unusual import UNUSUAL

ARCHITECTURES = CONVOLUTIONS | SEQUENCES | UNUSUAL
