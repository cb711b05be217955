"""From zeros to a smaller model: dead units are taken out, the outputs stay, and the result can be stored."""

from .pretrained import load_pretrained as load_pretrained
from .pretrained import save_pretrained as save_pretrained
from .report import ShrinkReport as ShrinkReport
from .report import ShrunkGroup as ShrunkGroup
from .shrink import NotEqualError as NotEqualError
from .shrink import check_shrinkable as check_shrinkable
from .shrink import shrink as shrink
from .shrink import shrink_ as shrink_
from .stored import RECIPE as RECIPE
from .stored import SHRUNK as SHRUNK
from .stored import WEIGHTS as WEIGHTS
from .stored import Shrunk as Shrunk
from .stored import from_safetensors as from_safetensors
from .stored import load_shrunk as load_shrunk
from .stored import rebuild as rebuild
from .stored import recipe_of as recipe_of
from .stored import recipes_in as recipes_in
from .stored import save_shrunk as save_shrunk
from .taken import StillAliveError as StillAliveError
from .taken import followed_by as followed_by
from .taken import larger as larger
from .taken import take_out as take_out
from .whole_again import is_apart as is_apart
from .whole_again import whole_again as whole_again
