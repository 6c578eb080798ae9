"""Charts of the Regions dock, drawn with matplotlib: transparent for the screen, on white for a file. No Qt here.

Each is a list of lines with bars at positions in pixels, without axes and ticks: this is fast enough to redraw while a
map fills, and shows every number as text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from napari_cpnn.decimals import fixed
from napari_cpnn.regions import PROGRAMS, SHIFT
from napari_cpnn.texts import shown
from napari_cpnn.ui.frame import DPI, Paper

if TYPE_CHECKING:
    from napari_cpnn.ui.regions.rows import Explanation, RegionRow

_LINE, _GAP, _FONT = 19, 8, 8.6
_PROGRAMS_COLOR, _SHIFT_COLOR, _NEUTRAL = "#8C8F96", "#C3C5CA", "#8C8F96"
#: Number of cell types with bars; the rest share a line.
N_TYPES = 10
_CHAR_PX, _BOLD_PX = 6.3, 7.6
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


class _Sheet:
    """Figure with lines one below the other."""

    def __init__(self, paper: Paper) -> None:
        self.paper, self.y = paper, 4.0
        self.figure = Figure(figsize=(paper.width_px / DPI, 1), dpi=DPI, facecolor=paper.ground)
        FigureCanvasAgg(self.figure)
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1))
        self.axes.axis("off")
        if paper.warning:
            self._warn(paper)

    def _warn(self, paper: Paper) -> None:
        ink, box = paper.warning_colors
        lines = textwrap.wrap(shown(paper.warning, 400), max(int((paper.width_px - 12) / _BOLD_PX), 20))
        height = len(lines) * _LINE + 8
        self.axes.add_patch(Rectangle((0, 0), paper.width_px, height, facecolor=box, linewidth=0))
        for line in lines:
            self.text(6, line, bold=True, color=ink)
            self.down()
        self.y = height + _GAP

    def text(
        self, x: float, text: str, *, align: str = "left", bold: bool = False, faint: bool = False, color: str = ""
    ) -> None:
        self.axes.text(
            x,
            self.y + _LINE / 2,
            shown(text, 400),
            parse_math=False,
            ha=align,
            va="center",
            fontsize=_FONT,
            color=color or self.paper.ink,
            alpha=0.75 if faint else 1.0,
            fontweight="bold" if bold else "normal",
        )

    def bar(
        self, x0: float, x1: float, color: str, *, height: float = 11, hatch: str = "", faint: bool = False
    ) -> None:
        box = Rectangle(
            (min(x0, x1), self.y + (_LINE - height) / 2),
            max(abs(x1 - x0), 0.5),
            height,
            facecolor=color,
            edgecolor=self.paper.ink if hatch else color,
            linewidth=0.0 if not hatch else 0.4,
            hatch=hatch or None,
            alpha=0.4 if faint else 1.0,
        )
        self.axes.add_patch(box)

    def whisker(self, x0: float, x1: float) -> None:
        if np.isfinite(x0) and np.isfinite(x1):
            y = self.y + _LINE / 2
            self.axes.plot([x0, x1], [y, y], color=self.paper.ink, linewidth=1.1, solid_capstyle="butt")
            for x in (x0, x1):
                self.axes.plot([x, x], [y - 3, y + 3], color=self.paper.ink, linewidth=1.1)

    def band(self, x0: float, x1: float, last: float) -> None:
        """Draw a pale band, with an arrow at its right end if it goes on beyond ``last``."""
        if np.isfinite(x0) and np.isfinite(x1):
            x0, x1, beyond = min(x0, last), min(x1, last), x1 > last
            box = Rectangle((x0, self.y + 1), x1 - x0, _LINE - 2, facecolor=self.paper.ink, alpha=0.13)
            self.axes.add_patch(box)
            if beyond:
                self.axes.plot([last], [self.y + _LINE / 2], marker=">", color=self.paper.ink, markersize=3, alpha=0.5)

    def rule(self, x: float, top: float, bottom: float) -> None:
        self.axes.plot([x, x], [top, bottom], color=self.paper.ink, linewidth=0.8, alpha=0.7)

    def down(self, by: float = _LINE) -> None:
        self.y += by

    def done(self) -> Figure:
        if self.paper.source:
            self.down(_GAP)
            self.text(4, _cut(self.paper.source, self.paper.width_px / _CHAR_PX), faint=True)
            self.down()
        height = self.y + 4
        self.figure.set_size_inches(self.paper.width_px / DPI, height / DPI)
        self.axes.set_xlim(0, self.paper.width_px)
        self.axes.set_ylim(height, 0)
        return self.figure


def _values(table: pd.DataFrame) -> Iterable[_Value]:
    return cast("Iterable[_Value]", table.itertuples())


def composition_chart(rows: Sequence[RegionRow], colors: Mapping[str, str], paper: Paper) -> Figure:
    """Draw the shares of the largest cell types, and the genes, of each region, with intervals."""
    sheet = _Sheet(paper)
    name_px, number_px = _columns(paper)
    measured = [row for row in rows if row.table is not None]
    top = max((_largest(row.table, "share") for row in measured), default=1.0)
    of_gene = max((_largest(row.table, "expression") for row in measured), default=1.0)
    room = paper.width_px - name_px - number_px
    for row in measured:
        sheet.text(4, _cut(row.region.name, (paper.width_px - 150) / _CHAR_PX), bold=True)
        sheet.text(paper.width_px - 4, region_words(row), align="right", faint=True)
        sheet.down()
        shares = _rows_of(row.table, "share").sort_values("value", ascending=False, kind="stable")
        for line in _values(shares.head(N_TYPES)):
            sheet.text(4, _cut(line.name, name_px / _CHAR_PX))
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
            sheet.text(4, _cut(line.name, name_px / _CHAR_PX))
            sheet.band(name_px + line.patch_low * scale, name_px + line.patch_high * scale, name_px + room)
            sheet.bar(name_px, name_px + max(line.value, 0.0) * scale, _NEUTRAL)
            sheet.whisker(name_px + max(line.low, 0.0) * scale, name_px + max(line.high, 0.0) * scale)
            sheet.text(paper.width_px - 4, value_words(line.value, line.low, line.high), align="right")
            sheet.down()
        sheet.down(_GAP)
    if any(np.isfinite(row.table["patch_high"]).any() for row in measured if row.table is not None):
        sheet.text(4, "Pale: typical interval of a patch, not of the mean", faint=True)
        sheet.down()
    return sheet.done()


def comparison_chart(
    table: pd.DataFrame, pair: tuple[str, str], colors: Mapping[str, str], paper: Paper, n_lines: int = 14
) -> Figure:
    """Draw the differences of two regions, largest first; those whose interval excludes 0 are bold."""
    sheet = _Sheet(paper)
    name_px, number_px = _columns(paper)[0], 168.0  # with signs and "to", bold, beside the longest interval
    for kinds, unit, scale in ((("share", "unlike"), "percentage points", 100.0), (("expression",), "log1p CP10k", 1)):
        part = sorted_differences(table[table["kind"].isin(kinds)]).head(n_lines)
        if part.empty:
            continue
        half = len(pair[0]) + len(pair[1]) + 3
        cut = max(6, int((paper.width_px / _CHAR_PX - len(unit) - 4) / 2)) if half > 20 else 99
        sheet.text(4, f"{_cut(pair[0], cut)} − {_cut(pair[1], cut)}", bold=True)
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
            sheet.text(4, _cut(label, name_px / _CHAR_PX), bold=marked, faint=not marked)
            color = colors.get(line.name, _NEUTRAL)
            sheet.bar(middle, middle + line.difference / reach * room, color, faint=not marked)
            sheet.whisker(middle + line.low / reach * room, middle + line.high / reach * room)
            text = difference_words(line.difference * scale, line.low * scale, line.high * scale, decimals)
            sheet.text(paper.width_px - 4, text, align="right", bold=marked, faint=not marked)
            sheet.down()
        sheet.rule(middle, first, sheet.y)
        sheet.down(_GAP)
    return sheet.done()


def explanation_chart(explanation: Explanation, colors: Mapping[str, str], paper: Paper, n_types: int = 8) -> Figure:
    """Draw the contributions to a gene as a stacked bar and as numbers, which sum to the prediction."""
    sheet = _Sheet(paper)
    table = explanation.table
    assert table is not None  # noqa: S101
    parts = explained_parts(table, n_types)
    gene, total = table.attrs["gene"], sum(part.value for part in parts)
    sheet.text(4, f"{_cut(gene, 40)}: {fixed(total, 2)} {table.attrs['unit']}", bold=True)
    sheet.text(paper.width_px - 4, _cut(explanation.where, 40), align="right", faint=True)
    sheet.down(_LINE + 4)
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
    sheet.rule(zero, sheet.y - 2, sheet.y + _LINE + 2)
    sheet.down(_LINE + _GAP)
    for part in parts:
        color, hatch = _style_of(part.name, colors)
        sheet.bar(6, 17, color, hatch=hatch)
        sheet.text(24, _cut(part.name, (paper.width_px - 150) / _CHAR_PX))
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


def _cut(text: str, n_chars: float) -> str:
    """Shorten a text in its middle: long names differ at their ends as often as at their starts."""
    return shown(text, max(int(n_chars), 5))
