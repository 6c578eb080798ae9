"""A few real spots of breast cancer through the whole chain."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from margins import SEED, less_than, more_than
from napari_cpnn import estimate_prototypes, evaluate, open_slide, read_cells, read_spots, train
from napari_cpnn.evaluation import summarise
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings import EvaluationSettings, PrototypeSettings, TrainingSettings
from napari_cpnn.spots import estimate_mpp


@pytest.mark.slow  # results on real sections are made by scripts
def test_her2st_section_trains(shared_data, tmp_path):
    folder = shared_data / "her2st" / "data"
    spots = read_spots(folder / "ST-cnts/C4.tsv.gz", positions=folder / "ST-spotfiles/C4_selection.tsv")
    spots = spots[:64, spots.X.sum(axis=0).A1.argsort()[-300:]].copy()
    slide = open_slide(folder / "ST-imgs/C/C4/5714_HE_BT_D2.jpg", mpp=estimate_mpp(spots))
    cells = read_cells(shared_data / "derived" / "wu2021_CID4465_counts.h5ad")
    prototypes = estimate_prototypes(cells, "celltype_major", settings=PrototypeSettings(min_cells=5))
    (weights,) = (shared_data / "pretrained-imagenet" / "squeezenet1.1").glob("*.h5")
    settings = TrainingSettings(
        backbone="squeezenet", weights=str(weights), hidden=64, max_epochs=2, batch_size=24, device="cpu",
        precision="float32", seed=SEED,
    )  # fmt: skip
    model = train([(slide, spots)], prototypes, settings, tmp_path / "run", progress=False)
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    less_than(1, history["loss"].iloc[-1] / history["loss"].iloc[0], "last loss over first")
    assert len(model.genes) > 200
    assert model.cell_types == prototypes.cell_types
    summary = summarise(evaluate(model, slide, spots, settings=EvaluationSettings(precision="float32")))
    assert np.isfinite(summary["pcc"])
    # Spots that it has mostly seen: chance is 0 +- 0.01 over 290 genes.
    more_than(0.05, summary["pcc"], "PCC on the same section")


@pytest.mark.slow  # results on real sections are made by scripts
def test_triplex_trains_on_a_her2st_section(shared_data, tmp_path):
    """A few spots, one epoch: the pitch of the array, surroundings, four heads, and the scores afterwards."""
    folder = shared_data / "her2st" / "data"
    spots = read_spots(folder / "ST-cnts/C4.tsv.gz", positions=folder / "ST-spotfiles/C4_selection.tsv")
    spots = spots[:24, spots.X.sum(axis=0).A1.argsort()[-100:]].copy()
    slide = open_slide(folder / "ST-imgs/C/C4/5714_HE_BT_D2.jpg", mpp=estimate_mpp(spots))
    cells = read_cells(shared_data / "derived" / "wu2021_CID4465_counts.h5ad")
    prototypes = estimate_prototypes(cells, "celltype_major", settings=PrototypeSettings(min_cells=5))
    (weights,) = (shared_data / "pretrained-imagenet" / "squeezenet1.1").glob("*.h5")
    settings = TrainingSettings(
        backbone="triplex", target="squeezenet", weights=str(weights), encoder="squeezenet",
        encoder_weights=str(weights), patch=PatchSpec(64, 3.0), max_tokens=16, hidden=32, max_epochs=1, batch_size=24,
        learning_rate=1e-4, augment=False, validation="none", device="cpu", precision="float32", seed=SEED,
    )  # fmt: skip
    model = train([(slide, spots)], prototypes, settings, tmp_path / "run", progress=False)
    assert model.spec.backbone_args["pitch_um"] == 200.0
    summary = summarise(evaluate(model, slide, spots, settings=EvaluationSettings(ceiling_repeats=0)))
    assert np.isfinite(summary["pcc"])
    assert summary["n_spots"] == 24
