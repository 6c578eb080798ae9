"""The page of a benchmark: one HTML file with its plots inside, without scripts and without links to elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from napari_cpnn._version import __version__
from napari_cpnn.studies.benchmarking.baselines import TRAIN_MEAN
from napari_cpnn.studies.benchmarking.controls import CONTROLS, OTHER_SECTION, SHIFTED
from napari_cpnn.studies.benchmarking.notes import headlines
from napari_cpnn.studies.benchmarking.plots import plot_genes, plot_maps, plot_means
from napari_cpnn.studies.benchmarking.result import BenchmarkResult
from napari_cpnn.studies.benchmarking.scores import CORRELATIONS, METRICS
from napari_cpnn.studies.benchmarking.summary import BASELINE, CEILING, LABELS, MODEL, Row, mean_by_gene, survivors
from napari_cpnn.texts import shown

_N_GENES = 25
#: Most models that are named in the title, and most differences that are shown unfolded.
_N_IN_TITLE, _N_UNFOLDED = 2, 10

_ABOUT_MAPS = (
    "The genes that are measured best here (highest noise ceiling given depth), not those that are predicted best. "
    "Bright is high, dark is low; each map has its own range of colours."
)

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p, li { max-width: 52rem; } .small { color: #555; font-size: .88rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .28rem .5rem; text-align: right; border-bottom: 1px solid #e5e5e5; vertical-align: top; }
th { font-weight: 600; border-bottom: 2px solid #bbb; } th:first-child, td:first-child { text-align: left; }
tr.model td:first-child { font-weight: 600; } tr.baseline td { color: #555; } tr.ceiling td { font-style: italic; }
td small { color: #666; font-size: .76rem; white-space: nowrap; }
td.survives { background: #fbdcdc; font-weight: 600; }
.flag { border-left: 4px solid #c62828; background: #fdecec; padding: .5rem .9rem; max-width: 52rem; margin: .6rem 0; }
.flag ul { margin: .2rem 0; }
.fine { border-left: 4px solid #2e7d32; background: #edf6ee; padding: .5rem .9rem; }
img { max-width: 100%; height: auto; }
dt { font-weight: 600; margin-top: .5rem; } dd { margin: 0; max-width: 52rem; }
"""

_MEANINGS = {
    "PCC, SCC": "Pearson and Spearman correlation of predicted and measured log1p of counts per 10,000 of a gene "
    "over the spots of a section. 1 is perfect, 0 is chance.",
    "Given depth": "The same after log total counts of the spot are regressed out of both sides: what is left when it "
    "is known how many counts a spot has.",
    "PCC, Pearson residuals": "Correlation with analytic Pearson residuals (overdispersion 100; Lause et al. 2021), "
    "which remove depth by a model of counts.",
    "RMSE, counts": "Root mean squared error of expected counts, given the total of the spot; mean over genes. Lower "
    "is better. Genes with many counts dominate it.",
    "SVG ranks": "Spearman correlation over genes of Moran's I of predicted and measured values: are the spatially "
    "variable genes the same? It does not ask where, so that smooth noise can score, and no control can test it.",
    "Noise ceiling": "The largest PCC that the noise of the counts allows, from random halves of the counts. The share "
    "of it stands below a PCC.",
    "Depth oracle": "Log total counts of the measured spot, with a slope per gene. No image shows it; a model below "
    "it explains less than the number of counts of a spot does.",
    "Colour statistics": "Ridge regression on 21 numbers of the patch: mean, spread and percentiles of red, green and "
    "blue, and their optical densities.",
    "Nuclei count": "Nuclei in the patch, counted by a classical detector, with a slope per gene.",
    "Train mean": "Mean of the training spots. It is the same everywhere, so it has no correlation, but an RMSE.",
}


def html_page(result: BenchmarkResult) -> str:
    """Render a result as HTML."""
    models = _names(result, MODEL)
    title = _text(" and ".join(models)) if len(models) <= _N_IN_TITLE else f"{len(models)} models"
    sections = result.sections
    parts = [
        f"<h1>Benchmark of {title}</h1>",
        f'<p class="small">{_where(sections)}. napari-cpnn {_text(__version__)}. Research use only.</p>',
        f"<ul>{''.join(f'<li>{_text(one, 600)}</li>' for one in headlines(result.summary, result.differences))}</ul>",
        *_verdict(result),
        "<h2>Scores</h2>",
        _score_table(result),
        f'<p class="small">{_interval_words(result)}</p>',
        _image(plot_means(result), "Mean PCC of models, baselines and negative controls, with intervals"),
        "<h2>Genes</h2>",
        _image(plot_genes(result), "Share of genes above a PCC, and PCC of each gene beside its noise ceiling"),
    ]
    if result.example is not None and len(result.example.genes):
        parts += [
            f"<h2>What it looks like: {_text(result.example.section)}</h2>",
            f'<p class="small">{_ABOUT_MAPS}</p>',
            _image(plot_maps(result.example), "Maps of genes as measured and as predicted"),
        ]
    parts += [_gene_table(result), "<h2>Negative controls</h2>", _control_table(result)]
    parts += ["<h2>Differences on the same spots and genes</h2>", _difference_table(result)]
    parts += ["<h2>Sections</h2>", _section_table(result), "<h2>What was compared</h2>", _plain_table(sections), "<ul>"]
    parts += [f"<li>{_text(note, 600)}</li>" for note in result.notes]
    parts += ["</ul>", "<h2>What the columns and rows mean</h2>", "<dl>"]
    parts += [f"<dt>{_text(word)}</dt><dd>{_text(meaning, 600)}</dd>" for word, meaning in _MEANINGS.items()]
    parts += ["</dl>"]
    head = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Benchmark of {title}</title><style>{_STYLE}</style></head><body>\n"
    )
    return head + "\n".join(parts) + "\n</body></html>\n"


