"""What MkDocs does not do by itself: pages from outside docs/, links that leave it, and the ideas of a noun.

A page says `<!-- ideas of NOUN -->`, and every idea that lies in `lightning_prune/NOUN` and `conf/pruner/NOUN` stands
there: nothing is listed by hand, so a new one is on its page as soon as it is in the package.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BROUGHT = {
    "recipes/README.md": "recipes.md",
    "benchmarks/README.md": "benchmarks.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Documents of the project that are pages of the site as well, and the page of each."""

IDEAS = re.compile(r"^<!-- ideas of (\w+) -->$", re.MULTILINE)
LINE = re.compile(r"^from \.(\w+) import (\w+) as \2  # (.+)$", re.MULTILINE)
LINK = re.compile(r"\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def ideas_of(noun: str) -> list[tuple[str, str, str]]:
    """Return name in configs, class and a few words of each idea, as `lightning_prune/NOUN/__init__.py` lists them."""
    listed = LINE.findall((ROOT / "lightning_prune" / noun / "__init__.py").read_text(encoding="utf-8"))
    return [(name, kind, words) for name, kind, words in listed if name != "protocol"]


def shown(noun: str) -> str:
    """Return what stands on a noun's page: a table of its ideas, then each with its config and its docstring."""
    ideas = ideas_of(noun)
    rows = [f"| [`{kind}`](#{name}) | {words} | `pruner/{noun}={name}` |" for name, kind, words in ideas]
    text = ["| idea | in short | on the command line |", "| --- | --- | --- |", *rows, ""]
    for name, kind, _ in ideas:
        config = (ROOT / "conf" / "pruner" / noun / f"{name}.yaml").read_text(encoding="utf-8").rstrip()
        text += [
            *(f"## {kind} {{#{name}}}", "", "```yaml", f"# pruner/{noun}={name}", config, "```", ""),
            f"::: lightning_prune.{noun}.{name}.{kind}",
            "    options: {show_root_heading: false, show_root_toc_entry: false, members: false}",
            "",
        ]
    return "\n".join(text)


def source_of(page: str) -> str:
    """Return the place in the project of a page's text."""
    return {to: of for of, to in BROUGHT.items()}.get(page, f"docs/{page}")


def link(found: re.Match[str], page: str, repository: str | None) -> str:
    """Return a link of a page as the site has it: to a page, to the repository if there is one, or the text alone."""
    text, anchor = found["text"], found["anchor"] or ""
    here = posixpath.dirname(source_of(page))
    place = posixpath.normpath(posixpath.join(here, found["path"]))
    to = BROUGHT.get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else None)
    if to is not None and not to.endswith(".py"):
        return f"[{text}]({posixpath.relpath(to, posixpath.dirname(page) or '.')}{anchor})"
    if repository:
        return f"[{text}]({repository.rstrip('/')}/blob/main/{place}{anchor})"
    return text


def on_files(files: Any, config: Any) -> Any:
    """Add the documents that lie outside of docs/."""
    from mkdocs.structure.files import File

    for source, page in BROUGHT.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put in the ideas, and turn links outside of code."""
    parts = FENCE.split(markdown)
    name = page.file.src_uri
    parts[::2] = [LINK.sub(lambda found: link(found, name, config.repo_url), part) for part in parts[::2]]
    return IDEAS.sub(lambda found: shown(found[1]), "".join(parts))
