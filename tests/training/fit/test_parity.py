"""The live map at measured spots says what evaluation says of them, on a real section."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cpnn import open_slide, read_spots
from napari_cpnn.evaluation.predictions import predict_expression
from napari_cpnn.geometry import PatchSpec, Rect, spatial_to_um, um_to_spatial
from napari_cpnn.mapping import DONE, predict_map
from napari_cpnn.models import build_model
from napari_cpnn.settings import MappingSettings, TrainingSettings
from napari_cpnn.spots import estimate_mpp

#: Slide um; some 40 spots, at the border of the tissue.
REGION = Rect(2000, 2000, 3500, 4000)


@pytest.mark.parametrize("backbone", ["squeezenet", "triplex", "frozen"])
def test_map_and_evaluation_agree(shared_data: Path, backbone: str) -> None:
    folder = shared_data / "her2st" / "data"
    spots = read_spots(folder / "ST-cnts/C4.tsv.gz", positions=folder / "ST-spotfiles/C4_selection.tsv")
    slide = open_slide(folder / "ST-imgs/C/C4/5714_HE_BT_D2.jpg", mpp=estimate_mpp(spots))
    genes = list(spots.var_names[np.argsort(-spots.X.sum(axis=0).A1)[:50]])
    model = _model(shared_data, backbone, genes)
    cmap = predict_map(
        slide, model, region=REGION, settings=MappingSettings(device="cpu", precision="float32", cache=False)
    )
    # A map has its own places: each measured spot goes to the centre of the cell that it lies in.
    cells = [cmap.grid.cell_at(*um) for um in spatial_to_um(spots.obsm["spatial"], slide.mpp)]
    inside = np.array([cell is not None and cmap.state[cell] == DONE for cell in cells])
    assert inside.sum() > 20
    spots = spots[inside].copy()
    cells = np.array([cell for cell, take in zip(cells, inside, strict=True) if take])
    spots.obsm["spatial"] = um_to_spatial(cmap.grid.centers_um(cells), slide.mpp)
    compared = predict_expression(model, slide, spots, device="cpu", precision="float32")
    mapped = np.stack([cmap.expression(gene)[tuple(cells.T)] for gene in compared.var_names], axis=1)
    assert mapped.std(axis=0).max() > 0.05
    # A map keeps its values in float16; what remains beside that is rounding.
    np.testing.assert_allclose(mapped, compared.X, atol=1e-3, rtol=1e-3)


def _model(shared_data: Path, backbone: str, genes: list[str]):
    (weights,) = (shared_data / "pretrained-imagenet" / "squeezenet1.1").glob("*.h5")
    settings = TrainingSettings(
        backbone=backbone,
        weights=str(weights),
        encoder="squeezenet",
        encoder_weights=str(weights),
        target="squeezenet",
        context_pitch_um=200.0,
        n_programs=2,
        hidden=32,
        patch=PatchSpec(224, 1.0),
    )
    rng = np.random.default_rng(0)
    model = build_model(
        settings, genes, ["a", "b", "c"], rng.dirichlet(np.ones(len(genes)) / 3, 3), np.ones(len(genes))
    ).eval()
    with torch.no_grad():  # as if it had learned: patches differ
        model.head.composition[-1].weight *= 20
        model.head.log_alpha += 1
    return model