def _verdict(result: BenchmarkResult) -> list[str]:
    if result.flags:
        found = survivors(result.summary)
        shared = sum(len(control.scores) for control in found)
        boxes = [f'<p class="flag">{_text(flag, 900)}</p>' for flag in result.flags[: len(result.flags) - shared]]
        for control in found:
            items = "".join(f"<li>{_text(name)}: {_text(said, 600)}</li>" for name, said in control.scores)
            why = f"Perhaps {_text(control.why, 600)}."
            boxes.append(f'<div class="flag">Left when {_text(control.what)}:<ul>{items}</ul>{why}</div>')
        return ["<p><strong>To be explained before these scores are believed:</strong></p>", *boxes]
    judged = result.summary[result.summary["kind"].isin(list(CONTROLS))]
    if judged["low"].notna().any():
        return [
            '<p class="fine">No score survives a negative control: predictions in the wrong place score nothing.</p>'
        ]
    return []


def _score_table(result: BenchmarkResult) -> str:
    rows: list[Row] = [(kind, name) for kind in (CEILING, MODEL, BASELINE) for name in _names(result, kind)]
    metrics = [metric for metric in METRICS if (result.summary["metric"] == metric).any()]

    def cell(row: Row, metric: str) -> str:
        return _score_cell(result.summary, row, metric)

    return _table(["", *(LABELS[metric] for metric in metrics)], rows, metrics, cell)


def _control_table(result: BenchmarkResult) -> str:
    rows: list[Row] = [(kind, name) for name in _names(result, MODEL) for kind in (SHIFTED, OTHER_SECTION)]
    rows = [row for row in rows if _has(result.summary, row)]
    if not rows:
        return "<p>None could be computed.</p>"

    def cell(row: Row, metric: str) -> str:
        return _score_cell(result.summary, row, metric)

    return _table(["", *(LABELS[metric] for metric in CORRELATIONS)], rows, CORRELATIONS, cell)


def _score_cell(summary: pd.DataFrame, row: Row, metric: str) -> str:
    chosen = summary[(summary["kind"] == row[0]) & (summary["name"] == row[1]) & (summary["metric"] == metric)]
    if chosen.empty:
        return "<td>–</td>"
    one = chosen.iloc[0]
    small = []
    if np.isfinite(one["low"]):
        small.append(f"{_number(one['low'], metric)} to {_number(one['high'], metric)}")
    if np.isfinite(one["of_ceiling"]) and row[0] in (MODEL, BASELINE):
        small.append(f"{one['of_ceiling']:.0%} of ceiling")
    mark = ' class="survives"' if one["survives"] else ""
    below = "".join(f"<br><small>{_text(text)}</small>" for text in small)
    return f"<td{mark}>{_number(one['mean'], metric)}{below}</td>"


def _gene_table(result: BenchmarkResult) -> str:
    """Genes with the highest noise ceiling, over the sections in which they are compared."""
    rows: list[Row] = [(kind, name) for kind in (CEILING, MODEL, BASELINE) for name in _names(result, kind)]
    columns = {row: mean_by_gene(result.by_section, row, "pcc") for row in rows if row[1] != TRAIN_MEAN}
    table = pd.DataFrame({row: values for row, values in columns.items() if len(values)})
    if table.empty:
        return ""
    best = table.sort_values(table.columns[0], ascending=False, kind="stable").head(_N_GENES)
    names = [row[1] for row in best.columns]
    body = [
        _line([_text(gene), *(_number(value, "pcc") for value in values)])
        for gene, values in zip(best.index, best.to_numpy(), strict=True)
    ]
    what = "with the highest noise ceiling" if best.columns[0][0] == CEILING else f"of {names[0]}"
    return (
        f"<details><summary>PCC of the {len(best)} genes {_text(what)}</summary>"
        f"{_wrapped(['gene', *names], body)}</details>"
    )


