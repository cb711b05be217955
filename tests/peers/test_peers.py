"""This library keeps to every line of the comparison, and the comparison is what the others do today."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest
import torch

from . import table, units, weights
from .tools import OURS


@pytest.mark.parametrize("case", [*weights.CASES, *units.CASES], ids=lambda case: case.__doc__)
def test_ours_keeps_to_it(case: table.Case, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nets as small as these are warned about
        case(OURS, tmp_path)


@pytest.mark.slow
def test_the_page_says_what_each_tool_does_today(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    assert table.between(table.PAGE.read_text(encoding="utf-8"))[1] == table.table()
