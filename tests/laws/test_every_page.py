"""One noun, one page of the documents: all of its ideas are there, with their configs and docstrings."""

import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

from tests.helpers import CONF, hooks
from tests.laws.test_every_noun import NOUNS

PAGES = Path(__file__).parents[2] / "docs" / "ideas"


def page(noun: str) -> str:
    """Return a noun's page as the site has it."""
    written = (PAGES / f"{noun}.md").read_text(encoding="utf-8")
    return hooks().IDEAS.sub(lambda found: hooks().shown(found[1]), written)


@pytest.mark.parametrize("noun", NOUNS)
def test_every_idea_is_on_its_nouns_page(noun: str) -> None:
    text = page(noun)
    package = import_module(f"lightning_prune.{noun}")
    names = {module.name for module in pkgutil.iter_modules(package.__path__)} - {"protocol"}
    assert names
    for name in names:
        kind = (CONF / noun / f"{name}.yaml").read_text(encoding="utf-8").partition("_target_: ")[2].splitlines()[0]
        assert f"\n::: {kind}\n" in text, "its docstring"
        assert f"# pruner/{noun}={name}\n" in text, "its config, and how it is chosen on the command line"
        assert f"[`{kind.rpartition('.')[2]}`](#{name})" in text, "its row in the table"
        assert inspect.getdoc(getattr(package, kind.rpartition(".")[2]))


@pytest.mark.parametrize("noun", NOUNS)
def test_a_page_says_which_idea_is_for_what_and_shows_the_protocol(noun: str) -> None:
    text = page(noun)
    assert text.count("```python") == 1, "the first example"
    assert "\n## Which one\n" in text
    package = import_module(f"lightning_prune.{noun}.protocol")
    protocols = [name for name, value in vars(package).items() if getattr(value, "_is_protocol", False)]
    own = [name for name in protocols if vars(package)[name].__module__ == package.__name__]
    assert own
    assert all(f"::: {package.__name__}.{name}\n" in text for name in own)


def test_there_is_a_page_for_each_noun_and_no_other() -> None:
    assert {place.stem for place in PAGES.glob("*.md")} == {*NOUNS, "index"}
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    assert all(re.search(rf"\]\({noun}\.md\)", index) for noun in NOUNS)
