"""One HTML page about a run, or several side by side: made of what lies in their folders, and needing nothing else.

Templates by Jinja, pictures by matplotlib as SVG; both are imported when a page is made, and no sooner. Nothing of what
a run's files hold is executed, and nothing of it reaches the page unescaped.
"""

from __future__ import annotations

from .details import DETAILS as DETAILS
from .details import Recorder as Recorder
from .metrics import Curves as Curves
from .metrics import read_metrics as read_metrics
from .render import PAGE as PAGE
from .render import report_page as report_page
