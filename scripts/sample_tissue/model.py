"""Prototypes and the packaged model: trained on the spots of the slide's left half, scored on its right half."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from anndata import AnnData

import napari_cpnn as nc
from napari_cpnn.geometry import Grid, spatial_to_um
from napari_cpnn.models import save_model
from napari_cpnn.prediction import Predictor
from napari_cpnn.slides import read_patches
from napari_cpnn.training.fit import Axes, calibrated

#: From scratch, since a script that needs no network has no pre-trained weights: the backbone learns as fast as the
#: head, and the composition leads, because the deconvolved shares say more per spot than its noisy genes.
SETTINGS = nc.TrainingSettings(
    program_net="linear",  # small enough to travel with the package
    program_gain=1.0,
    free_mixture=0.0,
    backbone="stnet",
    weights="none",
    hidden=128,
    n_programs=8,
    composition_weight=20.0,
    composition_loss="squares",
    deconvolution="nnls",
    max_epochs=20,
    batch_size=16,
    learning_rate=1e-3,
    backbone_learning_rate=1e-3,
    validation="none",
)


def make_model(out: Path, seed: int, settings: nc.TrainingSettings = SETTINGS) -> dict[str, float]:
    """Write ``prototypes.h5ad`` and ``model.safetensors`` into ``out``; held-out scores go into the model's card."""
    torch.set_num_threads(1)  # the same sums on any number of cores, and no waiting where cores are shared
    cells = nc.read_cells(out / "cells.h5ad")
    settings = nc.PrototypeSettings(method="mean", min_cells=200)
    prototypes = nc.estimate_prototypes(cells, cell_type="celltype", batch="patient", settings=settings)
    prototypes.save(out / "prototypes.h5ad")
    with nc.open_slide(out / "slide.tiff") as slide:
        spots = nc.read_spots(out / "spots.h5ad", slide=slide)
        left, right = (spots[spots.obs["split"] == half].copy() for half in ("train", "test"))
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as run:
            model = nc.train([(slide, left)], prototypes, settings.replace(seed=seed), out=Path(run) / "run")
        print(f"training: {time.perf_counter() - start:.0f} s on {left.n_obs} spots")
        give_domain(model, slide, left, right)
        genes = nc.evaluate(model, slide, right)
        composition = held_out_composition(model, slide, out / "truth.npz")
    scores = {
        "slide": "the right half of the sample",
        "pcc_mean": round(float(genes["pcc"].mean()), 4),
        "scc_mean": round(float(genes["scc"].mean()), 4),
        "n_genes": int(genes["pcc"].notna().sum()),
    }
    print({**scores, **composition})
    per_gene = genes["pcc"].dropna().round(3).to_dict()
    model.provenance["metrics"] = {
        "held_out": {**scores, "per_gene_pcc": per_gene},
        "composition_pcc": {name: round(r, 3) for name, r in composition.items()},
    }
    save_model(model, out / "model.safetensors", half=True)
    return composition


def add_domain(out: Path) -> None:
    """Give the model that is there what tells tissue unlike the left half's; its weights stay as they are."""
    torch.set_num_threads(1)
    model = nc.load_model(out / "model.safetensors")
    with nc.open_slide(out / "slide.tiff") as slide:
        spots = nc.read_spots(out / "spots.h5ad", slide=slide)
        give_domain(model, slide, *(spots[spots.obs["split"] == half].copy() for half in ("train", "test")))
    save_model(model, out / "model.safetensors", half=True)


def give_domain(model: nc.CPNN, slide: nc.Slide, left: AnnData, right: AnnData) -> None:
    """Fit to the spots of the left half, calibrate on those of the right half: training held nothing out."""
    predictor = Predictor(model)
    features = []
    for half in (left, right):
        centers = spatial_to_um(half.obsm["spatial"], slide.require_mappable())
        chunks = (read_patches(slide, centers[i : i + 64], model.patch) for i in range(0, len(centers), 64))
        features.append(np.concatenate([predictor.features(chunk) for chunk in chunks]))
    axes = Axes.of(features[0])
    model.domain = calibrated(axes, axes.parts(features[1]))
    model.provenance["domain"] = {
        "calibrated_on": "the right half of the sample",
        "n_train": len(features[0]),
        "n_calibration": len(features[1]),
    }


def held_out_composition(model: nc.CPNN, slide: nc.Slide, truth_path: Path, step: int = 1) -> dict[str, float]:
    """Pearson correlation of predicted and true shares over the tissue of the right half, per type and on average.

    Cells of the map count when at least 60 % of them is tissue with ten or more cells, away from fold and pen mark.
    ``step`` 2 takes every second one.
    """
    truth = np.load(truth_path)
    grid = Grid.over(slide.shape[:2], slide.require_mappable(), float(truth["stride_um"]))
    usable = (truth["tissue"] >= 0.6) & (truth["n_cells"] >= 10) & ~truth["artefact"]
    cells = np.argwhere(usable)[::step]
    cells = cells[cells[:, 1] * grid.stride_um >= slide.shape[1] * slide.require_mappable()[1] / 2]
    predictor = Predictor(model)
    weights = []
    for start in range(0, len(cells), 64):
        chunk = grid.centers_um(cells[start : start + 64])
        weights.append(predictor.predict(read_patches(slide, chunk, model.patch)).weights.astype(np.float32))
    predicted, true = np.concatenate(weights), truth["composition"][tuple(cells.T)]
    order = [model.cell_types.index(name) for name in truth["cell_types"]]
    scores = {
        str(name): float(np.corrcoef(predicted[:, i], true[:, k])[0, 1])
        for k, (name, i) in enumerate(zip(truth["cell_types"], order, strict=True))
    }
    return {**scores, "mean": float(np.mean(list(scores.values())))}
