"""Read tissue positions of Space Ranger, and versions of them written by other programs.

Space Ranger writes ``tissue_positions_list.csv`` without a header up to version 1, ``tissue_positions.csv`` with one
since version 2, and ``.parquet`` for Visium HD. R, pandas and spreadsheets quote, rename and reorder the columns, add
row numbers, and use semicolons and decimal commas.
"""

from __future__ import annotations

import csv
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.counts import WHITE_SPACE, open_text, separator_of
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.position_columns import column_of, numbers, pixel_columns, shown
from napari_cpnn.spots.truths import TRUTH_WORDS, truths
from napari_cpnn.untrusted import reason_of, require_memory, require_no_device

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
"""Column names of Space Ranger, in order."""

_LONGEST_ROW, _MOST_COLUMNS = 2**16, 1000
_IN_TISSUE = {"intissue", "tissue", "istissue", "isintissue", "undertissue", "ontissue"}
#: Names of barcode columns, the most likely first.
_BARCODES = (
    "barcode", "barcodes", "spotbarcode", "cellbarcode", "bc", "spotid", "spotname", "cellid", "spot", "spots", "cell",
    "id", "name", "names", "rowname", "rownames", "index", "unnamed0", "",
)  # fmt: skip
_NUMBERED = re.compile(r"[A-Za-z]*[ _.]?\d+")


def read_positions(path: Path) -> pd.DataFrame:
    """Read tissue positions by barcode.

    Returns
    -------
    DataFrame
        Index: barcodes; columns ``in_tissue`` (1 if not in the file), ``pxl_row_in_fullres`` and ``pxl_col_in_fullres``
        in pixels of the full-resolution image, and, if in the file, ``array_row`` and ``array_col``, NaN where not
        numeric.

    Raises
    ------
    SpotsError
        If the file cannot be read, or its columns cannot be identified by name.
    """
    import pandas as pd

    table = _read(path)
    chosen = _chosen(list(table.columns), table, path)
    barcodes = table[chosen["barcode"]].astype(str).str.strip()
    found = pd.DataFrame(index=pd.Index(barcodes, name="barcode", dtype=object))
    if found.index.has_duplicates:
        raise SpotsError(f"{path} has the barcode {found.index[found.index.duplicated()][0]} twice.")
    for name in COLUMNS[1:]:
        if name not in chosen:
            if name == "in_tissue":
                found[name] = 1
            continue
        values = table[chosen[name]]
        if name == "in_tissue":
            found[name] = truths(values, f"Column {chosen[name]} of {path}").astype(np.int64)
            continue
        try:
            found[name] = numbers(values, str(path))
        except SpotsError:
            if not name.startswith("array"):
                raise
            found[name] = np.nan
    whole = [name for name in ("array_row", "array_col") if name in found]
    for name in whole:
        if np.isfinite(found[name]).all() and (found[name] == found[name].round()).all():
            found[name] = found[name].astype(np.int64)
    return found


def _read(path: Path) -> pd.DataFrame:
    """Read the table with its own column names; text without a header gets Space Ranger's."""
    import pandas as pd

    try:
        require_no_device(path)
        if path.suffix.lower() == ".parquet":
            _require_room(path)
            table = pd.read_parquet(path)
            return table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
        return _read_text(path)
    except SpotsError:
        raise
    except ImportError as exc:
        raise SpotsError(f"Reading {path} needs the package pyarrow: run `pip install pyarrow`.") from exc
    except Exception as exc:
        raise SpotsError(f"{path} cannot be read as tissue positions ({reason_of(exc)}).") from exc


def _require_room(path: Path) -> None:
    """Check the size that a parquet file declares; other files are left to pandas."""
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return
    import pyarrow.parquet as pq

    about = pq.ParquetFile(path).metadata
    n_bytes = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    require_memory(max(n_bytes, 8 * about.num_rows * about.num_columns), path, SpotsError)


