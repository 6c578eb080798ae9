"""Read legacy Spatial Transcriptomics: a counts table and a spot table, joined on the array position ``XxY``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from napari_cpnn.counts import READ_ERRORS, WHITE_SPACE, as_counts, count_table, open_text, read_table, separator_of
from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.position_columns import numbers
from napari_cpnn.spots.truths import truths
from napari_cpnn.untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

_SPOT_NAME = re.compile(r"^X?(\d+(?:\.\d+)?)[x_](\d+(?:\.\d+)?)$")
_SUFFIXES = (".tsv", ".csv", ".txt")


def is_legacy_table(path: Path) -> bool:
    """Return whether a file is named like a text table, gzipped or not."""
    return path.name.lower().removesuffix(".gz").endswith(_SUFFIXES)


def read_legacy(counts_path: Path, positions_path: Path) -> tuple[AnnData, dict[str, int]]:
    """Return the selected spots present in both tables, and the number of spots left out by reason."""
    spots = _read_counts(counts_path)
    table = _read_positions(positions_path)
    keys = [_key(*_position_of(name)) for name in spots.obs_names]
    table.index = _keyed_as(keys, table)
    if table.index.has_duplicates:
        raise SpotsError(
            f"The spot table {positions_path} names spot {table.index[table.index.duplicated()][0]} twice."
        )
    selected = table[table["selected"] != 0] if "selected" in table else table
    placed = np.array([key in selected.index for key in keys])
    if not placed.any():
        raise SpotsError(
            f"No spot of {counts_path} is selected in {positions_path}: for instance {keys[0]} versus "
            f"{table.index[0]}; do they belong to the same section?"
        )
    unknown = sum(key not in table.index for key in keys)
    dropped = {
        "not_selected": len(table) - len(selected),
        "no_position": unknown,
        "no_counts": len(selected) - int(placed.sum()),
    }
    spots = spots[placed].copy()
    found = selected.loc[[key for key, ok in zip(keys, placed, strict=True) if ok]]
    spots.obs["array_row"] = found["y"].to_numpy()
    spots.obs["array_col"] = found["x"].to_numpy()
    for name in ("new_x", "new_y"):
        if name in found:
            spots.obs[name] = found[name].to_numpy()
    spots.obsm["spatial"] = found[["pixel_x", "pixel_y"]].to_numpy(dtype=np.float64)
    return spots, dropped


def _read_counts(path: Path) -> AnnData:
    """Read the counts table, with spots in rows or in columns."""
    try:
        header, names, values = _read_matrix(path)
    except READ_ERRORS as exc:
        raise SpotsError(f"{path} cannot be read as a table of counts ({reason_of(exc)}).") from exc
    if _are_spot_names(names):
        spots, genes = names, header
    elif _are_spot_names(header):
        spots, genes, values = header, names, sp.csr_matrix(values.T)
    else:
        raise SpotsError(
            f"{path} is not a table of legacy ST counts: neither its rows ({', '.join(names[:2])}, ...) nor its "
            f"columns ({', '.join(header[:2])}, ...) have names like 10x14."
        )
    if len(set(spots)) < len(spots):
        raise SpotsError(f"{path} has a duplicate spot; each spot must have one row of counts.")
    return count_table(as_counts(values, f"The table {path}", SpotsError), spots, genes)


def _read_matrix(path: Path) -> tuple[list[str], list[str], sp.csr_matrix]:
    """Return column names, row names and values of a table. The corner cell may be missing, as in R's output.

    Parses line by line with numpy, since general table readers are slow for wide tables.
    """
    names: list[str] = []
    blocks: list[sp.csr_matrix] = []
    with open_text(path) as file:
        first = file.readline().rstrip("\r\n")
        separator: str | None = separator_of(first)
        if separator == WHITE_SPACE:
            separator = None  # str.split's own white space
        header = [name.strip('" ') for name in first.split(separator)]
        for number, line in enumerate(file, start=2):
            name, *fields = line.rstrip("\r\n").split(separator) or [""]
            if not name and not any(fields):
                continue
            if not names and len(fields) == len(header) - 1:  # the header has a corner cell
                header = header[1:]
            if len(fields) != len(header):
                raise ValueError(f"line {number} has {len(fields)} values for {len(header)} columns")
            names.append(name.strip('" '))
            blocks.append(sp.csr_matrix(np.array(fields, dtype=np.float64)))
    if not blocks:
        raise ValueError("it has no rows")
    return header, names, sp.vstack(blocks, format="csr")


def _are_spot_names(names: Sequence[str]) -> bool:
    return bool(names) and all(_SPOT_NAME.match(name) for name in names)


def _read_positions(path: Path) -> pd.DataFrame:
    """Read the spot table, with lower-case column names and numeric values."""
    import pandas as pd

    table = read_table(path, "spot table", SpotsError, dtype=str)
    table.columns = pd.Index([str(name).strip().lower() for name in table.columns])
    missing = [name for name in ("x", "y", "pixel_x", "pixel_y") if name not in table]
    if missing:
        raise SpotsError(
            f"The spot table {path} has no column {', '.join(missing)}; it needs x, y, pixel_x and pixel_y, and has "
            f"{', '.join(table.columns[:8])}."
        )
    if table.empty:
        raise SpotsError(f"The spot table {path} has no rows.")
    for name in ("x", "y", "new_x", "new_y", "pixel_x", "pixel_y"):
        if name in table:
            values = numbers(table[name], f"Column {name} of the spot table {path}")
            whole = np.isfinite(values).all() and (values == np.round(values)).all()
            table[name] = values.astype(np.int64) if whole else values
    if "selected" in table:
        table["selected"] = _selected(table["selected"], f"Column selected of the spot table {path}")
    return table


def _selected(values: pd.Series[Any], what: str) -> Any:
    """Return which spots are selected, from numbers (0 means no) or words."""
    try:
        return numbers(values, what)
    except SpotsError:
        return truths(values, what)


def _position_of(name: str) -> tuple[float, float]:
    match = _SPOT_NAME.match(name)
    if match is None:  # cannot happen: names were validated when the counts were read
        raise AssertionError(name)
    return float(match[1]), float(match[2])


def _key(x: float, y: float) -> str:
    """Return a key such as ``10x14`` with at most two decimals, since some tables use adjusted positions."""
    return f"{round(x, 2):g}x{round(y, 2):g}"


def _keyed_as(keys: Sequence[str], table: pd.DataFrame) -> pd.Index[str]:
    """Return the keys of the spot table: ``x, y``, or ``new_x, new_y`` if the counts use those."""
    import pandas as pd

    wanted = set(keys)
    candidates = [
        [_key(float(a), float(b)) for a, b in zip(table[x], table[y], strict=True)]
        for x, y in (("x", "y"), ("new_x", "new_y"))
        if x in table and y in table
    ]
    return pd.Index(max(candidates, key=lambda names: len(wanted.intersection(names))))
