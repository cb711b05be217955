"""Words for Hydra: what is quoted comes back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lightning_prune.cli.arguments import in_quotes, read


@pytest.mark.parametrize(
    "text", ["runs/a b", "it's here", "a\\b", "epoch=3,step=9", "${x}", "back\\'slash", "two\\\\'s", "end\\", ""]
)
def test_any_text_is_a_value_when_quoted(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"key={in_quotes(text)}"])
    assert str(override.value()) == text


@pytest.mark.parametrize("flag", ["--config-dir", "-cd"])
@pytest.mark.parametrize("name", ["lr=0.1", "a b,c=[1]"])
def test_a_folder_may_have_an_equals_sign_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name
    folder.mkdir()
    (folder / "mine.yaml").write_text("defaults: [digits_mlp]\n", encoding="utf-8")
    for given in (str(folder), name):
        found = read([flag, given, "-cn", "mine", "seed=1"])
        assert found.folders[0] == folder
        assert found.rest == ("seed=1",)
