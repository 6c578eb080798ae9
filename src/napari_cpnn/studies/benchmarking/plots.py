"""Plots of a benchmark, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from napari_cpnn.palette import series_colors
from napari_cpnn.studies.benchmarking.baselines import TRAIN_MEAN
from napari_cpnn.studies.benchmarking.controls import CONTROLS
from napari_cpnn.studies.benchmarking.result import BenchmarkResult, ExampleMaps
from napari_cpnn.studies.benchmarking.summary import (
    BASELINE,
    CEILING,
    LABELS,
    MODEL,
    NOISE_CEILING,
    Row,
    SectionScores,
    mean_by_gene,
)
from napari_cpnn.texts import allow_any_letter, chart_text

_INK, _GREY, _LIGHT = "#333333", "#8A8A8A", "#E5E5E5"
_DPI = 150
_MAX_MODELS = 6


def colors_of(summary: pd.DataFrame) -> dict[Row, str]:
    """Colour of each model and baseline; baselines are grey."""
    models = list(dict.fromkeys(summary.loc[summary["kind"] == MODEL, "name"]))
    colors: dict[Row, str] = {(MODEL, name): color for name, color in series_colors(models).items()}
    baselines = dict.fromkeys(summary.loc[summary["kind"] == BASELINE, "name"])
    return colors | {(BASELINE, name): _GREY for name in baselines}


def plot_means(result: BenchmarkResult) -> bytes:
    """Mean PCC with intervals of models, baselines and negative controls, with and without depth."""
    metrics = ("pcc", "pcc_given_depth")
    summary = result.summary[result.summary["metric"].isin(metrics)]
    colors = colors_of(result.summary)
    rows = [*colors, *((kind, name) for kind, name in _rows(summary) if kind in CONTROLS)]
    rows = [row for row in rows if len(_entry(summary, row))]
    figure, axes = _figure((9.5, 0.9 + 0.36 * len(rows)), len(metrics), sharey=True, sharex=True)
    for panel, metric in zip(axes, metrics, strict=True):
        of_metric = summary[summary["metric"] == metric]
        for y, row in enumerate(rows):
            entry = _entry(of_metric, row)
            if not len(entry):
                continue
            color = colors.get(row, colors.get((MODEL, row[1]), _GREY))
            one, hollow = entry.iloc[0], row[0] in CONTROLS
            panel.plot([one["low"], one["high"]], [-y, -y], color=color, linewidth=2.2, alpha=0.6)
            panel.plot(one["mean"], -y, "o", color=color, markersize=6.5, markerfacecolor="white" if hollow else color)
        ceiling = _entry(of_metric, (CEILING, NOISE_CEILING))
        if len(ceiling):
            at = float(ceiling["mean"].iloc[0])
            panel.axvline(at, color=_INK, linewidth=1.1, linestyle=(0, (4, 3)))
            panel.annotate(
                f"noise ceiling {at:.2f}", (at, 0.5), xytext=(-4, 0), textcoords="offset points", ha="right",
                va="bottom", fontsize=8, color=_INK,
            )  # fmt: skip
        panel.axvline(0, color=_GREY, linewidth=0.7)
        panel.set(title=LABELS[metric], xlabel="mean over genes")
        _plain(panel, "x")
    axes[0].set_yticks(-np.arange(len(rows)), [_row_name(row) for row in rows])
    axes[0].set_ylim(-len(rows) + 0.4, 1.1)
    return _png(figure)


def plot_genes(result: BenchmarkResult) -> bytes:
    """Share of genes whose PCC exceeds a value; and PCC of each gene against its noise ceiling, for the first model."""
    colors = {row: color for row, color in colors_of(result.summary).items() if row[1] != TRAIN_MEAN}
    dashes = iter(["--", ":", "-.", (0, (1, 3))])
    figure, (share, scatter) = _figure((9.5, 3.7), 2)
    for row, color in list(colors.items())[: _MAX_MODELS + 4]:
        values = np.sort(mean_by_gene(result.by_section, row, "pcc").dropna().to_numpy())
        if len(values):
            style = "-" if row[0] == MODEL else next(dashes, ":")
            above = 1 - np.arange(len(values)) / len(values)
            share.plot(values, 100 * above, color=color, linestyle=style, linewidth=1.8, label=_row_name(row))
    share.axvline(0, color=_GREY, linewidth=0.7)
    share.set(title="How many genes are predicted how well", xlabel="PCC of a gene exceeds", ylabel="% of the genes")
    share.set_ylim(0, 103)
    if share.lines[1:]:
        share.legend(frameon=False, fontsize=8)
    _plain(share, "both")
    _scatter(scatter, result.by_section, next(row for row in colors if row[0] == MODEL), colors)
    return _png(figure)


def _scatter(panel: Any, scores: Sequence[SectionScores], model: Row, colors: dict[Row, str]) -> None:
    ceiling = mean_by_gene(scores, (CEILING, NOISE_CEILING), "pcc")
    values = mean_by_gene(scores, model, "pcc")
    both = pd.DataFrame({"ceiling": ceiling, "pcc": values}).dropna()
    if both.empty:
        panel.set_axis_off()
        return
    size, alpha = (14, 0.7) if len(both) < 500 else (5, 0.25)
    panel.scatter(both["ceiling"], both["pcc"], s=size, color=colors[model], alpha=alpha, linewidths=0)
    panel.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    panel.axhline(0, color=_GREY, linewidth=0.7)
    placed: list[tuple[float, float]] = []
    for gene, row in both.sort_values("pcc", ascending=False).head(12).iterrows():
        at = (float(row["ceiling"]), float(row["pcc"]))
        if all(abs(at[0] - x) > 0.16 or abs(at[1] - y) > 0.045 for x, y in placed):
            placed.append(at)
            panel.annotate(
                chart_text(gene, 16), at, xytext=(-4, 3), textcoords="offset points", fontsize=7, color=_INK, ha="right"
            )
    low = min(-0.1, float(both["pcc"].quantile(0.001)))
    panel.set(title=f"{chart_text(model[1], 30)}: each gene beside its ceiling", xlabel="noise ceiling", ylabel="PCC")
    panel.set(xlim=(0, 1), ylim=(low, 1))
    panel.annotate("as good as the noise allows", (0.97, 0.97), ha="right", va="top", fontsize=7.5, color=_INK,
                   xytext=(-12, 2), textcoords="offset points")  # fmt: skip
    _plain(panel, "both")


def plot_maps(example: ExampleMaps) -> bytes:
    """Maps of genes as measured and as predicted by each model and baseline."""
    titles = list(example.maps)[: _MAX_MODELS + 1]
    yx = example.spatial
    height, width = np.ptp(yx, axis=0) + 1e-9
    side = 1.75
    panel_height = side * float(np.clip(height / width, 0.4, 1.8))
    figure = Figure(
        figsize=(side * len(titles) + 0.5, panel_height * len(example.genes) + 0.6), dpi=_DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(example.genes), len(titles), squeeze=False)
    pitch = float(np.median(cKDTree(yx).query(yx, k=2)[0][:, 1]))
    # points are squared, in 1/72 inch
    marker = (0.95 * pitch / width * (side - 0.1) * 72) ** 2
    for i, gene in enumerate(example.genes):
        for j, title in enumerate(titles):
            panel, values = axes[i, j], example.maps[title][:, i]
            finite = values[np.isfinite(values)]
            low, high = np.quantile(finite, [0.02, 0.98]) if finite.size else (0, 1)
            panel.scatter(
                yx[:, 1], yx[:, 0], c=values, s=marker, cmap="magma", vmin=low, vmax=max(high, low + 1e-6), linewidths=0
            )
            panel.invert_yaxis()
            panel.set(aspect="equal", xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if i == 0:
                panel.set_title(chart_text(title, 22), fontsize=9)
            if j == 0:
                panel.set_ylabel(chart_text(gene, 16), fontsize=9.5)
            elif np.isfinite(example.correlations[title][i]):
                panel.set_xlabel(f"PCC {example.correlations[title][i]:z.2f}", fontsize=8, color=_INK, labelpad=2)
    return _png(figure)


def _figure(size: tuple[float, float], n: int, **options: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, n, **options)


def _rows(summary: pd.DataFrame) -> list[Row]:
    return list(dict.fromkeys(zip(summary["kind"], summary["name"], strict=True)))


def _entry(summary: pd.DataFrame, row: Row) -> pd.DataFrame:
    return summary[(summary["kind"] == row[0]) & (summary["name"] == row[1])]


def _row_name(row: Row) -> str:
    name = chart_text(row[1], 28)
    return f"{name}, {row[0]}" if row[0] in CONTROLS else name


def _plain(axes: Any, along: str) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.grid(axis=along, color=_LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.title.set_fontsize(11)


def _png(figure: Figure) -> bytes:
    allow_any_letter()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()