def _read_text(path: Path) -> pd.DataFrame:
    import pandas as pd

    with open_text(path, _LONGEST_ROW) as file:
        first = next((line for line in file if line.strip()), "")
        second = next((line for line in file if line.strip()), "")
        separator = ";" if first.count(";") >= max(2, first.count(",")) else separator_of(first)
        head, row = (_fields(line, separator) for line in (first, second))
        n_columns = max(len(head), len(row))
        if n_columns > _MOST_COLUMNS:
            raise SpotsError(f"{path} has {n_columns:,} columns instead of {', '.join(COLUMNS)}.")
        counted = bool(head) and _is_number(head[0])  # row numbers come first
        named = not all(map(_is_number, head[2 if counted else 1 :]))
        if named and len(row) == len(head) + 1:  # as in R's output, where the column of row names has no header
            head = ["", *head]
        file.seek(0)
        table = pd.read_csv(
            file, sep=separator, header=None, names=range(n_columns), dtype=str, keep_default_na=False, index_col=False
        )
    if named:
        table = table.iloc[1:].reset_index(drop=True)
        head += [f"column {i}" for i in range(len(head), n_columns)]
        return table.set_axis([name.strip() for name in head], axis=1)
    if n_columns == len(COLUMNS) + 1 and _are_row_numbers(table[0]):
        table = table.iloc[:, 1:]
    if table.shape[1] != len(COLUMNS):
        raise SpotsError(f"{path} has {table.shape[1]} columns instead of {', '.join(COLUMNS)}.")
    return table.set_axis(COLUMNS, axis=1)


def _fields(line: str, separator: str) -> list[str]:
    if separator == WHITE_SPACE:
        return [field.strip("\"'") for field in line.split()]
    try:
        fields = next(csv.reader([line.rstrip("\r\n")], delimiter=separator), [])
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return [field.strip().strip("\"'") for field in fields]


def _is_number(text: str) -> bool:
    text = text.strip().lower()
    if text in ("", "na", "nan", *TRUTH_WORDS):
        return True
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _are_row_numbers(values: pd.Series[Any]) -> bool:
    texts = [str(value).strip() for value in values[:100]]
    return texts in ([str(i) for i in range(start, start + len(texts))] for start in (0, 1))


def _chosen(names: list[Any], table: pd.DataFrame, path: Path) -> dict[str, Any]:
    """Return the column of the table for each of Space Ranger's columns that is present."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SpotsError(f"{path} has the column {twice!r} twice; get the file again.")
    if set(COLUMNS) <= set(names):
        return dict(zip(COLUMNS, COLUMNS, strict=True))
    in_tissue = next((name for name in names if _plain(name) in _IN_TISSUE), None)
    chosen = {} if in_tissue is None else {"in_tissue": in_tissue}
    rest = [name for name in names if name not in chosen.values()]
    barcode = _barcodes(rest, table)
    found = [column for column in map(column_of, rest) if column is not None and column.name != barcode]
    pixels = pixel_columns([column.name for column in found if column.kind != "grid"])
    if barcode is None or pixels is None:
        nameless = len(names) >= len(COLUMNS) and all(_NUMBERED.fullmatch(str(name)) for name in names[1:])
        if not nameless or pixels is not None:
            raise SpotsError(_refusal(names, path))
        return _in_order(names, path)
    chosen |= {"barcode": barcode, "pxl_col_in_fullres": pixels[0], "pxl_row_in_fullres": pixels[1]}
    for ours, axis in (("array_row", "y"), ("array_col", "x")):
        of_array = [c.name for c in found if c.axis == axis and c.kind == "array"]
        of_array = of_array or [c.name for c in found if c.axis == axis and c.kind == "grid"]
        if len(of_array) == 1:
            chosen[ours] = of_array[0]
    return chosen


def _barcodes(names: list[Any], table: pd.DataFrame) -> Any:
    """Return the barcode column: by name, else the only text column; None if ambiguous."""
    plain = {_plain(name): name for name in reversed(names)}
    texts = [name for name in names if not all(map(_is_number, map(str, table[name][:20])))]
    called = [plain[name] for name in _BARCODES if name in plain]
    for name in called:
        if name in texts:
            return name
    return texts[0] if len(texts) == 1 else next(iter(called), None)


def _in_order(names: list[Any], path: Path) -> dict[str, Any]:
    """Assign Space Ranger's columns by order to R's default names such as V1 and V2."""
    names = names[-len(COLUMNS) :]
    warnings.warn(
        f"{path} names its columns {shown(names)}, which have no meaning; they are read as {', '.join(COLUMNS)}.",
        CpnnWarning,
        stacklevel=5,
    )
    return dict(zip(COLUMNS, names, strict=True))


def _refusal(names: list[Any], path: Path) -> str:
    needed = ", ".join(COLUMNS)
    if len(names) < 3:
        return f"{path} has {len(names)} columns instead of {needed}."
    return f"The columns of {path} ({shown(names)}) do not identify the positions of spots; name them {needed}."


def _plain(name: Any) -> str:
    return re.sub(r"[^a-z0-9]+", "", str(name).lower())
