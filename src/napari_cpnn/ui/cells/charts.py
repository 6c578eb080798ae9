"""Charts of the Cells dock: who is next to whom, and size and stain of nuclei. No Qt here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from napari_cpnn.decimals import fixed
from napari_cpnn.palette import DIFFERENCE
from napari_cpnn.texts import chart_text, shortened
from napari_cpnn.ui.frame import DPI, Paper

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.cells import Neighbours

#: Largest fold change with a colour of its own, in powers of two, and the p-value below which a pair is marked.
_MOST, _DARK, _P = 2.0, 1.1, 0.01
_FOLDS = LinearSegmentedColormap.from_list("folds", DIFFERENCE)
_MOST_TYPES, _NAME = 14, 18
_FONT = 8.0


def neighbour_chart(found: Neighbours, paper: Paper) -> Figure:
    """Draw how often types are neighbours, relative to shuffled types, as a matrix."""
    kept = np.flatnonzero(found.n_cells > 0)
    kept = np.sort(kept[np.argsort(-found.n_cells[kept], kind="stable")][:_MOST_TYPES])
    names = [chart_text(shortened(found.names[k], _NAME)) for k in kept]
    with np.errstate(divide="ignore", invalid="ignore"):
        folds = np.log2(found.ratio[np.ix_(kept, kept)])
    p = found.p[np.ix_(kept, kept)]
    n = len(kept)
    left, top = 118.0, 112.0
    side = min(34.0, (paper.width_px - left - 10) / max(n, 1))
    height = top + side * n + 62
    figure = Figure(figsize=(paper.width_px / DPI, height / DPI), dpi=DPI, facecolor=paper.ground)
    FigureCanvasAgg(figure)
    axes: Any = figure.add_axes(
        (left / paper.width_px, 62 / height, side * n / paper.width_px, side * n / height), facecolor="none"
    )
    picture = axes.imshow(np.clip(folds, -_MOST, _MOST), cmap=_FOLDS, vmin=-_MOST, vmax=_MOST, aspect="auto")
    for i in range(n):
        for j in range(n):
            if np.isfinite(folds[i, j]) or p[i, j] < _P:
                mark = fixed(folds[i, j], 1, signed=True) if np.isfinite(folds[i, j]) else "none"
                weight = "bold" if p[i, j] < _P else "normal"
                if side >= 26:
                    ink = "#FFFFFF" if not abs(folds[i, j]) < _DARK else "#202020"
                    axes.text(j, i, mark, ha="center", va="center", fontsize=7, color=ink, fontweight=weight)
    axes.set_xticks(range(n), names, rotation=90, fontsize=_FONT, color=paper.ink)
    axes.set_yticks(range(n), names, fontsize=_FONT, color=paper.ink)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(paper.ink)
        spine.set_linewidth(0.5)
    bar: Any = figure.add_axes((left / paper.width_px, 34 / height, min(180, side * n) / paper.width_px, 10 / height))
    colors = figure.colorbar(picture, cax=bar, orientation="horizontal", ticks=[-2, 0, 2])
    colors.ax.set_xticklabels(["¼ ×", "as expected", "4 ×"], fontsize=7, color=paper.ink)
    colors.ax.tick_params(length=0)
    note = f"log2 of pairs within {found.within_um:g} µm to shuffled types; bold: p < {_P:g}"
    figure.text(6 / paper.width_px, 6 / height, note, fontsize=7, color=paper.ink, va="bottom")
    _source(figure, paper)
    return figure


def nuclei_chart(table: pd.DataFrame, colors: dict[str, str], paper: Paper) -> Figure:
    """Draw area (quartiles) and haematoxylin of nuclei by type, as far as they are known."""
    columns = [name for name in ("area_um2", "haematoxylin") if name in table]
    titles = {"area_um2": "nuclear area, µm²", "haematoxylin": "stain, OD"}
    rows, line = list(table.index)[: _MOST_TYPES + 1], 20.0
    left, top = 118.0, 26.0
    height = top + line * len(rows) + 26
    figure = Figure(figsize=(paper.width_px / DPI, height / DPI), dpi=DPI, facecolor=paper.ground)
    FigureCanvasAgg(figure)
    width = (paper.width_px - left - 12 - 46 * max(len(columns) - 1, 0)) / max(len(columns), 1)
    for k, column in enumerate(columns):
        x = left + k * (width + 46)
        axes: Any = figure.add_axes(
            (x / paper.width_px, 26 / height, width * 0.78 / paper.width_px, line * len(rows) / height),
            facecolor="none",
        )
        values = table[column].to_numpy(dtype=float)[: len(rows)]
        places = np.arange(len(rows))
        shades = [colors.get(name, "#8C8F96") for name in rows]
        axes.barh(places, np.nan_to_num(values), color=shades, height=0.62)
        if column == "area_um2":
            low, high = (table[name].to_numpy(dtype=float)[: len(rows)] for name in ("area_low", "area_high"))
            axes.hlines(places, low, high, color=paper.ink, linewidth=1)
        most = float(np.nanmax(np.append(values, 1e-9)))
        if column == "area_um2":
            most = max(most, float(np.nanmax(high)))
        axes.set_xlim(0, most * 1.05)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        for place, value in zip(places, values, strict=True):
            text = "–" if not np.isfinite(value) else f"{value:.0f}" if column == "area_um2" else f"{value:.2f}"
            axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=_FONT,
                          color=paper.ink)  # fmt: skip
        axes.set_title(titles[column], fontsize=_FONT, color=paper.ink, loc="left")
        axes.set_xticks([])
        names = [chart_text(shortened(str(name), _NAME)) for name in rows] if k == 0 else [""] * len(rows)
        axes.set_yticks(places, names, fontsize=_FONT, color=paper.ink)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    measured = f"; haematoxylin of up to {int(table['stain_cells'].max()):,} each" if "stain_cells" in table else ""
    note = f"medians; lines: quartiles{measured}" if columns else "Area needs outlines, stain needs the slide."
    figure.text(6 / paper.width_px, 6 / height, note, fontsize=7, color=paper.ink, va="bottom")
    _source(figure, paper)
    return figure


def _source(figure: Figure, paper: Paper) -> None:
    if paper.source:
        figure.text(0.99, 0.005, chart_text(paper.source), fontsize=6, color=paper.ink, ha="right", va="bottom")
