"""Publication figure of a gene or cell type, measured and predicted, at the spots of a slide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from napari_cpnn.arrays import Float32Array
from napari_cpnn.errors import ExportError
from napari_cpnn.evaluation.spot_pair import SpotPair, gene_pair
from napari_cpnn.geometry import length_text, scale_bar_um
from napari_cpnn.palette import DIFFERENCE
from napari_cpnn.storage import whole_file, write_figure
from napari_cpnn.texts import MAX_NAME, allow_any_letter, chart_text

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

    from napari_cpnn.slides import Slide

_PANEL_INCH, _DPI = 2.3, 300
_TISSUE_PX = 2400
_POINT, _GREY = "#2C6FB0", "#888888"
_DIFFERENCE = LinearSegmentedColormap.from_list("difference", DIFFERENCE)


def draw_comparison(
    slide: Slide, compared: AnnData, shown: SpotPair | str, colormap: str = "viridis", note: str = ""
) -> Figure:
    """Plot measured and predicted values and their difference on the tissue, with a scale bar and a scatter plot.

    Parameters
    ----------
    slide, compared
        The slide, and the result of :func:`~napari_cpnn.evaluation.predictions.predict_expression`.
    shown
        Name of a gene, or another quantity of each spot of ``compared``.
    colormap
        Matplotlib colormap of measured and predicted values.
    note
        Footnote, such as the names of slide and model.
    """
    pair = gene_pair(compared, shown) if isinstance(shown, str) else shown
    xy = np.asarray(compared.obsm["spatial"], dtype=np.float64)
    diameter = _diameter_px(xy)
    box = np.array([xy.min(axis=0) - 1.5 * diameter, xy.max(axis=0) + 1.5 * diameter])
    width, height = box[1] - box[0]
    panel = _PANEL_INCH * min(max(height / width, 0.5), 1.6)
    figure = Figure(figsize=(4 * _PANEL_INCH + 1.4, panel + 1.35), dpi=_DPI, layout="compressed")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4)
    image = slide.thumbnail(_TISSUE_PX)
    shape = slide.shape
    mpp = slide.require_mappable()
    quantities: tuple[tuple[str, Float32Array, str | Colormap, tuple[float, float]], ...] = (
        ("measured", pair.measured, colormap, pair.limits()),
        ("predicted", pair.predicted, colormap, pair.limits()),
        ("predicted − measured", pair.difference, _DIFFERENCE, pair.difference_limits()),
    )
    for one, (title, values, colors, limits) in zip(axes, quantities, strict=False):
        one.imshow(image, extent=(0, shape[1], shape[0], 0), alpha=0.45, interpolation="antialiased")
        spots = EllipseCollection(
            np.full(len(xy), diameter), np.full(len(xy), diameter), np.zeros(len(xy)), units="xy", offsets=xy,
            offset_transform=one.transData, array=values, cmap=colors, clim=limits, linewidths=0,
        )  # fmt: skip
        one.add_collection(spots)
        one.set(xlim=box[:, 0], ylim=box[::-1, 1], xticks=[], yticks=[], aspect=mpp[0] / mpp[1])
        one.set_title(title, fontsize=9)
        one.spines[:].set_visible(False)
        bar = figure.colorbar(spots, ax=one, location="bottom", shrink=0.75, aspect=24, pad=0.03)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, length=2)
        bar.set_label(chart_text(pair.unit), fontsize=7)
    _scale_bar(axes[0], box, mpp[1])
    _scatter(axes[3], pair)
    pcc, scc = pair.correlations()
    figure.suptitle(f"{chart_text(pair.name)}   PCC {pcc:z.2f}, SCC {scc:z.2f}, {len(xy):,} spots", fontsize=10)
    if note:
        figure.supxlabel(chart_text(note, 2 * MAX_NAME), fontsize=7, color=_GREY)
    return figure


def save_comparison(
    path: str | Path, slide: Slide, compared: AnnData, shown: SpotPair | str, colormap: str = "viridis", note: str = ""
) -> Path:
    """Save :func:`draw_comparison` as PNG, SVG or PDF, by file extension; PNG for any other.

    Raises
    ------
    ExportError
        If the file cannot be written.
    GenesError
        If the gene was not measured or is not predicted.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        path = path.with_name(f"{path.name}.png")
    figure = draw_comparison(slide, compared, shown, colormap, note)
    with whole_file(path, ExportError) as temporary:
        kind = path.suffix.lower().lstrip(".")
        allow_any_letter()
        write_figure(figure, temporary, kind, bbox_inches="tight", pad_inches=0.06)
    return path


def draw_scatter(
    axes: Axes, pair: SpotPair, colors: tuple[str, str] = (_POINT, _GREY), *, one_scale: bool = True
) -> None:
    """Scatter plot of predicted against measured values, with the identity line.

    Parameters
    ----------
    colors
        Colours of points and line.
    one_scale
        Whether both axes have the same range.
    """
    n = max(len(pair.measured), 1)
    size = float(np.clip(9 * np.sqrt(400 / n), 1.5, 9))
    axes.scatter(pair.measured, pair.predicted, s=size, c=colors[0], alpha=0.7 if n < 5000 else 0.35, linewidths=0)
    ranges = [_range(pair.measured), _range(pair.predicted)]
    whole = min(low for low, _ in ranges), max(high for _, high in ranges)
    axes.plot(whole, whole, linewidth=0.8, linestyle="--", color=colors[1], zorder=0)
    axes.set_xlim(whole if one_scale else ranges[0])
    axes.set_ylim(whole if one_scale else ranges[1])


def _range(values: Float32Array) -> tuple[float, float]:
    """Axis limits: range of the values with a margin."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    pad = 0.04 * max(high - low, 0.02)
    return low - pad, high + pad


def _scatter(axes: Any, pair: SpotPair) -> None:
    draw_scatter(axes, pair)
    axes.set_box_aspect(1)
    axes.set_xlabel(f"measured, {chart_text(pair.unit)}", fontsize=8)
    axes.set_ylabel("predicted", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _scale_bar(axes: Axes, box: npt.NDArray[np.float64], mpp_x: float) -> None:
    """Draw a scale bar at the lower left of a panel, in data pixels."""
    width, height = box[1] - box[0]
    um = scale_bar_um(width * mpp_x)
    x, y = box[0, 0] + 0.03 * width, box[1, 1] - 0.04 * height
    axes.plot([x, x + um / mpp_x], [y, y], color="black", linewidth=2.5, solid_capstyle="butt")
    axes.text(x + um / mpp_x / 2, y - 0.015 * height, length_text(um), ha="center", va="bottom", fontsize=7)


def _diameter_px(xy: npt.NDArray[np.float64]) -> float:
    """Diameter of discs that fill most of the pitch, so that spots are visible at any size."""
    from scipy.spatial import cKDTree

    if len(xy) < 2:
        return 1.0
    return 0.85 * float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1]))
