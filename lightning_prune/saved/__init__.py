"""What a file has brought, looked at before anything is changed.

Files are read as plain values and tensors, never unpickled. What they hold may still be damaged, or made up: a wrong
type, a missing field, a number out of all bounds.
"""

from .fields import MOST as MOST
from .fields import at as at
from .fields import boolean as boolean
from .fields import integer as integer
from .fields import mapping as mapping
from .fields import number as number
from .fields import sequence as sequence
from .fields import tensor as tensor
from .fields import text as text
from .moments import moments as moments
from .reading import load as load
from .reading import load_json as load_json
from .sane import check_tensors as check_tensors
from .sane import claims_too_much as claims_too_much
