"""Write and read tables as CSV or Parquet, by file extension, atomically."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from napari_cpnn.errors import TrainingError
from napari_cpnn.storage import csv_table, table_of_csv, whole_file
from napari_cpnn.untrusted import to_path


def write_table(table: pd.DataFrame, path: str | Path, index: bool = False, digits: int | None = None) -> None:
    """Write a table as ``.csv`` or ``.parquet``, atomically.

    Parameters
    ----------
    index
        Write the index as the first column.
    digits
        Significant digits of numbers in a ``.csv``; by default all, so that reading is lossless.

    Raises
    ------
    TrainingError
        If the extension is another, the file cannot be written, or pyarrow is missing for Parquet.
    """
    path = Path(path)
    require_table_name(path)
    try:
        with whole_file(path, TrainingError) as unfinished:
            if path.suffix == ".csv":
                digits_of = f"%.{digits}g" if digits else None
                csv_table(table, index=index).to_csv(unfinished, index=index, float_format=digits_of)
            else:
                table.to_parquet(unfinished, index=index, engine="pyarrow")
    except ImportError as error:
        raise TrainingError(
            f"Parquet needs pyarrow ({error}); run pip install 'napari-cpnn[parquet]' or write .csv."
        ) from error


def require_table_name(path: Path) -> None:
    """Raise a :class:`TrainingError` for a file extension that :func:`write_table` does not support."""
    if path.suffix not in (".csv", ".parquet"):
        raise TrainingError(f"Tables are written as .csv or .parquet, not as {path.name}.")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table written by :func:`write_table` without index; numbers are read losslessly."""
    path = to_path(path, TrainingError)
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path, engine="pyarrow")
        # A gene may be called NA; only empty fields are missing values.
        read = pd.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values=[""])
    except (OSError, ValueError, ImportError) as error:
        raise TrainingError(f"{path} cannot be read as a table ({error}).") from error
    table: pd.DataFrame = table_of_csv(read)
    return table
