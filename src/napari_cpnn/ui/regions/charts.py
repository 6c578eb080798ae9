"""Charts of the Regions dock, drawn with matplotlib: transparent for the screen, on white for a file. No Qt here.

Each is a list of lines with bars at positions in pixels, without axes and ticks: this is fast enough to redraw while a
map fills, and shows every number as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from napari_cpnn.decimals import fixed
from napari_cpnn.regions import PROGRAMS, SHIFT
from napari_cpnn.ui.frame import Paper
from napari_cpnn.ui.regions.sheet import CHAR_PX, GAP, LINE, Sheet, cut

if TYPE_CHECKING:
    from napari_cpnn.cells import RegionCells
    from napari_cpnn.ui.regions.rows import Explanation, RegionRow

_PROGRAMS_COLOR, _SHIFT_COLOR, _NEUTRAL = "#8C8F96", "#C3C5CA", "#8C8F96"
#: Number of cell types with bars; the rest share a line.
N_TYPES = 10
#: Contributions below this are displayed as 0.00.
_LEAST = 0.005


class _Value(Protocol):
    """Row of the table of a region."""

    name: str
    value: float
    low: float
    high: float
    patch_low: float
    patch_high: float


class _Difference(Protocol):
    """Row of a comparison of two regions."""

    kind: str
    name: str
    difference: float
    low: float
    high: float


def _values(table: pd.DataFrame) -> Iterable[_Value]:
    return cast("Iterable[_Value]", table.itertuples())


def composition_chart(
    rows: Sequence[RegionRow],
    colors: Mapping[str, str],
    paper: Paper,
    cells: Mapping[str, RegionCells] | None = None,
) -> Figure:
    """Draw the shares of the largest cell types, the genes, and the cells of each region, the first with intervals."""
    sheet = Sheet(paper)
    name_px, number_px = _columns(paper)
    measured = [row for row in rows if row.table is not None]
    counted = {} if cells is None else dict(cells)
    for row in rows:
        if row.table is None and row.region.name in counted:
            sheet.text(4, cut(row.region.name, (paper.width_px - 150) / CHAR_PX), bold=True)
            sheet.down()
            _draw_cells(sheet, counted[row.region.name], colors)
            sheet.down(GAP)
    top = max((_largest(row.table, "share") for row in measured), default=1.0)
    of_gene = max((_largest(row.table, "expression") for row in measured), default=1.0)
    room = paper.width_px - name_px - number_px
    for row in measured:
        sheet.text(4, cut(row.region.name, (paper.width_px - 150) / CHAR_PX), bold=True)
        sheet.text(paper.width_px - 4, region_words(row), align="right", faint=True)
        sheet.down()
        shares = _rows_of(row.table, "share").sort_values("value", ascending=False, kind="stable")
        for line in _values(shares.head(N_TYPES)):
            sheet.text(4, cut(line.name, name_px / CHAR_PX))
            scale = room / top
            sheet.band(name_px + line.patch_low * scale, name_px + line.patch_high * scale, name_px + room)
            sheet.bar(name_px, name_px + line.value * scale, colors.get(line.name, _NEUTRAL))
            sheet.whisker(name_px + line.low * scale, name_px + line.high * scale)
            sheet.text(paper.width_px - 4, share_words(line.value, line.low, line.high), align="right")
            sheet.down()
        others = shares.iloc[N_TYPES:]
        if len(others):
            sheet.text(4, _others(len(others)), faint=True)
            sheet.text(paper.width_px - 4, share_words(float(others["value"].sum())), align="right", faint=True)
            sheet.down()
        genes = _rows_of(row.table, "expression")
        if len(genes):
            sheet.text(4, "Expression, log1p CP10k", faint=True)
            sheet.down()
        for line in _values(genes):
            scale = room / of_gene
            sheet.text(4, cut(line.name, name_px / CHAR_PX))
            sheet.band(name_px + line.patch_low * scale, name_px + line.patch_high * scale, name_px + room)
            sheet.bar(name_px, name_px + max(line.value, 0.0) * scale, _NEUTRAL)
            sheet.whisker(name_px + max(line.low, 0.0) * scale, name_px + max(line.high, 0.0) * scale)
            sheet.text(paper.width_px - 4, value_words(line.value, line.low, line.high), align="right")
            sheet.down()
        if row.region.name in counted:
            _draw_cells(sheet, counted[row.region.name], colors)
        sheet.down(GAP)
    if any(np.isfinite(row.table["patch_high"]).any() for row in measured if row.table is not None):
        sheet.text(4, "Pale: typical interval of a patch, not of the mean", faint=True)
        sheet.down()
    return sheet.done()


def _draw_cells(sheet: Sheet, cells: RegionCells, colors: Mapping[str, str]) -> None:
    """Draw the number and density of cells, and the shares of their largest types."""
    width = sheet.paper.width_px
    name_px, number_px = _columns(sheet.paper)
    room = width - name_px - number_px
    density = f"{cells.per_mm2:,.0f} per mm²" if np.isfinite(cells.per_mm2) else "no tissue"
    number = f"{cells.n:,} cells, {density}" if cells.is_searched else cells.note
    sheet.text(4, "Cells, share of cells" if cells.shares else "Cells", faint=True)
    sheet.text(width - 4, number, align="right", faint=True)
    sheet.down()
    if cells.is_searched and cells.note:
        sheet.text(width - 4, f"{cells.note}; all numbers are of this part", align="right", faint=True)
        sheet.down()
    top = max(cells.shares.values(), default=1.0)
    shown_types = list(cells.shares.items())
    for name, share in shown_types[:N_TYPES]:
        sheet.text(4, cut(name, name_px / CHAR_PX))
        sheet.bar(name_px, name_px + share * room / top, colors.get(name, _NEUTRAL), height=7)
        sheet.text(width - 4, share_words(share), align="right")
        sheet.down()
    if others := shown_types[N_TYPES:]:
        sheet.text(4, _others(len(others)), faint=True)
        sheet.text(width - 4, share_words(sum(share for _, share in others)), align="right", faint=True)
        sheet.down()


def comparison_chart(
    table: pd.DataFrame, pair: tuple[str, str], colors: Mapping[str, str], paper: Paper, n_lines: int = 14
) -> Figure:
    """Draw the differences of two regions, largest first; those whose interval excludes 0 are bold."""
    sheet = Sheet(paper)
    name_px, number_px = _columns(paper)[0], 168.0  # with signs and "to", bold, beside the longest interval
    for kinds, unit, scale in ((("share", "unlike"), "percentage points", 100.0), (("expression",), "log1p CP10k", 1)):
        part = sorted_differences(table[table["kind"].isin(kinds)]).head(n_lines)
        if part.empty:
            continue
        half = len(pair[0]) + len(pair[1]) + 3
        letters = max(6, int((paper.width_px / CHAR_PX - len(unit) - 4) / 2)) if half > 20 else 99
        sheet.text(4, f"{cut(pair[0], letters)} − {cut(pair[1], letters)}", bold=True)
        sheet.text(paper.width_px - 4, unit, align="right", faint=True)
        sheet.down()
        room = (paper.width_px - name_px - number_px) / 2
        middle = name_px + room
        reach = np.nanmax(np.abs(part[["difference", "low", "high"]].to_numpy(dtype=float)), initial=1e-9)
        first = sheet.y
        for line in cast("Iterable[_Difference]", part.itertuples()):
            decimals = decimals_of(line.low * scale, line.high * scale, 0 if scale > 1 else 2)
            marked = excludes_zero(round(line.low * scale, decimals), round(line.high * scale, decimals))
            label = "unlike training" if line.kind == "unlike" else line.name
            sheet.text(4, cut(label, name_px / CHAR_PX), bold=marked, faint=not marked)
            color = colors.get(line.name, _NEUTRAL)
            sheet.bar(middle, middle + line.difference / reach * room, color, faint=not marked)
            sheet.whisker(middle + line.low / reach * room, middle + line.high / reach * room)
            text = difference_words(line.difference * scale, line.low * scale, line.high * scale, decimals)
            sheet.text(paper.width_px - 4, text, align="right", bold=marked, faint=not marked)
            sheet.down()
        sheet.rule(middle, first, sheet.y)
        sheet.down(GAP)
    return sheet.done()


def explanation_chart(explanation: Explanation, colors: Mapping[str, str], paper: Paper, n_types: int = 8) -> Figure:
    """Draw the contributions to a gene as a stacked bar and as numbers, which sum to the prediction."""
    sheet = Sheet(paper)
    table = explanation.table
    assert table is not None  # noqa: S101
    parts = explained_parts(table, n_types)
    gene, total = table.attrs["gene"], sum(part.value for part in parts)
    sheet.text(4, f"{cut(gene, 40)}: {fixed(total, 2)} {table.attrs['unit']}", bold=True)
    sheet.text(paper.width_px - 4, cut(explanation.where, 40), align="right", faint=True)
    sheet.down(LINE + 4)
    values = [part.value for part in parts]
    low, high = min(sum(v for v in values if v < 0), 0.0), max(sum(v for v in values if v > 0), 1e-9)
    scale = (paper.width_px - 12) / (high - low)
    zero = 6 - low * scale
    right, left = zero, zero
    for part in parts:
        color, hatch = _style_of(part.name, colors)
        start = right if part.value >= 0 else left
        end = start + part.value * scale
        if abs(end - start) > 0.3:
            sheet.bar(start, end, color, height=20, hatch=hatch)
        right, left = (end, left) if part.value >= 0 else (right, end)
    at = zero + total * scale
    sheet.axes.plot([at], [sheet.y - 5], marker="v", color=sheet.paper.ink, markersize=5)
    sheet.rule(zero, sheet.y - 2, sheet.y + LINE + 2)
    sheet.down(LINE + GAP)
    for part in parts:
        color, hatch = _style_of(part.name, colors)
        sheet.bar(6, 17, color, hatch=hatch)
        sheet.text(24, cut(part.name, (paper.width_px - 150) / CHAR_PX))
        if np.isfinite(part.weight):
            sheet.text(paper.width_px - 60, f"share {share_words(part.weight)}", align="right", faint=True)
        sheet.text(paper.width_px - 4, fixed(part.value, 2, signed=True), align="right")
        sheet.down()
    sheet.axes.plot([6, paper.width_px - 4], [sheet.y, sheet.y], color=paper.ink, linewidth=0.8)
    sheet.text(24, "prediction, the sum", bold=True)
    sheet.text(paper.width_px - 4, fixed(total, 2), align="right", bold=True)
    sheet.down()
    return sheet.done()


@dataclass(frozen=True)
class Part:
    """Contribution to a gene, rounded so that all contributions sum to the rounded prediction."""

    name: str
    value: float
    weight: float


def explained_parts(table: pd.DataFrame, n_types: int = 8) -> list[Part]:
    """Return the contributions of the largest cell types, the other types together, programs and shift."""
    types, rest = table.iloc[:-2], table.iloc[-2:]
    n = min(n_types, max(1, int((types["value"] >= _LEAST).sum())))
    if len(types) == n + 1:  # one more type needs no more room than "1 other type"
        n += 1
    largest, others = types.iloc[:n], types.iloc[n:]
    names = [*map(str, largest.index)]
    values, weights = [*largest["value"]], [*largest["weight"]]
    if len(others):
        names.append(_others(len(others)))
        values.append(float(others["value"].sum()))
        weights.append(float(others["weight"].sum()))
    for name, value in rest["value"].items():
        if name != PROGRAMS or value != 0:
            names.append(str(name))
            values.append(float(value))
            weights.append(np.nan)
    rounded = rounded_to_sum(np.array(values, dtype=float))
    return [Part(n, float(v), float(w)) for n, v, w in zip(names, rounded, weights, strict=True)]


def rounded_to_sum(values: np.ndarray, decimals: int = 2) -> np.ndarray:
    """Round numbers so that they sum to their rounded sum (method of largest remainders)."""
    scaled = values * 10**decimals
    floors = np.floor(scaled)
    missing = round(float(scaled.sum())) - int(floors.sum())
    up = np.argsort(floors - scaled, kind="stable")[: max(missing, 0)]
    floors[up] += 1
    return np.asarray(floors / 10**decimals)


def sorted_differences(table: pd.DataFrame) -> pd.DataFrame:
    """Sort the rows of a comparison by their absolute difference, without unknown ones."""
    known = table[table["difference"].notna()]
    return known.iloc[np.argsort(-known["difference"].abs().to_numpy(), kind="stable")]


def decimals_of(low: float, high: float, decimals: int) -> int:
    """Return the decimals of a difference: one more where its interval excludes 0, but would show as if it did not.

    >>> decimals_of(-0.4, -0.1, 0), decimals_of(8.0, 16.0, 0), decimals_of(-0.4, 0.1, 0)
    (1, 0, 0)
    """
    shown, finer = (excludes_zero(round(low, d), round(high, d)) for d in (decimals, decimals + 1))
    return decimals + 1 if finer and not shown else decimals


def excludes_zero(low: float, high: float) -> bool:
    """Return whether an interval is known and excludes 0."""
    return bool(low > 0 or high < 0)


def share_words(value: float, low: float = np.nan, high: float = np.nan) -> str:
    """Format a share, such as ``46 % (41–51)``."""
    number = "<1 %" if 0 < value < 0.005 else f"{fixed(100 * value, 0)} %"
    return number if np.isnan(low) else f"{number} ({fixed(100 * low, 0)}–{fixed(100 * high, 0)})"


def value_words(value: float, low: float, high: float) -> str:
    """Format a value, such as ``2.31 (2.20–2.41)``."""
    words = [fixed(v, 2) for v in (value, low, high)]
    if np.isnan(low):
        return words[0]
    return f"{words[0]} ({words[1]}{' to ' if low < 0 else '–'}{words[2]})"


def difference_words(value: float, low: float, high: float, decimals: int) -> str:
    """Format a difference, such as ``+12 (+8 to +16)``."""
    numbers = [fixed(v, decimals, signed=True) for v in (value, low, high)]
    return numbers[0] if np.isnan(low) else f"{numbers[0]} ({numbers[1]} to {numbers[2]})"


def region_words(row: RegionRow) -> str:
    """Describe a region, such as ``1.23 mm² · 3 % unlike training``."""
    unlike = row.value("unlike")
    parts = [f"{row.region.area_mm2:.2f} mm²"]
    if row.mapped < 0.999:
        parts.append(f"{100 * row.mapped:.0f} % mapped")
    if np.isfinite(unlike):
        parts.append(f"{share_words(unlike)} unlike training")
    return " · ".join(parts)


def _others(n: int) -> str:
    return "1 other type" if n == 1 else f"{n} other types"


def _style_of(name: str, colors: Mapping[str, str]) -> tuple[str, str]:
    """Return colour and hatch of a contribution; those other than cell types are grey."""
    if name == SHIFT:
        return _SHIFT_COLOR, ""
    if name == PROGRAMS:
        return _PROGRAMS_COLOR, "////"
    return colors.get(name, "#5A5D63"), ""


def _columns(paper: Paper) -> tuple[float, float]:
    """Return the widths of names and of numbers with intervals."""
    return 0.33 * paper.width_px, 122.0


def _rows_of(table: pd.DataFrame | None, kind: str) -> pd.DataFrame:
    assert table is not None  # noqa: S101
    return table[table["kind"] == kind]


def _largest(table: pd.DataFrame | None, kind: str) -> float:
    values = _rows_of(table, kind)[["value", "high"]].to_numpy(dtype=float)
    return float(np.nanmax(values, initial=1e-9)) if values.size else 1e-9
