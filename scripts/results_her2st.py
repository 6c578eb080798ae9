"""CPNN on her2st: heads, ablations and honesty of the composition. Writes its sections of docs/results.md.

    python scripts/results_her2st.py --data ../shared/data              # all of it, about half an hour on two cores
    python scripts/results_her2st.py --data ../shared/data --only heads ablation

The image network (SqueezeNet 1.1, ImageNet weights) is frozen and its features are computed once, so that one training
takes seconds and each head can be run on all folds and several seeds. `scripts/results_finetuned.py` trains the
network too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

import napari_cpnn as nc
from her2st_study import report
from her2st_study.data import TIERS, published_shares, read_prototypes, read_section, start_weights
from her2st_study.runs import FOLDS, SECTIONS, Study, Tested, side_by_side
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.settings import EvaluationSettings
from napari_cpnn.studies import compare_heads

REPO = Path(__file__).resolve().parents[1]
PARTS = ("heads", "ablation", "honesty")
MINOR = "celltype_minor"

#: Epochs were chosen from 4, 6, 10, 16, 20 on these folds, for each head alike.
EPOCHS = {"plain": 6, "cpnn": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder with her2st, derived, pretrained-imagenet")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    with tempfile.TemporaryDirectory(prefix="her2st-") as folder:
        studies = read_studies(args.data, Path(folder), TIERS if "ablation" in args.only else (MINOR,))
        page = args.docs / "results.md"
        if "heads" in args.only:
            report.write_section(page, heads(studies[MINOR], args.data, args.seeds))
        if "ablation" in args.only:
            report.write_section(page, ablation(studies, args.seeds))
        if "honesty" in args.only:
            table = honesty(studies[MINOR])
            report.honesty_figure(table, args.docs / "images" / "composition_honesty.png")
            report.write_section(page, report.honesty_section(table))


def read_studies(data: Path, folder: Path, tiers: Iterable[str]) -> dict[str, Study]:
    prototypes, names = read_prototypes(data)
    samples = [read_section(data, name) for name in SECTIONS]
    published = [published_shares(data, name) for name in SECTIONS]
    base = nc.TrainingSettings(
        backbone="squeezenet", weights=start_weights(data), patch=nc.PatchSpec(224, 1.0), backbone_learning_rate=0,
        symmetries=True, max_epochs=EPOCHS["cpnn"], precision="float32",
    )  # fmt: skip
    studies: dict[str, Study] = {}
    for tier in sorted(tiers, key=lambda name: name != MINOR):  # the features are those of the first one
        features = studies[MINOR].features if studies else None
        chosen = prototypes[tier], names[tier]
        studies[tier] = Study.of(samples, published, chosen, base, folder / tier, features)
    return studies


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


def run_all(study: Study, settings: nc.TrainingSettings, seeds: int, folds: Iterable[str] = FOLDS) -> list[Tested]:
    return [tested for seed in range(seeds) for fold in folds for tested in study.run(settings, fold, seed)]


def mean_scores(results: Iterable[Tested]) -> pd.DataFrame:
    """Means over seeds and sections; rows: ``within`` (patient C), ``C to B``, ``B to C``."""
    rows = [{"fold": r.fold if " " in r.fold else "within", **r.scores} for r in results]
    return pd.DataFrame(rows).groupby("fold", sort=False).mean()


def heads(study: Study, data: Path, seeds: int) -> str:
    results: dict[str, list[Tested]] = {}
    for name, settings in variants(study.base).items():
        results[name] = run_all(study, settings, seeds)
        print(name, mean_scores(results[name]).round(3).to_dict("index"), flush=True)
    first = {name: values[: len(values) // seeds] for name, values in results.items()}
    compared = compare_heads(
        side_by_side(first, study.data.genes), "plain head, PCC loss", EvaluationSettings(bootstraps=500)
    )
    return report.heads_section(
        {name: mean_scores(values) for name, values in results.items()}, results, compared,
        report.ceilings([read_section(data, name)[1] for name in SECTIONS], study.data.genes), seeds,
    )  # fmt: skip


def ablation(studies: dict[str, Study], seeds: int) -> str:
    study = studies[MINOR]
    base = study.base
    paper = base.replace(free_mixture=0.0, n_programs=0, composition_weight=0.0)
    rows = {
        "ours": (study, base),
        "no free mixture": (study, base.replace(free_mixture=0.0)),
        "programs count 1": (study, base.replace(program_gain=1.0)),
        "no free mixture, programs count 1": (study, base.replace(free_mixture=0.0, program_gain=1.0)),
        "linear programs": (study, base.replace(program_net="linear")),
        "no programs": (study, base.replace(n_programs=0)),
        "no composition term": (study, base.replace(composition_weight=0.0)),
        "fixed prototypes": (study, base.replace(prototype_mode="fixed")),
        "random prototypes": (study, base.replace(prototype_mode="random", composition_weight=0.0)),
        "no alpha, beta": (study, base.replace(scale_shift=False)),
        "no pull on prototypes": (study, base.replace(prototype_weight=0.0)),
        "correlation over the batch": (study, base.replace(correlation="batch")),
        "average of the weights, 0.98": (study, base.replace(weight_average=0.98)),
        "genes weighted by reliability": (study, base.replace(gene_weights="reliability")),
        "one view at test time": (study, base.replace(symmetries=False)),
        "prototypes of 9 major types": (studies["celltype_major"], base),
        "prototypes of 41 subsets": (studies["celltype_subset"], base),
        "paper's": (study, paper),
        "paper's, fixed prototypes": (study, paper.replace(prototype_mode="fixed")),
        "paper's, random prototypes": (study, paper.replace(prototype_mode="random")),
        "paper's, no alpha, beta": (study, paper.replace(scale_shift=False)),
        "paper's, no pull on prototypes": (study, paper.replace(prototype_weight=0.0)),
    }
    table = {}
    for name, (which, settings) in rows.items():
        table[name] = mean_scores(run_all(which, settings, seeds))
        print(name, table[name].round(3).to_dict("index"), flush=True)
    return report.ablation_section(table, seeds)


def honesty(study: Study) -> pd.DataFrame:
    """One seed of each number of programs and consistency weight."""
    rows = []
    for n_programs in (0, 8, 16, 64):
        for weight in (0.0, 1.0, 5.0, 20.0, 100.0):
            settings = study.base.replace(n_programs=n_programs, composition_weight=weight)
            for place, scores in mean_scores(run_all(study, settings, 1)).iterrows():
                rows.append({"programs": n_programs, "weight": weight, "fold": place, **scores})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
