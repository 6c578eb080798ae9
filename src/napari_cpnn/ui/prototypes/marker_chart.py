"""Heat map of marker genes by cell type: its values, and its figure for a file. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from napari_cpnn.texts import MAX_NAME, chart_text
from napari_cpnn.ui.frame import DPI, Paper

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.prototypes import Prototypes

COLORMAP = "viridis"
#: Meaning of the shades.
SCALE = "log1p CP10k, relative to the highest cell type of the gene"
_ROW_PX, _COLUMN_PX, _CHAR_PX, _FONT = 15, 20, 7.6, 8.6
_GAP, _BAR_PX, _SCALE_PX = 8, 10, 56


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Genes by cell types.

    Attributes
    ----------
    genes
        Rows: the gene that the user chose, if it is not a marker, then the markers of each type in turn.
    marked
        The cell type that each row is a marker of; empty for the chosen gene.
    cell_types
        Columns.
    cp10k
        ``(rows, columns)``, counts per 10,000.
    """

    genes: tuple[str, ...]
    marked: tuple[str, ...]
    cell_types: tuple[str, ...]
    cp10k: npt.NDArray[np.float64]

    @property
    def shades(self) -> npt.NDArray[np.float64]:
        """``(rows, columns)``, 0 to 1: log1p of the counts per 10,000, over that of the highest type of the row."""
        logs = np.log1p(self.cp10k)
        highest = logs.max(axis=1, keepdims=True)
        shades: npt.NDArray[np.float64] = np.divide(logs, highest, out=np.zeros_like(logs), where=highest > 0)
        return shades


def heat_map(prototypes: Prototypes, markers: pd.DataFrame, n: int, gene: str = "") -> HeatMap:
    """Create the heat map of the first ``n`` markers of each type, and of one more gene."""
    first = markers[markers["rank"] <= n]
    genes, marked = list(first["gene"]), list(first["cell_type"])
    if gene and gene not in genes:
        genes, marked = [gene, *genes], ["", *marked]
    place = {name: i for i, name in enumerate(prototypes.genes)}
    values = 1e4 * prototypes.profiles[:, [place[name] for name in genes]].T.astype(np.float64)
    return HeatMap(tuple(genes), tuple(marked), prototypes.cell_types, values)


def marker_figure(heat: HeatMap, paper: Paper) -> Figure:
    """Draw the whole heat map with full names, as wide as needed."""
    rows, columns = heat.cp10k.shape
    genes, cell_types = ([chart_text(name) for name in names] for names in (heat.genes, heat.cell_types))
    source = chart_text(paper.source, 2 * MAX_NAME)
    left = max(map(len, genes), default=1) * _CHAR_PX + 2 * _GAP
    top = max(map(len, cell_types)) * _CHAR_PX + 2 * _GAP
    source_px = max(len(source), len(SCALE)) * _CHAR_PX + 2 * _GAP
    width = max(left + columns * _COLUMN_PX + 2 * _GAP, source_px)
    height = top + rows * _ROW_PX + _SCALE_PX + (_ROW_PX if paper.source else 0)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=paper.ground)
    FigureCanvasAgg(figure)

    def axes(x: float, y: float, w: float, h: float) -> Any:
        return figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))

    grid = axes(left, top, columns * _COLUMN_PX, rows * _ROW_PX)
    grid.pcolormesh(heat.shades, cmap=COLORMAP, vmin=0, vmax=1)
    grid.set_ylim(rows, 0)
    style: dict[str, Any] = {"fontsize": _FONT, "color": paper.ink}
    grid.set_yticks(np.arange(rows) + 0.5, genes, fontstyle="italic", **style)
    grid.set_xticks(np.arange(columns) + 0.5, cell_types, rotation=90, **style)
    grid.tick_params(length=0, pad=3, labeltop=True, labelbottom=False, top=False, bottom=False)
    for i in range(1, rows):
        if heat.marked[i] != heat.marked[i - 1]:
            grid.axhline(i, color=paper.ground if paper.ground != "none" else paper.ink, linewidth=0.8)
    for spine in grid.spines.values():
        spine.set_visible(False)
    below = top + rows * _ROW_PX + 14
    bar = axes(left, below, min(columns * _COLUMN_PX, 160), _BAR_PX)
    scale = figure.colorbar(ScalarMappable(cmap=colormaps[COLORMAP]), cax=bar, orientation="horizontal", ticks=[0, 1])
    scale.outline.set_visible(False)
    bar.tick_params(length=0, labelcolor=paper.ink, labelsize=_FONT)
    y = 1 - (below + _BAR_PX + 22) / height
    figure.text(_GAP / width, y, SCALE, va="center", **style)
    if paper.source:
        figure.text(_GAP / width, y - _ROW_PX / height, source, va="center", alpha=0.75, **style)
    return figure
