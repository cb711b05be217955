"""Records as a DataFrame, where pandas is installed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any


def frame(records: Sequence[Mapping[str, Any]], index: str) -> Any:
    """Return a `pandas.DataFrame`, a row a record.

    Args:
        records: column -> value.
        index: the column that names the rows.

    Raises:
        ModuleNotFoundError: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("to_pandas() needs pandas: pip install pandas", name="pandas") from error
    return pandas.DataFrame.from_records([dict(record) for record in records], index=index)
