"""Figure of a cross-validation: scores by head and gene, and maps of the best genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.spatial import cKDTree

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import pearson
from napari_cpnn.palette import series_colors
from napari_cpnn.slides import Slide
from napari_cpnn.storage import whole_file, write_figure
from napari_cpnn.texts import allow_any_letter, chart_text

_INK, _GREY, _LIGHT = "#333333", "#999999", "#E5E5E5"

#: Number of genes in the list and on the maps.
N_LISTED, N_MAPS = 12, 4

#: With more slides than this, means are plotted per fold.
MAX_ROWS = 12

_PANEL_INCH = 1.95

Tissue = tuple[npt.NDArray[np.uint8], tuple[float, ...]]


@dataclass(frozen=True)
class MappedSlide:
    """Slide shown on the maps.

    Attributes
    ----------
    label
        Name in the table of scores.
    slide
        Slide, for its thumbnail; None if unavailable.
    head
        Head whose predictions are shown.
    compared
        As from :func:`~napari_cpnn.evaluation.predictions.predict_expression`.
    """

    label: str
    slide: Slide | None
    head: str
    compared: AnnData


def draw_cross_validation(scores: pd.DataFrame, mapped: MappedSlide | None, path: str | Path) -> None:
    """Save a figure of the scores of a cross-validation, as PNG or by file extension.

    Top: distribution of the PCC over genes for each head; means per slide, with and without adjustment for depth; best
    genes with their noise ceiling. Bottom: tissue, measured and predicted expression of the best genes.

    Parameters
    ----------
    scores
        As from :func:`~napari_cpnn.cross_validate`.
    mapped
        Slide on the maps, which are omitted if None. Its head also determines the best genes.
    """
    heads = list(dict.fromkeys(scores["head"]))
    colors = series_colors(heads)
    best = best_genes(scores, mapped.head if mapped else heads[0])
    heights = [3.9] if mapped is None else [3.9, 0.9 + 2 * _PANEL_INCH * min(2.0, _aspect(mapped.compared))]
    figure = Figure(figsize=(13, sum(heights)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    upper, *lower = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    distribution, means, genes = upper.subplots(1, 3, width_ratios=[1.1, 1, 0.9])
    _distribution(distribution, scores, colors)
    _means(means, scores, colors)
    _genes(genes, scores, best[:N_LISTED], colors)
    if mapped is not None:
        _maps(lower[0], mapped, [gene for gene in best if gene in mapped.compared.var_names][:N_MAPS])
    _save(figure, Path(path))


def best_genes(scores: pd.DataFrame, head: str) -> list[str]:
    """Genes by their mean PCC over all slides on which they are measured, best first."""
    of_head = scores[(scores["head"] == head) & scores["pcc"].notna()]
    by_gene = of_head.groupby("gene")["pcc"].agg(["mean", "size"])
    everywhere = by_gene[by_gene["size"] == by_gene["size"].max()]
    return [str(gene) for gene in everywhere.sort_values("mean", ascending=False).index]


def median_slide(scores: pd.DataFrame, head: str) -> str:
    """Slide with the median of the mean PCCs, as a representative example."""
    means = scores[scores["head"] == head].groupby("slide", sort=False)["pcc"].mean().dropna().sort_values()
    if means.empty:
        raise TrainingError(f"{head} has no correlation on any slide, so there is nothing to draw.")
    return str(means.index[(len(means) - 1) // 2])


def _distribution(axes: Any, scores: pd.DataFrame, colors: Mapping[str, str]) -> None:
    heads = list(colors)
    places = np.arange(len(heads))[::-1]
    for place, head in zip(places, heads, strict=True):
        values = scores.loc[scores["head"] == head, "pcc"].dropna().to_numpy()
        if len(values) > 1 and np.ptp(values) > 0:
            violin = axes.violinplot(values, [place], orientation="horizontal", widths=0.85, showextrema=False)
            violin["bodies"][0].set(facecolor=colors[head], alpha=0.55, edgecolor="none")
        if len(values):
            axes.plot(values.mean(), place, "o", color=_INK, markersize=5)
            axes.annotate(
                f"{values.mean():z.3f}", (values.mean(), place), xytext=(0, 6), textcoords="offset points", ha="center",
                fontsize=9, color=_INK,
            )  # fmt: skip
    axes.axvline(0, color=_GREY, linewidth=0.6)
    if "ceiling" in scores:
        ceiling = scores.loc[scores["pcc"].notna(), "ceiling"].mean()
        axes.axvline(ceiling, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"mean noise ceiling {ceiling:.2f}", (ceiling, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
            textcoords="offset points", fontsize=8, color=_INK,
        )  # fmt: skip
    axes.set_yticks(places, [_name(head) for head in heads])
    axes.set(title="All genes of all held-out slides", xlabel="PCC", ylim=(-0.6, len(heads) - 0.3))
    _plain(axes, "x")


def _means(axes: Any, scores: pd.DataFrame, colors: Mapping[str, str]) -> None:
    unit = "slide" if scores["slide"].nunique() <= MAX_ROWS else "fold"
    means = scores.groupby([unit, "head"], sort=False)[["pcc", "pcc_given_depth"]].mean()
    slides = list(dict.fromkeys(scores[unit]))
    step = 0.8 / len(colors)
    for i, slide in enumerate(slides):
        for k, (head, color) in enumerate(colors.items()):
            if (slide, head) not in means.index:
                continue
            y = -i + 0.4 - step * (k + 0.5)
            plain, given = means.loc[(slide, head)]
            axes.plot([given, plain], [y, y], color=color, linewidth=1.5, alpha=0.6)
            axes.plot(given, y, "o", color=color, markerfacecolor="white", markersize=5.5)
            axes.plot(plain, y, "o", color=color, markersize=5.5)
    axes.set_yticks(-np.arange(len(slides)), [_name(slide) for slide in slides], fontsize=9)
    axes.axvline(0, color=_GREY, linewidth=0.6)
    axes.set(title=f"Mean over genes, per {unit}", xlabel="PCC")
    handles = [
        Line2D([], [], marker="o", linestyle="", color=_INK, label="as measured"),
        Line2D([], [], marker="o", linestyle="", color=_INK, markerfacecolor="white", label="given sequencing depth"),
    ]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=8)
    _plain(axes, "x")


def _genes(axes: Any, scores: pd.DataFrame, genes: Sequence[str], colors: Mapping[str, str]) -> None:
    chosen = scores[scores["gene"].isin(genes)]
    means = chosen.groupby(["head", "gene"])["pcc"].mean()
    ceilings = chosen.groupby("gene")["ceiling"].mean() if "ceiling" in chosen else None
    for i, gene in enumerate(genes):
        axes.axhline(-i, color=_LIGHT, linewidth=0.8, zorder=0)
        for head, color in colors.items():
            if (head, gene) in means.index:
                axes.plot(means[head, gene], -i, "o", color=color, markersize=5.5)
        if ceilings is not None:
            axes.plot(ceilings[gene], -i, "|", color=_INK, markersize=11, markeredgewidth=1.6)
    axes.set_yticks(-np.arange(len(genes)), [_name(gene) for gene in genes], fontsize=9)
    axes.set(
        title="Best genes" + (" ( | noise ceiling)" if ceilings is not None else ""), xlabel="PCC, mean over slides"
    )
    _plain(axes, "x", grid=False)


def _maps(figure: Any, mapped: MappedSlide, genes: Sequence[str]) -> None:
    box = _box(mapped.compared)
    tissue = _tissue(mapped.slide)
    grid = figure.add_gridspec(2, 1 + len(genes), width_ratios=[1.1, *[1.0] * len(genes)])
    panel = figure.add_subplot(grid[:, 0])
    panel.set_axis_off()
    panel.set_title(_name(mapped.label), fontsize=10)
    _frame(panel, box, tissue, alpha=1.0)
    tables = {"measured": mapped.compared.layers["measured"], f"predicted, {mapped.head}": mapped.compared.X}
    for column, gene in enumerate(genes, start=1):
        g = mapped.compared.var_names.get_loc(gene)
        both = [np.asarray(table)[:, g] for table in tables.values()]
        for row, (what, values) in enumerate(zip(tables, both, strict=True)):
            panel = figure.add_subplot(grid[row, column])
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            _frame(panel, box, tissue, alpha=0.35)
            spots = _draw_spots(panel, mapped.compared, values)
            bar = figure.colorbar(spots, ax=panel, shrink=0.7, aspect=22, pad=0.02)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=7, length=2)
            if column == 1:
                panel.set_ylabel(_name(what), fontsize=10)
            if row == 0:
                (r,) = pearson(both[0][:, None], both[1][:, None])
                panel.set_title(f"{_name(gene)}, PCC {r:z.2f}", fontsize=10)
    figure.supxlabel("colours: log1p CP10k, each map with its own range", fontsize=8, color=_INK)


def _draw_spots(axes: Any, compared: AnnData, values: npt.NDArray[np.float32]) -> EllipseCollection:
    """Plot spots as discs that fill most of the pitch, coloured from the 2nd to the 98th percentile."""
    xy = np.asarray(compared.obsm["spatial"], dtype=np.float64)
    low, high = np.quantile(values, [0.02, 0.98])
    if low == high:
        low, high = values.min(), values.max()
    size = np.full(len(xy), 0.82 * _pitch(xy))
    spots = EllipseCollection(
        size, size, np.zeros(len(xy)), units="xy", offsets=xy, offset_transform=axes.transData, array=values,
        cmap="magma", clim=(low, high), linewidths=0,
    )  # fmt: skip
    axes.add_collection(spots)
    return spots


def _pitch(xy: FloatArray) -> float:
    return float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1])) if len(xy) > 1 else 1.0


def _box(compared: AnnData) -> FloatArray:
    """Corners of the displayed area in level-0 pixels: ``[[left, top], [right, bottom]]``."""
    xy = np.asarray(compared.obsm["spatial"], dtype=np.float64)
    return np.array([xy.min(axis=0) - _pitch(xy), xy.max(axis=0) + _pitch(xy)])


def _aspect(compared: AnnData) -> float:
    width, height = np.diff(_box(compared), axis=0)[0]
    return float(height / width)


def _tissue(slide: Slide | None) -> Tissue | None:
    """Thumbnail and its extent in level-0 pixels (left, right, bottom, top)."""
    if slide is None:
        return None
    image = slide.thumbnail(1500)
    height, width = slide.shape[:2]
    return image, (0.0, float(width), float(height), 0.0)


def _frame(axes: Any, box: FloatArray, tissue: Tissue | None, alpha: float) -> None:
    if tissue is not None:
        axes.imshow(tissue[0], extent=tissue[1], alpha=alpha, interpolation="antialiased")
    axes.set(xlim=(box[0, 0], box[1, 0]), ylim=(box[1, 1], box[0, 1]), aspect="equal")


def _plain(axes: Any, along: str, grid: bool = True) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if grid:
        axes.grid(axis=along, color=_LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.title.set_fontsize(11)


def _name(text: object) -> str:
    """Shorten the name of a head, slide or gene to leave room for the panels."""
    return chart_text(text, 40)


def _save(figure: Figure, path: Path) -> None:
    allow_any_letter()
    with whole_file(path, TrainingError) as unfinished:
        write_figure(figure, unfinished, path.suffix.lower().lstrip(".") or "png")
