"""TRIPLEX and the frozen encoder on her2st. Writes their section of docs/results.md.

    python scripts/results_triplex.py --data ../shared/data

The image networks (SqueezeNet 1.1, ImageNet weights) are frozen and what they see is computed once; of TRIPLEX the
transformers and heads learn. Hours of one core. Finished folds are found again in runs/her2st-triplex.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import napari_cpnn as nc
from her2st_study import report
from her2st_study.data import read_section, start_weights
from her2st_study.runs import PROTOCOLS, Study, Tested, mean_scores
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.evaluation import pearson
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.models import LinearHead
from napari_cpnn.prediction import Predictor, SlideSurroundings
from napari_cpnn.slides import read_patches
from napari_cpnn.training.fit import VIEWS
from results_her2st import EPOCHS as FROZEN_EPOCHS
from results_her2st import MINOR, REPO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder with her2st, derived, pretrained-imagenet")
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "her2st-triplex", help="finished folds stay here")
    parser.add_argument("--only", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5, help="of TRIPLEX, for each head alike")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of TRIPLEX: transformers and heads")
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    study = Study(args.data, args.runs, MINOR, tuple(args.only))
    results = study.run(heads(args), args.seeds)
    report.write_section(args.docs / "results.md", section(results, args))


def heads(args: argparse.Namespace) -> dict[str, nc.TrainingSettings]:
    """The heads that are compared, all under the PCC loss, on the frozen encoder alone and on TRIPLEX."""
    weights = start_weights(args.data)
    frozen = nc.TrainingSettings(
        backbone="frozen", target="squeezenet", weights=weights, encoder="squeezenet", encoder_weights=weights,
        patch=nc.PatchSpec(224, 1.0), backbone_learning_rate=0, symmetries=True, max_epochs=FROZEN_EPOCHS["cpnn"],
        context_pitch_um=200.0, max_tokens=256, validation="none",
    )  # fmt: skip
    triplex = frozen.replace(backbone="triplex", max_epochs=args.epochs, learning_rate=args.learning_rate)
    found = {}
    for name, base, epochs in (("frozen", frozen, FROZEN_EPOCHS["plain"]), ("TRIPLEX", triplex, args.epochs)):
        paper = base.replace(free_mixture=0.0, n_programs=0, composition_weight=0.0)
        found[f"{name}, plain head"] = paper.replace(head="linear", max_epochs=epochs)
        found[f"{name} + CPNN as in the paper"] = paper
        found[f"{name} + CPNN, ours"] = base
    return found


def view_scores(data: Path, model: nc.CPNN, tested: Tested) -> dict[str, float]:
    """Mean PCC of what each view of TRIPLEX predicts by its own head at the tested spots."""
    slide, spots = read_section(data, tested.section)
    spots = spots[tested.table.obs["row"].to_numpy()]
    centers = spatial_to_um(spots.obsm["spatial"], slide.require_mappable())
    patches = read_patches(slide, centers, model.patch)
    seen = SlideSurroundings(slide, model, Predictor(model, "cpu", "float32")).at(centers)
    with torch.inference_mode():
        _, *views = model.views(model.patch_features(model.normalize(patches)), seen)
        predicted = [
            view @ head.program_genes + head.bias if isinstance(head, LinearHead) else model.decode(*head(view))
            for head, view in zip(model.view_heads, views, strict=True)
        ]
    measured = tested.table.layers["measured"]
    return {name: float(np.nanmean(pearson(p.numpy(), measured))) for name, p in zip(VIEWS, predicted, strict=True)}


def section(results: dict[str, list[Tested]], args: argparse.Namespace) -> str:
    """The text of the page."""
    views = {name: _with_views(args.data, tested) for name, tested in results.items() if "TRIPLEX" in name}
    means = {name: mean_scores(tested) for name, tested in results.items()}
    return "\n".join(
        [
            "## TRIPLEX on her2st",
            "",
            (
                f"`python scripts/results_triplex.py --only {' '.join(args.only)} --seeds {args.seeds}"
                f" --epochs {args.epochs} --learning-rate {args.learning_rate:g}`: folds,"
                " patches, prototypes and scores of *Heads on her2st, image network frozen*; PCC loss. SqueezeNet 1.1"
                " with ImageNet weights"
                " is target network and encoder, both frozen; at most 256 tokens a slide;"
                " the same epochs and rate for every head. `frozen` is the backbone of"
                " that name with the same encoder and the epochs of that section. Mean over"
                f" {report.gene_range(results)}."
            ),
            "",
            report.scores_table(means),
            "The same with log total counts regressed out of both sides:",
            "",
            report.scores_table(means, "_given_depth", composition=False),
            (
                "Mean PCC of the fused view of TRIPLEX, mean over the symmetries, and of each of its views by its own"
                " head, of the patch as it is:"
            ),
            "",
            _views_table(views),
        ]
    )


def _with_views(data: Path, results: list[Tested]) -> pd.DataFrame:
    rows = []
    for one in results:
        model = nc.load_model(one.model)
        fold = one.fold if " " in one.fold else "within"
        rows.append({"fold": fold, "pcc": one.means["pcc"], **view_scores(data, model, one)})
    return pd.DataFrame(rows).groupby("fold", sort=False).mean()


def _views_table(means: dict[str, pd.DataFrame]) -> str:
    rows = []
    for name, table in means.items():
        for place, scores in table.iterrows():
            rows.append([name, report.PLACES[place], *(f"{scores[view]:.3f}" for view in ("pcc", *VIEWS))])
    return report.markdown(["", "", "fused", "patch", "neighbours", "slide"], rows)


if __name__ == "__main__":
    main()
