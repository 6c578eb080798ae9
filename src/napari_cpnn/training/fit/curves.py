"""Plot the learning curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_cpnn.arrays import FloatArray
from napari_cpnn.storage import write_figure
from napari_cpnn.texts import allow_any_letter, chart_text

_INK, _BLUE, _ORANGE, _GREEN, _GREY = "#333333", "#2F8FD0", "#D55E00", "#009E73", "#999999"
_SMALL_IN = 6.0


def draw_curves(history: Sequence[Mapping[str, float]], path: Path, title: str) -> None:
    """Save :func:`curves_figure` with a title as PNG."""
    figure = curves_figure(history, size_in=(9, 3.6), dpi=120)
    figure.suptitle(chart_text(title), fontsize=11)
    allow_any_letter()
    write_figure(figure, path, "png")


def curves_figure(
    history: Sequence[Mapping[str, float]],
    size_in: tuple[float, float],
    dpi: float,
    ink: str = _INK,
    ground: str = "white",
) -> Figure:
    """Plot losses and held-out correlations over epochs, side by side, with the best epoch marked.

    Parameters
    ----------
    history
        One row per epoch, as in ``metrics.csv``: ``epoch, loss, expression_loss, held_out_pcc, held_out_scc``.
    size_in
        Width and height in inches; below a width of 6, fonts are smaller and titles shorter.
    ink, ground
        Colours of text and background.
    """
    small = size_in[0] < _SMALL_IN
    font = 7 if small else 9
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=size_in, dpi=dpi, layout="constrained", facecolor=ground)
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    losses.set_title("loss" if small else "Loss on the training spots", fontsize=font + 2)
    scores.set_title("held-out PCC, SCC" if small else "Mean correlation over genes, held-out spots", fontsize=font + 2)
    _line(losses, epochs, _column(history, "loss"), ink, "total")
    _line(losses, epochs, _column(history, "expression_loss"), _ORANGE, "expression")
    pcc = _column(history, "held_out_pcc")
    if np.isfinite(pcc).any():
        _line(scores, epochs, pcc, _BLUE, "Pearson")
        _line(scores, epochs, _column(history, "held_out_scc"), _GREEN, "Spearman")
        _mark_best(scores, epochs, pcc, font)
    elif history:
        scores.text(0.5, 0.5, "no spots were held out", transform=scores.transAxes, ha="center", color=_GREY)
    # Losses fall and scores rise, so these corners are free; automatic legend placement is slow.
    for axes, corner in ((losses, "upper right"), (scores, "lower right")):
        axes.set_facecolor("none")
        axes.set_xlabel("epoch", fontsize=font, color=ink)
        axes.title.set_color(ink)
        axes.tick_params(colors=ink, labelsize=font)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(ink)
        axes.grid(axis="y", color=_GREY, alpha=0.25, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.lines:
            axes.legend(loc=corner, frameon=False, fontsize=font, labelcolor=ink)
    return figure


def _column(history: Sequence[Mapping[str, float]], name: str) -> FloatArray:
    """Values of a column of a history; it may be missing in runs of other versions."""
    return np.array([row.get(name, np.nan) for row in history], dtype=float)


def _mark_best(axes: Any, epochs: Sequence[float], pcc: FloatArray, font: int) -> None:
    best = int(np.nanargmax(pcc))
    axes.plot(epochs[best], pcc[best], "o", color=_BLUE, markersize=font - 1, fillstyle="none")
    axes.annotate(
        f"{pcc[best]:.3f}",
        (epochs[best], pcc[best]),
        xytext=(0, -13),
        textcoords="offset points",
        ha="center",
        color=_BLUE,
        fontsize=font,
    )
    axes.margins(y=0.2)
    axes.axhline(0, color=_GREY, linewidth=0.6)


def _line(axes: Any, epochs: Sequence[float], values: FloatArray, color: str, label: str) -> None:
    style = {"marker": "."} if len(epochs) < 60 else {}
    axes.plot(epochs, values, color=color, label=label, linewidth=1.5, **style)
