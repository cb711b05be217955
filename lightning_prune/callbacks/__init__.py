"""Where pruning meets Lightning: which hook of a Trainer calls which verb, and callbacks that know of sparsity."""

from .monitoring import SparseEarlyStopping as SparseEarlyStopping
from .monitoring import SparseModelCheckpoint as SparseModelCheckpoint
from .pruning import PruningCallback as PruningCallback
from .resume_point import ResumePoint as ResumePoint
from .rewind import Rewind as Rewind
