"""docs/notebook.ipynb: it has its pictures, and runs from beginning to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
SHOWN = ["text/html", "text/html", "image/png", "text/plain", "text/html", "image/png"]
"""Of the last outputs of the cells that end in something to look at, the richest form."""


def looked_at(notebook: Any) -> list[str]:
    results = [o["data"] for c in notebook.cells for o in c.get("outputs", []) if o["output_type"] == "execute_result"]
    order = ("image/png", "text/html", "text/plain")
    return [next(kind for kind in order if kind in data) for data in results]


def test_it_is_kept_with_its_tables_and_pictures() -> None:
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    assert looked_at(notebook) == SHOWN
    assert all(o["output_type"] != "error" for c in notebook.cells for o in c.get("outputs", []))
    assert "site-packages" not in NOTEBOOK.read_text(encoding="utf-8"), "run it with PYTHONWARNINGS=ignore"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's libraries, about loops and transports
def test_it_runs(tmp_path: Path) -> None:
    from nbclient import NotebookClient

    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell["outputs"] = []
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert looked_at(notebook) == SHOWN
    text = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert "all prunable           17,024  15,322   90.00 %" in text
    assert "speed-up:" in text
