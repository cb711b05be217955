"""A callback as a notebook shows it: what it will do, and once it has, its report."""

from __future__ import annotations

from html import escape
from typing import Any, Protocol

from lightning_prune.report import Report


class _Has(Protocol):
    pruner: Any

    @property
    def report(self) -> Report | None: ...


class InNotebooks:
    """A table, a DataFrame and a picture of a callback's report."""

    def _repr_html_(self: _Has) -> str:
        report = self.pruner.report() if self.pruner.attached else self.report
        head = f"<div><code>{escape(repr(self.pruner))}</code></div>"
        return head + ("<div>no fit yet</div>" if report is None else report.html())

    def to_pandas(self: _Has) -> Any:
        """Return the report of the latest fit as a `pandas.DataFrame`, a row a weight.

        Raises:
            RuntimeError: there was no fit.
            ModuleNotFoundError: pandas is not installed.
        """
        return _there(self.report).to_pandas()

    def plot(self: _Has) -> Any:
        """Return a matplotlib figure of the sparsity by layer after the latest fit.

        Raises:
            RuntimeError: there was no fit.
            ModuleNotFoundError: matplotlib is not installed.
        """
        return _there(self.report).plot()


def _there(report: Report | None) -> Report:
    if report is None:
        raise RuntimeError("there is no report yet: fit a model with this callback first")
    return report
