"""Intervals of the breast model on her2st, and places where it says a gene is high. Writes sections of docs/results.md.

    python scripts/results_trust.py --data ../shared/data --runs RUNS      # RUNS of make_breast_model.py; a minute

Each section was predicted by a model of the others. The calibration is fitted on these predictions but one and tried on
the one that is left, as for the model of the package, which is calibrated on all.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import numpy as np

from her2st_study.data import read_prototypes
from her2st_study.report import markdown, write_section
from make_breast_model import SECTIONS, TIER
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.evaluation import HeldOutSpots, fit_trust, mark_section
from napari_cpnn.models import Side, Trust, load_model
from napari_cpnn.prototypes import deconvolve
from napari_cpnn.studies import held_out_slides

REPO = Path(__file__).resolve().parents[1]
FOLDS = {name: tuple(other for other in SECTIONS if other != name) for name in SECTIONS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--runs", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    prototypes = read_prototypes(args.data, "nb")[0][TIER]
    model = load_model("breast-her2st")
    n_genes = len(model.genes)
    sections, depth = {}, {}
    for tested in held_out_slides(args.runs / "folds"):
        (table,) = tested.heads.values()
        spots = table.copy()
        spots.X = table.layers["counts"]
        shares = deconvolve(spots, prototypes)[list(model.cell_types)].to_numpy()
        depth[tested.slide] = np.log1p(np.asarray(table.layers["counts"].sum(axis=1), dtype=np.float64).ravel())
        sections[tested.slide] = HeldOutSpots.of_table(table, model.genes, tested.slide[0], shares)
    rows, marked = [], []
    for name, others in FOLDS.items():
        trust, new = fit_trust([sections[other] for other in others], n_genes), sections[name]
        measured = np.isfinite(new.measured).all(axis=0) & np.isfinite(trust.scale_um.numpy())
        measured &= trust.scale_um.numpy() > -2
        detected = (new.measured[:, :n_genes] > 0).mean(axis=0)
        covered = np.full(len(measured), np.nan)
        for q in np.flatnonzero(measured):
            low, high = trust.interval(q, new.predicted[:, q])
            covered[q] = ((low <= new.measured[:, q] + 1e-6) & (new.measured[:, q] <= high + 1e-6)).mean()
        genes, types = covered[:n_genes], covered[n_genes:]
        rows.append(
            [
                name,
                ", ".join(others),
                f"{np.nanmean(genes):.3f}",
                f"{np.nanmean(genes[detected > 0.5]):.3f}",
                f"{np.nanmean(types):.3f}",
            ]
        )
        print(rows[-1], flush=True)
        for side in ("high", "low"):
            for fdr in (0.1, 0.2):
                marked.append([name, side, f"{fdr:.0%}", *_marking(trust, new, depth[name], side, fdr)])
                print(marked[-1], flush=True)
    header = ["section", "calibrated on", "genes", "of these detected in half of the spots", "cell types"]
    command = "`python scripts/make_breast_model.py --runs RUNS`, then `python scripts/results_trust.py --runs RUNS`"
    text = [
        "## Intervals of the breast model",
        "",
        f"{command}:",
        "share of measured spots in their interval of 90 %, mean over genes or cell types (these against deconvolved",
        "shares). Each section is predicted by a model of the others; the intervals are calibrated on the",
        "predictions for the named sections.",
        "",
        markdown(header, rows),
    ]
    write_section(REPO / "docs" / "results.md", "\n".join(text))
    _write_marking(marked, command)


def _marking(trust: Trust, new: HeldOutSpots, depth: np.ndarray, side: Side, fdr: float) -> list[str]:
    """What is marked on a section, and how much of it is wrong."""
    found, by_depth = mark_section(trust, new, side, fdr), mark_section(trust, new, side, fdr, order=depth)
    if not len(found.quantities):
        return ["0", *[""] * 7]
    scales = [trust.selection(q, side, fdr).scale_um for q in found.quantities.tolist()]
    return [
        f"{len(found.quantities):,}",
        f"{np.median(scales):.0f}",
        f"{found.marked.mean() / len(new.places_um):.0%}",
        *(f"{v:.3f}" for v in (found.pooled_fdp, found.mean_fdp, by_depth.pooled_fdp)),
        f"{(found.wrong / found.marked > 2 * fdr).mean():.0%}",
        f"{found.power:.0%}",
    ]


def _write_marking(rows: list[list[str]], command: str) -> None:
    header = [
        "section", "side", "FDR asked for", "genes", "scale, um", "marked", "wrong of all marked", "mean over genes",
        "by measured depth", "genes with twice the rate", "found",
    ]  # fmt: skip
    text = [
        "## Where a gene is high: false discoveries of the breast model",
        "",
        f"{command}:",
        "places (neighbourhoods of the scale) marked as above (below) the median of the section, for the genes that a",
        "calibration on the sections named in the table above offers. *Genes*: how many these are; *marked*: share of",
        "the tissue; *wrong*: share of marked places that are not above (below) it; *by measured depth*: the same",
        "when as many places with the most (fewest) measured counts are marked; *found*: share of the high (low)",
        "places that is marked. Sections C2 and C3 chose the design, C4 and B4 did not.",
        "",
        markdown(header, rows),
    ]
    write_section(REPO / "docs" / "results.md", "\n".join(text))


if __name__ == "__main__":
    main()
