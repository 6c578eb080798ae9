"""Train the breast models of the package, on the four sections of her2st with full pictures.

    python scripts/make_breast_model.py --data ../shared/data --runs RUNS      # some 25 minutes on two cores

Each section is tested with a model of the others. ``breast-her2st`` is trained on all four with the same settings, and
is calibrated by those tests. ``breast-her2st-without-c4``, for the sample slide C4, is the model of the others that C4
was tested with; it is calibrated by tests among the others, so that nothing of it has seen a measurement of C4. The
settings are the defaults with the encoder `he-small`, frozen; none was chosen on these sections. The encoder has seen
the pictures of all four, but no measurement. A1 has a picture of 3.2 um/px only and is left out (docs/experiments.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

import napari_cpnn as nc
from her2st_study.data import HER2ST_NAMES, published_shares, read_prototypes, read_section
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.evaluation import pearson
from napari_cpnn.models import ZOO, read_card, save_model
from napari_cpnn.studies import calibrate, held_out_slides

REPO = Path(__file__).resolve().parents[1]
SECTIONS = ("B4", "C2", "C3", "C4")
SAMPLE = "C4"
TIER = "celltype_major"

#: Baselines of `napari_cpnn.benchmark` that stand beside the held-out scores of a gene, and their names there.
BASELINES = {"depth oracle": "depth alone", "colour statistics": "colour alone"}

SETTINGS = nc.TrainingSettings(
    backbone="frozen", encoder="he-small", encoder_weights="pretrained", patch=nc.PatchSpec(224, 1.0), hidden=256,
    symmetries=True, max_epochs=10, validation="none", tissue="HER2+ breast cancer", precision="float32",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs; finished ones are not repeated")
    parser.add_argument("--out", type=Path, default=ZOO["breast-her2st"].path.parent, help="folder of the models")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    prototypes = read_prototypes(args.data, "nb")[0][TIER]
    samples = {name: read_section(args.data, name) for name in SECTIONS}

    def tested(names: Sequence[str], runs: Path) -> pd.DataFrame:
        return nc.cross_validate([samples[n] for n in names], prototypes, SETTINGS, groups=list(names), out=runs)

    def finish(model: nc.CPNN, name: str, runs: Path, scores: pd.DataFrame, slide: str) -> None:
        known = scores["gene"].isin(model.genes)
        calibrate(model, runs, prototypes, patients={section: section[0] for section in SECTIONS})
        model.provenance["metrics"] = {"held_out": card_scores(scores[known], baselines, slide)}
        path = args.out / f"{name}.safetensors"
        save_model(model, path, half=True)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")

    folds = args.runs / "folds"
    scores = tested(SECTIONS, folds)
    baselines = baseline_scores(folds, list(samples.values()))
    model = trained(list(samples.values()), prototypes, args.runs / "all")
    everywhere = f"each of {', '.join(SECTIONS)} (2 patients) by a model of the others"
    finish(model, "breast-her2st", folds, scores, everywhere)

    others = args.runs / f"folds-without-{SAMPLE}"
    tested([name for name in SECTIONS if name != SAMPLE], others)
    model = nc.load_model(folds / "cpnn" / SAMPLE / "run" / "model.safetensors")
    model.provenance["purpose"] = (
        f"the sample slide {SAMPLE}, whose measurements it has not seen; for other slides take breast-her2st"
    )
    unseen = scores[scores["slide"] == SAMPLE]
    finish(model, f"breast-her2st-without-{SAMPLE.lower()}", others, unseen, f"{SAMPLE}, which it has not seen")
    print(by_section(scores, args).round(3).to_string())


def trained(samples: list[tuple[nc.Slide, AnnData]], prototypes: nc.Prototypes, out: Path) -> nc.CPNN:
    """The model of a finished run with these settings, or of a new one."""
    path, unfinished = out / "model.safetensors", (out / "resume.safetensors").exists()
    if path.exists() and not unfinished:
        settings = nc.TrainingSettings.from_dict(read_card(path)["provenance"]["settings"])
        if settings.to_dict() == SETTINGS.to_dict():
            return nc.load_model(path)
        shutil.rmtree(out)
    return nc.train(samples, prototypes, SETTINGS, out=out, resume=unfinished)


def baseline_scores(folds: Path, samples: list[tuple[nc.Slide, AnnData]]) -> pd.DataFrame:
    """PCC of the baselines per section and gene, each fitted on the other sections."""
    settings = nc.BenchmarkSettings(ceiling_repeats=0, spatial=False, shifts=0, bootstraps=0)
    scores = nc.benchmark({"breast-her2st": folds}, samples, settings=settings).scores
    scores = scores[(scores["kind"] == "baseline") & (scores["metric"] == "pcc") & scores["name"].isin(BASELINES)]
    return scores.assign(name=scores["name"].map(BASELINES))


def card_scores(scores: pd.DataFrame, baselines: pd.DataFrame, slide: str) -> dict[str, object]:
    """Means over the tested sections, for the model's card, where ``slide`` tells on what they were measured."""
    per_gene = scores.groupby("gene")["pcc"].mean()
    same = baselines[baselines["section"].isin(scores["slide"]) & baselines["gene"].isin(per_gene.index)]
    return {
        "slide": slide,
        "pcc_mean": round(float(scores.groupby("slide")["pcc"].mean().mean()), 4),
        "scc_mean": round(float(scores.groupby("slide")["scc"].mean().mean()), 4),
        "n_genes": len(per_gene),
        "per_gene_pcc": rounded(per_gene),
        "baselines": {name: rounded(part.groupby("gene")["value"].mean()) for name, part in same.groupby("name")},
    }


def rounded(values: pd.Series) -> dict[str, float]:
    """Finite values by gene, to three digits."""
    return {gene: round(float(r), 3) for gene, r in values.items() if np.isfinite(r)}


def by_section(scores: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """Mean scores of each section; composition: correlation of the weights with the published major shares."""
    rows = {}
    for tested in held_out_slides(args.runs / "folds"):
        (table,) = tested.heads.values()
        weights = pd.DataFrame(table.obsm["weights"], index=table.obs_names)
        types = list(table.obsm["weights"].columns)
        weights = weights.set_axis([HER2ST_NAMES.get(name, name) for name in types], axis=1)
        weights = weights.T.groupby(level=0).sum().T
        published = published_shares(args.data, tested.slide).loc[table.obs_names]
        common = [name for name in published.columns if name in weights.columns]
        own = scores[scores["slide"] == tested.slide]
        rows[tested.slide] = {
            "pcc": own["pcc"].mean(),
            "scc": own["scc"].mean(),
            "pcc_given_depth": own["pcc_given_depth"].mean(),
            "genes": len(own),
            "composition": float(np.nanmean(pearson(weights[common].to_numpy(), published[common].to_numpy()))),
        }
    return pd.DataFrame(rows).T


if __name__ == "__main__":
    main()
