"""A few real spots of breast cancer through the whole chain."""

from __future__ import annotations

import numpy as np
import pandas as pd

from napari_cpnn import estimate_prototypes, evaluate, open_slide, read_cells, read_spots, train
from napari_cpnn.settings import PrototypeSettings, TrainingSettings
from napari_cpnn.spots import estimate_mpp
from napari_cpnn.training import summarise


def test_her2st_section_trains(shared_data, tmp_path):
    folder = shared_data / "her2st" / "data"
    spots = read_spots(folder / "ST-cnts/C4.tsv.gz", positions=folder / "ST-spotfiles/C4_selection.tsv")
    spots = spots[:64, spots.X.sum(axis=0).A1.argsort()[-300:]].copy()
    slide = open_slide(folder / "ST-imgs/C/C4/5714_HE_BT_D2.jpg", mpp=estimate_mpp(spots))
    cells = read_cells(shared_data / "derived" / "wu2021_CID4465_counts.h5ad")
    prototypes = estimate_prototypes(cells, "celltype_major", settings=PrototypeSettings(min_cells=5))
    (weights,) = (shared_data / "pretrained-imagenet" / "squeezenet1.1").glob("*.h5")
    settings = TrainingSettings(
        backbone="squeezenet", weights=str(weights), hidden=64, max_epochs=2, batch_size=24, device="cpu"
    )
    model = train([(slide, spots)], prototypes, settings, tmp_path / "run", progress=False)
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert len(model.genes) > 200
    assert model.cell_types == prototypes.cell_types
    summary = summarise(evaluate(model, slide, spots))
    assert np.isfinite(summary["pcc"])
    assert summary["pcc"] > 0.05  # spots that it has mostly seen: chance is 0 +- 0.01 over 290 genes
