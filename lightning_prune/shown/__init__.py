"""How numbers are shown to people: lists counted by reason, tables in notebooks, pictures. It takes plain values."""

from __future__ import annotations

from lightning_prune.shown.frame import frame as frame
from lightning_prune.shown.html import html_table as html_table
from lightning_prune.shown.picture import new_figure as new_figure
from lightning_prune.shown.reasons import by_reason as by_reason
