"""CPNN on her2st: heads, ablations and honesty of the composition. Writes its sections of docs/results.md.

    python scripts/results_her2st.py --data ../shared/data              # all of it, hours on two cores
    python scripts/results_her2st.py --data ../shared/data --only heads

Everything is trained and tested by `napari_cpnn.cross_validate`. The image network (SqueezeNet 1.1, ImageNet weights)
is frozen and its features are computed once, so that one training takes seconds. Finished folds are found again in
runs/her2st-frozen, so that a killed run goes on. `scripts/results_finetuned.py` trains the network too.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import warnings
from pathlib import Path

import pandas as pd

import napari_cpnn as nc
from her2st_study import report
from her2st_study.runs import Study, frozen_settings, mean_scores, side_by_side
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.settings import EvaluationSettings
from napari_cpnn.studies import compare_heads

REPO = Path(__file__).resolve().parents[1]
PARTS = ("heads", "composition", "ablation", "honesty")
MINOR = "celltype_minor"

#: The composition term of 0.1.0's first tables, with which ablation and honesty were measured.
BEFORE = {"composition_loss": "squares", "deconvolution": "nnls"}

#: Epochs were chosen from 4, 6, 10, 16, 20 on these folds, for each head alike.
EPOCHS = {"plain": 6, "cpnn": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder with her2st, derived, pretrained-imagenet")
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "her2st-frozen", help="finished folds stay here")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    base = frozen_settings(args.data, EPOCHS["cpnn"])
    study = Study(args.data, args.runs, MINOR)
    page = args.docs / "results.md"
    if "heads" in args.only:
        report.write_section(page, heads(study, base, args.seeds))
    if "composition" in args.only:
        report.write_section(page, composition(study, base, args.seeds))
    if "ablation" in args.only:
        report.write_section(page, ablation(study, base.replace(**BEFORE), args.seeds))
    if "honesty" in args.only:
        table = honesty(study, base.replace(**BEFORE))
        report.honesty_figure(table, args.docs / "images" / "composition_honesty.png")
        report.write_section(page, report.honesty_section(table))


def variants(base: nc.TrainingSettings) -> dict[str, nc.TrainingSettings]:
    """The heads that are compared throughout."""
    plain = base.replace(
        head="linear", free_mixture=0.0, n_programs=0, composition_weight=0.0, max_epochs=EPOCHS["plain"]
    )
    return {
        "plain head, MSE (ST-Net's)": plain.replace(loss="mse"),
        "plain head, PCC loss": plain,
        "CPNN as in the paper": base.replace(free_mixture=0.0, n_programs=0, composition_weight=0.0),
        "CPNN, ours": base,
    }


def heads(study: Study, base: nc.TrainingSettings, seeds: int) -> str:
    results = study.run(variants(base), seeds)
    n_first = len(results["CPNN, ours"]) // seeds
    compared = compare_heads(side_by_side(results, n_first), "plain head, PCC loss", EvaluationSettings(bootstraps=500))
    means = {name: mean_scores(values) for name, values in results.items()}
    return report.heads_section(means, results, compared, seeds)


def composition(study: Study, base: nc.TrainingSettings, seeds: int) -> str:
    """What the shares are pulled to, and how; within the patient."""
    study = dataclasses.replace(study, protocols=("within",))
    rows = {
        "CPNN, ours": base,
        "squared differences alone": base.replace(composition_loss="squares"),
        "shares by least squares": base.replace(deconvolution="nnls"),
        "both, the default before": base.replace(**BEFORE),
    }
    results = study.run(rows, seeds)
    return report.composition_section({name: mean_scores(values) for name, values in results.items()}, seeds)


def ablation(study: Study, base: nc.TrainingSettings, seeds: int) -> str:
    paper = base.replace(free_mixture=0.0, n_programs=0, composition_weight=0.0)
    rows = {
        "ours": base,
        "no free mixture": base.replace(free_mixture=0.0),
        "programs count 1": base.replace(program_gain=1.0),
        "no free mixture, programs count 1": base.replace(free_mixture=0.0, program_gain=1.0),
        "linear programs": base.replace(program_net="linear"),
        "no programs": base.replace(n_programs=0),
        "no composition term": base.replace(composition_weight=0.0),
        "fixed prototypes": base.replace(prototype_mode="fixed"),
        "random prototypes": base.replace(prototype_mode="random", composition_weight=0.0),
        "no alpha, beta": base.replace(scale_shift=False),
        "no pull on prototypes": base.replace(prototype_weight=0.0),
        "correlation over the batch": base.replace(correlation="batch"),
        "average of the weights, 0.98": base.replace(weight_average=0.98),
        "genes weighted by reliability": base.replace(gene_weights="reliability"),
        "one view at test time": base.replace(symmetries=False),
        "paper's": paper,
        "paper's, fixed prototypes": paper.replace(prototype_mode="fixed"),
        "paper's, random prototypes": paper.replace(prototype_mode="random"),
        "paper's, no alpha, beta": paper.replace(scale_shift=False),
        "paper's, no pull on prototypes": paper.replace(prototype_weight=0.0),
    }
    results = study.run(rows, seeds)
    for tier, name in (("celltype_major", "9 major types"), ("celltype_subset", "41 subsets")):
        results |= Study(study.data, study.runs, tier).run({f"prototypes of {name}": base}, seeds)
    return report.ablation_section({name: mean_scores(values) for name, values in results.items()}, seeds)


def honesty(study: Study, base: nc.TrainingSettings) -> pd.DataFrame:
    """One seed of each number of programs and consistency weight."""
    settings = {
        f"{n} programs, weight {weight:g}": base.replace(n_programs=n, composition_weight=weight)
        for n in (0, 8, 16, 64)
        for weight in (0.0, 1.0, 5.0, 20.0, 100.0)
    }
    rows = []
    for name, tested in study.run(settings).items():
        of = {"programs": settings[name].n_programs, "weight": settings[name].composition_weight}
        rows += [{**of, "fold": place, **scores} for place, scores in mean_scores(tested).iterrows()]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
