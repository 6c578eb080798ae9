"""The breast model and the heads beside their baselines. Writes the first section of docs/results.md.

    python scripts/results_benchmark.py --data ../shared/data --runs RUNS --heads HEADS --out PAGES

The scores are those of `napari_cpnn.benchmark`. RUNS is the folder of `make_breast_model.py` (or its cross-validation,
RUNS/folds), HEADS that of `results_her2st.py`. Either may be left out, and models or seeds that lack a fold are left
out with a sentence. Some ten minutes for the first seed, less for the others; with --out, a page for each setting.
"""

from __future__ import annotations

import argparse
import json
import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from anndata import AnnData, read_h5ad

import napari_cpnn as nc
from her2st_study.data import read_section
from her2st_study.report import markdown, write_section
from her2st_study.runs import SECTIONS
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.studies import BenchmarkResult, folder_names

REPO = Path(__file__).resolve().parents[1]
BREAST = "breast-her2st"
HEADS = ("plain head, MSE (ST-Net's)", "plain head, PCC loss", "CPNN as in the paper", "CPNN, ours")
OF_C = ("C2", "C3", "C4")
TITLE = "## her2st: models beside their baselines"
COLUMNS = {
    "pcc": "PCC",
    "scc": "SCC",
    "pcc_given_depth": "PCC given depth",
    "scc_given_depth": "SCC given depth",
    "rmse": "RMSE, counts",
    "svg_ranks": "SVG ranks",
}
CONTROLS = {"shifted": "shifted over the section", "other section": "of another section"}

Predictions = Mapping[str, Mapping[str, AnnData]]
"""By model and section."""


@dataclass(frozen=True)
class Setting:
    """What is tested: the sections that count, and those that are opened (for baselines and controls)."""

    name: str
    heading: str
    counted: Sequence[str]
    opened: Sequence[str]
    by_patient: bool


SETTINGS = (
    Setting(
        "within",
        "### Within the patient: C2, C3 and C4, each by models of the other two\n\nThe breast model has learnt from B4 "
        "as well. Baselines are fitted on the other two.",
        OF_C, OF_C, by_patient=False,
    ),
    Setting(
        "to-B", "### Across patients: B4 by models of C2, C3 and C4\n\nBaselines are fitted on the same three.",
        ("B4",), SECTIONS, by_patient=True,
    ),
    Setting(
        "to-C", "### Across patients: C2, C3 and C4 by models of B4\n\nBaselines are fitted on B4.",
        OF_C, SECTIONS, by_patient=True,
    ),
)  # fmt: skip


