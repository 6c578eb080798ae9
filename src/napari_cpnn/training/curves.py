"""The picture of a training run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_INK, _BLUE, _ORANGE, _GREEN, _GREY = "#333333", "#0072B2", "#D55E00", "#009E73", "#999999"


def draw_curves(history: Sequence[Mapping[str, float]], path: Path, title: str) -> None:
    """Draw losses and held-out correlations over epochs into a PNG; the best epoch is marked.

    Parameters
    ----------
    history
        One row per epoch, as in ``metrics.csv``: ``epoch, loss, expression_loss, held_out_pcc, held_out_scc``.
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    _line(losses, epochs, [row["loss"] for row in history], _INK, "total")
    _line(losses, epochs, [row["expression_loss"] for row in history], _ORANGE, "expression")
    losses.set(title="Loss on the training spots", xlabel="epoch")
    pcc = np.array([row["held_out_pcc"] for row in history], dtype=float)
    scores.set(title="Mean correlation over genes, held-out spots", xlabel="epoch")
    if np.isfinite(pcc).any():
        _line(scores, epochs, pcc, _BLUE, "Pearson")
        _line(scores, epochs, [row["held_out_scc"] for row in history], _GREEN, "Spearman")
        best = int(np.nanargmax(pcc))
        scores.plot(epochs[best], pcc[best], "o", color=_BLUE, markersize=8, markerfacecolor="white")
        scores.annotate(
            f"best {pcc[best]:.3f}, epoch {epochs[best]:.0f}",
            (epochs[best], pcc[best]),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color=_BLUE,
            fontsize=9,
        )
        scores.margins(y=0.2)
        scores.axhline(0, color=_GREY, linewidth=0.6)
    else:
        scores.text(0.5, 0.5, "no spots were held out", transform=scores.transAxes, ha="center", color=_GREY)
    for axes in (losses, scores):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, format="png")


def _line(axes: object, epochs: Sequence[float], values: Iterable[float], color: str, label: str) -> None:
    style = {"marker": "."} if len(epochs) < 60 else {}
    axes.plot(epochs, values, color=color, label=label, linewidth=1.8, **style)  # type: ignore[attr-defined]
