"""Sections of docs/results.md and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from her2st_study.runs import Tested

COMMAND = "`python scripts/results_her2st.py --only {}`"
PLACES = {"within": "patient C, unseen section", "C to B": "C to B", "B to C": "B to C"}


def write_section(path: Path, text: str, *, first: bool = False) -> None:
    """Replace the section of the page that has this heading, or add it at the end, or as the first one."""
    page = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    title = text.splitlines()[0]
    start = page.find(f"{title}\n")
    if start < 0 and first and "\n## " in page:
        page = page.replace("\n## ", f"\n{text}\n## ", 1)
    elif start < 0:
        page = f"{page.rstrip()}\n\n{text}"
    else:
        end = page.find("\n## ", start)
        page = page[:start] + text + (page[end:] if end >= 0 else "")
    path.write_text(page, encoding="utf-8")


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def heads_section(
    means: dict[str, pd.DataFrame],
    results: dict[str, list[Tested]],
    compared: pd.DataFrame,
    seeds: int,
) -> str:
    return "\n".join(
        [
            "## Heads on her2st, image network frozen",
            "",
            (
                f"{COMMAND.format('heads')}: SqueezeNet 1.1 with ImageNet weights, frozen; patches of 224 px at 1.0"
                " um/px;"
                " mean over the eight symmetries; prototypes of the 25 minor types of tumour CID4465; mean over"
                f" {gene_range(results)}, over sections and over {seeds} seeds."
            ),
            "",
            scores_table(means),
            "The same with log total counts regressed out of both sides:",
            "",
            scores_table(means, "_given_depth", composition=False),
            "Per section, PCC of the heads beside the noise ceiling (mean over genes; split halves of the counts):",
            "",
            _sections_table(results),
            (
                "Difference in PCC from the plain head under the same loss, first seed, genes that vary in every"
                " prediction; in brackets the 95 % interval over spots:"
            ),
            "",
            _differences_table(compared),
            "Correlation of the weights with the published stereoscope shares, minor types summed:",
            "",
            _types_table(results),
        ]
    )


def scores_table(means: dict[str, pd.DataFrame], suffix: str = "", composition: bool = True) -> str:
    places = [p for p in PLACES if p in next(iter(means.values())).index]
    header = ["head", *(f"{PLACES[p]}: PCC / SCC" for p in places)]
    if composition:
        header += [f"composition, {PLACES[p].split(',')[0]}" for p in places]
    rows = []
    for name, table in means.items():
        row = [name, *(f"{table.loc[p, f'pcc{suffix}']:.3f} / {table.loc[p, f'scc{suffix}']:.3f}" for p in places)]
        if composition:
            row += [_number(table.loc[p, "composition"], 2) for p in places]
        rows.append(row)
    return markdown(header, rows)


def gene_range(results: dict[str, list[Tested]]) -> str:
    """Numbers of genes of the folds; each fold chooses them from its training spots."""
    numbers = [tested.table.n_vars for values in results.values() for tested in values]
    return f"the {min(numbers)} to {max(numbers)} genes detected in 10 % of a fold's training spots"


def _sections_table(results: dict[str, list[Tested]]) -> str:
    first = {(t.fold, t.section): t.means for t in next(iter(results.values()))}
    rows = []
    for (fold, section), means in first.items():
        trained = {"C to B": "C2, C3, C4", "B to C": "B4"}.get(fold, "the other two of C")
        row = [section, trained]
        row += [f"{_mean_pcc(tested, fold, section):.3f}" for tested in results.values()]
        rows.append([*row, f"{means['ceiling']:.3f}", f"{means['ceiling_given_depth']:.3f}"])
    return markdown(["section", "trained on", *results, "ceiling", "ceiling given depth"], rows)


def _mean_pcc(tested: list[Tested], fold: str, section: str) -> float:
    return float(np.mean([t.scores["pcc"] for t in tested if (t.fold, t.section) == (fold, section)]))


def _differences_table(compared: pd.DataFrame) -> str:
    pcc = compared[(compared["metric"] == "pcc") & compared["difference"].notna()]
    rows = []
    for head, table in pcc.groupby("head", sort=False):
        cells = [f"{r.difference:+.3f} [{r.spots_low:+.3f}, {r.spots_high:+.3f}]" for r in table.itertuples()]
        rows.append([head, *cells])
    folds = list(pcc[pcc["head"] == rows[0][0]]["fold"])
    return markdown(["head", *folds], rows)


def _types_table(results: dict[str, list[Tested]]) -> str:
    rows = []
    for head, tested in results.items():
        for place, words in PLACES.items():
            chosen = [t.composition for t in tested if (t.fold if " " in t.fold else "within") == place]
            if chosen[0] is None:
                continue
            mean = pd.concat(chosen, axis=1).mean(axis=1)
            rows.append((f"{head}, {words}", mean))
    types = list(rows[0][1].index)
    return markdown(["", *types, "mean"], [[n, *(f"{m[t]:.2f}" for t in types), f"{m.mean():.2f}"] for n, m in rows])


def composition_section(table: dict[str, pd.DataFrame], seeds: int) -> str:
    return "\n".join(
        [
            "## The composition term on her2st",
            "",
            (
                f"{COMMAND.format('composition')}: as above, seeds: {seeds}. Ours pulls weights to negative binomial"
                " shares by squared differences and by the correlation over spots of each type."
            ),
            "",
            _changes_table(table),
        ]
    )


def _changes_table(table: dict[str, pd.DataFrame]) -> str:
    places = {p: title for p, title in PLACES.items() if all(p in means.index for means in table.values())}
    rows = []
    for name, means in table.items():
        pairs = (f"{means.loc[p, 'pcc']:.3f} / {means.loc[p, 'scc']:.3f}" for p in places)
        shares = (_number(means.loc[p, "composition"], 2) for p in places)
        rows.append([name, *pairs, *shares])
    titles = [f"{title}: PCC / SCC" for title in places.values()]
    return markdown(["change", *titles, *(f"composition, {title}" for title in places.values())], rows)


def ablation_section(table: dict[str, pd.DataFrame], seeds: int) -> str:
    return "\n".join(
        [
            "## Ablations on her2st, image network frozen",
            "",
            (
                f"{COMMAND.format('ablation')}: one change at a time from ours and from the paper's model;"
                f" as above, {seeds} seeds; the composition term by squared differences from shares by least squares,"
                " the default before. Random prototypes have no names, so no composition term; theirs is that"
                " of columns with the names of the types."
            ),
            "",
            _changes_table(table),
        ]
    )


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def honesty_section(table: pd.DataFrame) -> str:
    within = table[table["fold"] == "within"]
    rows = []
    for n_programs, group in within.groupby("programs"):
        cells = [f"{r.pcc:.3f}, {r.composition:.2f}" for r in group.itertuples()]
        rows.append([f"{n_programs} programs", *cells])
    weights = [f"weight {w:g}" for w in sorted(within["weight"].unique())]
    return "\n".join(
        [
            "## Honesty of the composition",
            "",
            (
                f"{COMMAND.format('honesty')}: number of programs and weight of the composition term, one seed each;"
                " image"
                " network frozen. Mean gene PCC, then mean correlation of the weights with the published shares;"
                " patient C,"
                " unseen sections:"
            ),
            "",
            markdown(["", *weights], rows),
            (
                "![gene PCC against composition correlation for each number of programs and consistency weight,"
                " within and across patients](images/composition_honesty.png)"
            ),
            "",
        ]
    )


def honesty_figure(table: pd.DataFrame, path: Path) -> None:
    """Gene PCC against composition correlation; one line per number of programs, points labelled by the weight."""
    figure = Figure(figsize=(13, 4.6), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    colors = dict(zip((0, 8, 16, 64), ("#0072B2", "#E69F00", "#009E73", "#CC79A7"), strict=True))
    for axis, (place, title) in zip(figure.subplots(1, len(PLACES)), PLACES.items(), strict=True):
        for n_programs, color in colors.items():
            part = table[(table["fold"] == place) & (table["programs"] == n_programs)].sort_values("weight")
            axis.plot(part["composition"], part["pcc"], "-o", color=color, ms=5, lw=1, label=f"{n_programs} programs")
            for row in part.itertuples():
                axis.annotate(
                    f"{row.weight:g}", (row.composition, row.pcc), fontsize=7, color=color,
                    xytext=(3, 3), textcoords="offset points",
                )  # fmt: skip
        axis.set(title=title, xlabel="composition: mean r with published shares", ylabel="genes: mean PCC")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(0.12)
    figure.axes[0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
