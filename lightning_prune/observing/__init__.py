"""What criteria look at in training: what goes into layers and out of them, seen by hooks that change nothing.

`seen` says what a layer's input or output is, outputs, examples and positions apart; `watch` puts the hooks on, and
takes them off again. Who looks at what, and when, is a matter of pruning/observed.py.
"""

from .as_written import as_written as as_written
from .seen import channels_of as channels_of
from .seen import inputs_of as inputs_of
from .seen import outputs_of as outputs_of
from .seen import squared_inputs_of as squared_inputs_of
from .seen import units_of as units_of
from .seen import why_unseen as why_unseen
from .seen import width_of as width_of
from .watch import Watch as Watch
