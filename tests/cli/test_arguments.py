"""Words for Hydra: what is quoted comes back as it was."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lightning_prune.cli.arguments import in_quotes


@pytest.mark.parametrize(
    "text", ["runs/a b", "it's here", "a\\b", "epoch=3,step=9", "${x}", "back\\'slash", "two\\\\'s", "end\\", ""]
)
def test_any_text_is_a_value_when_quoted(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"key={in_quotes(text)}"])
    assert str(override.value()) == text