@dataclass
class Found:
    """Results of one setting, one per seed; and models without seeds, of which only the first counts."""

    results: list[BenchmarkResult] = field(default_factory=list)

    def value(self, row: tuple[str, str], metric: str, counted: Sequence[str]) -> np.ndarray:
        """Means over genes, ``(seeds, sections)``."""
        return np.array(
            [
                [one.mean(row, metric) for one in result.by_section if one.section in counted]
                for result in self.results
                if row in result.by_section[0].per_gene
            ]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--runs", type=Path, help="cross-validation of the breast model")
    parser.add_argument("--heads", type=Path, help="cross-validations of the heads")
    parser.add_argument("--seeds", type=int, default=3, help="largest number of seeds of the heads")
    parser.add_argument("--out", type=Path, help="folder for the page of each setting (first seed)")
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    breast = (
        {} if args.runs is None else of_folder(args.runs / "folds" if (args.runs / "folds").is_dir() else args.runs)
    )
    samples = {name: read_section(args.data, name) for name in SECTIONS}
    tables = []
    for setting in SETTINGS:
        found = Found()
        for seed in range(args.seeds if args.heads else 1):
            predictions = of_setting(setting, breast, args.heads, seed)
            # Without heads of this seed there is nothing that the first one did not tell.
            if not predictions or (seed and set(predictions) == {BREAST}):
                continue
            print(f"{setting.name}, seed {seed}: {', '.join(predictions)}", flush=True)
            out = None if args.out is None or found.results else args.out / setting.name
            found.results.append(run(setting, predictions, samples, out, first=not found.results))
        if found.results:
            tables.append(table(setting, found))
    if not tables:
        raise SystemExit("There are no predictions of all sections; give --runs or --heads.")
    write_section(args.docs / "results.md", section(tables), first=True)


def of_folder(folder: Path) -> dict[str, dict[str, AnnData]]:
    """Predictions by head and section of the finished folds of a cross-validation."""
    found: dict[str, dict[str, AnnData]] = {}
    for path in sorted(folder.glob("*/*/fold.json")):
        fold = json.loads(path.read_text(encoding="utf-8"))
        for section in fold["tested"]:
            predictions = path.parent / f"{folder_names([section])[0]}.h5ad"
            if predictions.exists():
                found.setdefault(fold["head"], {})[section] = read_h5ad(predictions)
    if not found:
        print(f"left out: no finished fold in {folder}", flush=True)
    return found


def of_setting(
    setting: Setting, breast: Mapping[str, Mapping[str, AnnData]], heads: Path | None, seed: int
) -> dict[str, dict[str, AnnData]]:
    """Predictions of all opened sections by model; those that lack one are left out with a sentence."""
    found: dict[str, Mapping[str, AnnData | None]] = {}
    if breast and setting.name != "to-C":
        found[BREAST] = next(iter(breast.values()))
    if heads is not None:
        within, across = (of_folder(heads / "celltype_minor" / p / f"seed {seed}") for p in ("within", "across"))
        for head in dict.fromkeys([*HEADS, *within, *across]):
            own = {**within.get(head, {}), "B4": across.get(head, {}).get("B4")}
            found[head] = across.get(head, {}) if setting.name == "to-C" else own
    whole = {}
    for name, sections in found.items():
        missing = [section for section in setting.opened if sections.get(section) is None]
        if missing:
            print(f"left out, {setting.name}, seed {seed}: {name} has no fold of {', '.join(missing)}", flush=True)
        else:
            whole[name] = {section: sections[section] for section in setting.opened}
    return whole


def run(
    setting: Setting,
    predictions: Predictions,
    samples: Mapping[str, tuple[nc.Slide, AnnData]],
    out: Path | None,
    *,
    first: bool,
) -> BenchmarkResult:
    """Score one seed; ceiling and controls are computed for the first."""
    settings = nc.BenchmarkSettings() if first else nc.BenchmarkSettings(ceiling_repeats=0, shifts=0, bootstraps=0)
    groups = [name[0] for name in setting.opened] if setting.by_patient else None
    chosen = [samples[name] for name in setting.opened]
    return nc.benchmark(predictions, chosen, groups, list(setting.opened), out, settings, progress=False)


def table(setting: Setting, found: Found) -> str:
    """Table of a setting, and what came of its controls."""
    first = found.results[0]
    rows = []
    for kind in ("ceiling", "model", "baseline"):
        for name in dict.fromkeys(first.summary.loc[first.summary["kind"] == kind, "name"]):
            n = len(found.results)
            seeds = "" if kind != "model" or name == BREAST else f" ({n} seed{'s' * (n > 1)})"
            only_one = name == BREAST or kind != "model"
            cells = [cell(found.value((kind, name), m, setting.counted), only_one, m) for m in COLUMNS]
            rows.append([f"{name}{seeds}", *cells])
    n_spots, n_genes = (
        [
            count
            for one, count in zip(first.by_section, first.sections[what], strict=True)
            if one.section in setting.counted
        ]
        for what in ("spots", "genes")
    )
    genes = f"{min(n_genes):,} to {max(n_genes):,}" if len(set(n_genes)) > 1 else f"{n_genes[0]:,}"
    over = "" if len(setting.counted) > 1 else " One section: no interval."
    about = f"{setting.heading} {sum(n_spots)} spots, {genes} genes.{over}"
    return "\n".join([about, "", markdown(["", *COLUMNS.values()], rows), filled(controls(setting, found)), ""])


def cell(values: np.ndarray, only_one: bool, metric: str) -> str:
    """Mean over seeds, with their standard deviation, and the bootstrap interval over sections."""
    values = values[:1] if only_one else values
    if not values.size or not np.isfinite(values).all():
        return "–"
    digits = 2 if metric == "rmse" else 3
    said = f"{values.mean():.{digits}f}"
    if len(values) > 1:
        said += f" ± {values.mean(axis=1).std(ddof=1):.{digits}f}"
    if values.shape[1] > 1:
        sections = values.mean(axis=0)
        drawn = np.random.default_rng(0).integers(0, len(sections), (2000, len(sections)))
        low, high = np.quantile(sections[drawn].mean(axis=1), [0.025, 0.975])
        said += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return said


def controls(setting: Setting, found: Found) -> str:
    """One sentence about the negative controls of all models, and one about what survives them."""
    first, said = found.results[0], []
    models = dict.fromkeys(first.summary.loc[first.summary["kind"] == "model", "name"])
    for kind, words in CONTROLS.items():
        largest = {}
        for metric in ("pcc", "pcc_given_depth"):
            values = [found.value((kind, name), metric, setting.counted)[:1].mean() for name in models]
            largest[metric] = max(values, key=abs)
        said.append(f"{words} {largest['pcc']:+.3f} PCC ({largest['pcc_given_depth']:+.3f} given depth)")
    alike = f"Negative controls, the largest score of any model: predictions {', '.join(said)}."
    left = first.summary[first.summary["survives"].astype(bool)]
    if left.empty:
        return f"{alike} None survives."
    who = "; ".join(
        f"{kind}: {'all models' if set(rows['name']) == set(models) else ' / '.join(rows['name'].unique())}"
        for kind, rows in left.groupby("kind", sort=False)
    )
    why = (
        ""
        if setting.by_patient
        else " Sections of one patient are neighbours and look alike, so the other section tells little here."
    )
    return f"{alike} What survives is flagged ({who}).{why}"


def filled(text: str) -> str:
    return textwrap.fill(text, 118, break_on_hyphens=False)


ABOUT = """
`python scripts/results_benchmark.py --runs RUNS --heads HEADS`, with the runs of `make_breast_model.py` and
`results_her2st.py`: `napari_cpnn.benchmark` on cross-validated predictions. All rows of a table are on the same spots
and genes; raw counts, never smoothed; mean over genes, then sections. ± is the standard deviation over seeds of
training; brackets are 95 % bootstrap intervals over sections, with three little more than their range. Where a model
predicts a constant, its correlation is 0. The **depth oracle** knows the total counts of the *measured* spot, which
no image shows; **colour statistics** are 21 numbers of the patch. For RMSE, less is better; a model has none where
some of its predictions are out of the range of log1p of counts per 10,000. See [the guide](guide/benchmark.md).
"""


def section(tables: Sequence[str]) -> str:
    return "\n".join([TITLE, ABOUT, *tables])


if __name__ == "__main__":
    main()
