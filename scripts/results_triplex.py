"""TRIPLEX and the frozen encoder on her2st. Writes their section of docs/results.md.

    python scripts/results_triplex.py --data ../shared/data

The image networks (SqueezeNet 1.1, ImageNet weights) are frozen and what they see is computed once; of TRIPLEX the
transformers and heads learn. An hour of one core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from pathlib import Path

import pandas as pd

import napari_cpnn as nc
from her2st_study import report
from her2st_study.data import published_shares, read_prototypes, read_section, start_weights
from her2st_study.runs import FOLDS, SECTIONS, Study, Tested
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.training.fit import VIEWS
from results_her2st import EPOCHS as FROZEN_EPOCHS
from results_her2st import MINOR, REPO, mean_scores, run_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder with her2st, derived, pretrained-imagenet")
    parser.add_argument("--folds", nargs="+", choices=FOLDS, default=list(FOLDS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5, help="of TRIPLEX, for each head alike")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of TRIPLEX: transformers and heads")
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    results: dict[str, list[Tested]] = {}
    with tempfile.TemporaryDirectory(prefix="her2st-") as folder:
        for backbone in ("frozen", "triplex"):
            study = read_study(args.data, Path(folder) / backbone, backbone)
            if backbone == "triplex":
                study.base = study.base.replace(max_epochs=args.epochs, learning_rate=args.learning_rate)
            for name, settings in variants(study.base).items():
                results[name] = run_all(study, settings, args.seeds, args.folds)
                print(name, mean_scores(results[name]).round(3).to_dict("index"), flush=True)
        n_genes = len(study.data.genes)
    report.write_section(args.docs / "results.md", section(results, n_genes, args))


def read_study(data: Path, folder: Path, backbone: str) -> Study:
    """All four sections, with what the networks of a backbone see of them."""
    prototypes, names = read_prototypes(data)
    weights = start_weights(data)
    base = nc.TrainingSettings(
        backbone=backbone, target="squeezenet", weights=weights, encoder="squeezenet", encoder_weights=weights,
        patch=nc.PatchSpec(224, 1.0), backbone_learning_rate=0, symmetries=True, max_epochs=FROZEN_EPOCHS["cpnn"],
        context_pitch_um=200.0, max_tokens=256,
    )  # fmt: skip
    samples = [read_section(data, name) for name in SECTIONS]
    published = [published_shares(data, name) for name in SECTIONS]
    return Study.of(samples, published, (prototypes[MINOR], names[MINOR]), base, folder)


def variants(base: nc.TrainingSettings) -> dict[str, nc.TrainingSettings]:
    """The heads that are compared, all under the PCC loss."""
    what = {"triplex": "TRIPLEX", "frozen": "frozen"}[base.backbone]
    epochs = FROZEN_EPOCHS["plain"] if base.backbone == "frozen" else base.max_epochs
    plain = base.replace(head="linear", free_mixture=0.0, n_programs=0, composition_weight=0.0, max_epochs=epochs)
    return {
        f"{what}, plain head": plain,
        f"{what} + CPNN as in the paper": base.replace(free_mixture=0.0, n_programs=0, composition_weight=0.0),
        f"{what} + CPNN, ours": base,
    }


def section(results: dict[str, list[Tested]], n_genes: int, args: argparse.Namespace) -> str:
    """The text of the page."""
    folds = " ".join(map(repr, args.folds))
    means = {name: mean_scores(tested) for name, tested in results.items()}
    return "\n".join(
        [
            "## TRIPLEX on her2st",
            "",
            (
                f"`python scripts/results_triplex.py --folds {folds} --seeds {args.seeds} --epochs {args.epochs}"
                f" --learning-rate {args.learning_rate:g}`: folds,"
                " patches, prototypes and scores of *Heads on her2st, image network frozen*; PCC loss. SqueezeNet 1.1"
                " with ImageNet weights"
                " is target network and encoder, both frozen; at most 256 tokens a slide;"
                " the same epochs and rate for every head. `frozen` is the backbone of"
                f" that name with the same encoder and the epochs of that section. Mean over {n_genes} genes."
            ),
            "",
            report.scores_table(means),
            "The same with log total counts regressed out of both sides:",
            "",
            report.scores_table(means, "_given_depth", composition=False),
            "Mean PCC of the fused view of TRIPLEX, and of each of its views by its own head:",
            "",
            _views_table({name: table for name, table in means.items() if name.startswith("TRIPLEX")}),
        ]
    )


def _views_table(means: dict[str, pd.DataFrame]) -> str:
    rows = []
    for name, table in means.items():
        for place, scores in table.iterrows():
            rows.append([name, report.PLACES[place], *(f"{scores[view]:.3f}" for view in ("pcc", *VIEWS))])
    return report.markdown(["", "", "fused", "patch", "neighbours", "slide"], rows)


if __name__ == "__main__":
    main()
