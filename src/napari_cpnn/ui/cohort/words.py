"""Texts of the Cohort dock. No Qt here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_cpnn.cohort_run import COLUMNS, CohortStatus, CohortTables
from napari_cpnn.decimals import fixed
from napari_cpnn.texts import duration, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Columns of the slides that are said in other ways.
HIDDEN = ("path", "bulk", "flags")
#: Headings of the quality control.
HEADINGS = {
    "tissue_mm2": "tissue mm²", "tissue_share": "tissue %", "patches": "patches", "failed_share": "unread %",
    "sharpness": "focus", "haematoxylin": "H", "eosin": "E", "hue": "hue °", "pen_share": "pen %",
    "fold_share": "folds %", "unlike_share": "unlike %",
}  # fmt: skip


def progress_line(tables: CohortTables, status: CohortStatus) -> str:
    """Describe how far a run is, such as ``12 of 20 slides mapped, 1 failed, 3 with remarks; 4 min left``."""
    n_done = int((tables.slides["status"] == "done").sum())  # and not status.done: a file may be half written
    flagged = int((tables.slides["flags"].str.len() > 0).sum())
    parts = [f"{n_done} of {status.slides} slides mapped"]
    parts += [f"{len(status.failed)} failed"] if status.failed else []
    parts += [f"{flagged} with remarks"] if flagged else []
    text = ", ".join(parts)
    if status.holder is None:
        return f"{text}; nobody works on the rest." if status.waiting else f"{text}."
    host = shown(status.holder.get("host", "?"), 40)
    left = "" if math.isnan(status.seconds_left) else f", about {duration(status.seconds_left)} left"
    return f"{text}; the run goes on on {host}{left}."


def columns_of(slides: pd.DataFrame, groups: Sequence[str] = ()) -> list[str]:
    """Columns of the table of slides, the most telling first; those that say nothing are left out."""
    own = [c for c in slides.columns if c not in HIDDEN and c not in COLUMNS]
    first = [c for c in (*groups, "status", "patient") if c in own]
    quality = [c for c in COLUMNS if c in slides]
    rest = [c for c in own if c not in first]
    ordered = list(dict.fromkeys([*first, *quality, *rest]))
    return [c for c in ordered if c == "status" or not _says_nothing(slides, c)]


def _says_nothing(slides: pd.DataFrame, column: str) -> bool:
    values = slides[column]
    if values.isna().all():
        return True
    return column in ("patient", "sample") and values.astype(str).tolist() == slides.index.astype(str).tolist()


def heading(column: str) -> str:
    return HEADINGS.get(column, shown(column, 30))


def tip(column: str) -> str:
    return COLUMNS.get(column, f"{shown(column, 60)}, of the manifest; a click sorts")


def value_words(column: str, value: Any) -> str:
    """Write a value of the table of slides."""
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)) or value is pd.NA:
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if not isinstance(value, (int, float, np.number)):
        return shown(value, 60)
    number = float(value)
    if column.endswith("_share") and column in COLUMNS:
        return fixed(100 * number, 1)
    if number.is_integer() and abs(number) < 1e9:
        return f"{number:,.0f}" if column in COLUMNS else f"{number:.0f}"
    return fixed(number, 0 if column == "hue" else 2) if abs(number) >= 0.01 or not number else f"{number:.2g}"


def is_number(values: pd.Series) -> bool:
    """Return whether a column is of numbers: more of them than an outcome or a group has values."""
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def interval_words(mean: float, low: float, high: float, *, signed: bool = False) -> str:
    """Write a share in per cent with its interval."""
    if not math.isfinite(mean):
        return "–"
    ends = f" [{fixed(100 * low, 1)}, {fixed(100 * high, 1)}]" if math.isfinite(low) else ""
    return f"{fixed(100 * mean, 1, signed=signed)}{ends}"


def p_words(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