def _section_table(result: BenchmarkResult) -> str:
    """PCC in each section, and below it that given depth."""
    kinds = (CEILING, MODEL, BASELINE)
    rows: list[Row] = [(kind, n) for kind in kinds for n in _names(result, kind) if n != TRAIN_MEAN]
    body = []
    for one in result.by_section:
        cells = [_text(one.section)]
        for row in rows:
            plain, given = (_number(one.mean(row, metric), metric) for metric in ("pcc", "pcc_given_depth"))
            cells.append(f"{plain}<br><small>{given}</small>")
        body.append(_line(cells))
    words = "PCC, mean over genes; small: given depth."
    return f'{_wrapped(["", *(name for _, name in rows)], body)}<p class="small">{words}</p>'


def _difference_table(result: BenchmarkResult) -> str:
    table = result.differences
    if table.empty:
        return "<p>There is nothing to compare with.</p>"
    rows = [(str(name), str(minus)) for name, minus in dict.fromkeys(zip(table["name"], table["minus"], strict=True))]
    metrics = [metric for metric in METRICS if (table["metric"] == metric).any()]

    def cell(row: Row, metric: str) -> str:
        chosen = table[(table["name"] == row[0]) & (table["minus"] == row[1]) & (table["metric"] == metric)]
        if chosen.empty:
            return "<td>–</td>"
        one = chosen.iloc[0]
        value = f"{_number(one['difference'], metric, sign=True)}"
        value = f"<strong>{value}</strong>" if one["excludes_0"] else value
        if not np.isfinite(one["low"]):
            return f"<td>{value}</td>"
        below = f"{_number(one['low'], metric, sign=True)} to {_number(one['high'], metric, sign=True)}"
        return f"<td>{value}<br><small>{below}</small></td>"

    heads = ["model minus", *(LABELS[metric] for metric in metrics)]
    body = [
        f"<tr><td>{_text(row[0])}<br><small>minus {_text(row[1])}</small></td>"
        f"{''.join(cell(row, metric) for metric in metrics)}</tr>"
        for row in rows
    ]
    n = int(table["low"].notna().sum())
    tested = f"{n} intervals, not adjusted for their number; bold where one excludes 0." if n else "No intervals."
    words = f"{tested} For RMSE, less is better."
    shown_rows = " open" if len(body) <= _N_UNFOLDED else ""
    summary = f"<summary>{len(body)} pairs</summary>"
    return f'<details{shown_rows}>{summary}{_wrapped(heads, body)}<p class="small">{words}</p></details>'


def _table(heads: Sequence[str], rows: Iterable[Row], metrics: Sequence[str], cell: Callable[[Row, str], str]) -> str:
    body = [
        f'<tr class="{_text(kind.split()[0])}"><td>{_text(name)}{_of_control(kind)}</td>'
        f"{''.join(cell((kind, name), metric) for metric in metrics)}</tr>"
        for kind, name in rows
    ]
    return _wrapped(heads, body)


def _of_control(kind: str) -> str:
    return f"<br><small>{_text(kind)}</small>" if kind in CONTROLS else ""


def _plain_table(table: pd.DataFrame) -> str:
    empty = [column for column in table.columns if table[column].astype(str).isin(["", "0"]).all()]
    table = table.drop(columns=empty)
    heads = [str(column).replace("_", " ") for column in table.columns]
    body = [
        _line([_text(f"{value:,}" if isinstance(value, int) else value) for value in row])
        for row in table.astype(object).to_numpy()
    ]
    return _wrapped(heads, body)


def _line(cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _wrapped(heads: Sequence[str], body: Sequence[str]) -> str:
    head = "".join(f"<th>{_text(text)}</th>" for text in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _interval_words(result: BenchmarkResult) -> str:
    first = result.summary.iloc[0]
    if not result.summary["low"].notna().any():
        return "Mean over genes, then sections. There are no intervals."
    unit, n = str(first["unit"]), int(result.summary["n_units"].max())
    then = ", then patients" if unit == "patient" else ""
    return f"Mean over genes, then sections{then}; small: bootstrap interval over {n} {unit}s."


def _names(result: BenchmarkResult, kind: str) -> list[str]:
    return list(dict.fromkeys(result.summary.loc[result.summary["kind"] == kind, "name"]))


def _has(summary: pd.DataFrame, row: Row) -> bool:
    return bool(((summary["kind"] == row[0]) & (summary["name"] == row[1])).any())


def _number(value: float, metric: str, *, sign: bool = False) -> str:
    if not np.isfinite(value):
        return "–"
    digits = 3 if metric != "rmse" or abs(value) < 10 else 1
    return f"{value:+z.{digits}f}".replace("-", "−") if sign else f"{value:z.{digits}f}".replace("-", "−")


def _image(png: bytes, alt: str) -> str:
    return f'<p><img alt="{_text(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}"></p>'


def _where(sections: pd.DataFrame) -> str:
    n = len(sections)
    return f"{n} section{'' if n == 1 else 's'}: {_text(', '.join(map(str, sections['section'])), 600)}"


def _text(text: object, most: int = 200) -> str:
    return html.escape(shown(text, most), quote=True)
