"""The same heads on her2st with the image network trained too. Writes its section of docs/results.md.

    python scripts/results_finetuned.py --data ../shared/data

Twenty minutes or more on two cores. Finished folds are found again in runs/her2st, so that a killed run goes on.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import pandas as pd

import napari_cpnn as nc
from her2st_study.data import read_prototypes, read_section, start_weights
from her2st_study.report import markdown, write_section
from her2st_study.runs import PROTOCOLS, SECTIONS
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.settings import EvaluationSettings

REPO = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder with her2st, derived, pretrained-imagenet")
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "her2st", help="finished folds are found again")
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    parser.add_argument("--only", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    prototypes = read_prototypes(args.data)[0]["celltype_minor"]
    samples = {name: read_section(args.data, name) for name in SECTIONS}
    tables = []
    for protocol in args.only:
        sections, groups = PROTOCOLS[protocol]
        chosen = [samples[name] for name in sections]
        table = nc.cross_validate(
            chosen, prototypes, heads(args.data), groups, args.runs / protocol, EvaluationSettings(ceiling_repeats=0)
        )
        tables.append(table.assign(protocol=protocol))
    write_section(args.docs / "results.md", section(pd.concat(tables, ignore_index=True)))


def heads(data: Path) -> dict[str, nc.TrainingSettings]:
    """Few epochs for the plain head, which is best early (docs/experiments.md)."""
    common = {
        "backbone": "squeezenet", "weights": start_weights(data), "patch": nc.PatchSpec(224, 1.0), "symmetries": True,
        "validation": "none",
    }  # fmt: skip
    return {
        "plain head, PCC loss": nc.TrainingSettings.plain(max_epochs=4, **common),
        "CPNN as in the paper": nc.TrainingSettings.paper(max_epochs=8, **common),
        "CPNN, ours": nc.TrainingSettings(max_epochs=8, **common),
    }


def section(scores: pd.DataFrame) -> str:
    scores = scores.assign(place=scores["protocol"].where(scores["protocol"] == "within", scores["fold"]))
    means = scores.groupby(["head", "place", "slide"], sort=False)[["pcc", "scc", "pcc_given_depth"]].mean()
    means = means.groupby(["head", "place"], sort=False).mean()
    places = {"within": "patient C, unseen section", "B": "C to B", "C": "B to C"}
    places = {place: words for place, words in places.items() if place in set(scores["place"])}
    rows = []
    for head in scores["head"].unique():
        cells = (means.loc[(head, place)] for place in places)
        rows.append([head, *(f"{c['pcc']:.3f} / {c['scc']:.3f} / {c['pcc_given_depth']:.3f}" for c in cells)])
    return "\n".join(
        [
            "## Heads on her2st, image network trained",
            "",
            (
                "`python scripts/results_finetuned.py`: as above, but SqueezeNet is trained with the head, at a"
                " learning rate of 2e-4; 4 epochs for the plain head, 8 for the others, one seed. PCC / SCC / PCC given"
                " depth, mean over the genes detected in 10 % of a fold's training spots, then over sections."
            ),
            "",
            markdown(["head", *places.values()], rows),
        ]
    )


if __name__ == "__main__":
    main()
