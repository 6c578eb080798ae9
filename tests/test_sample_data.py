"""The embedded sample is complete, small, consistent with its truth, and its model knows tissue it has not seen."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import torch

import napari_cpnn as nc
from napari_cpnn.geometry import Grid, spatial_to_um
from napari_cpnn.prediction import Predictor
from napari_cpnn.slides import find_tissue, read_patches

REPO = Path(__file__).resolve().parents[1]
SAMPLE = REPO / "sample_data"
FILES = ("slide.tiff", "spots.h5ad", "cells.h5ad", "prototypes.h5ad", "model.safetensors", "truth.npz")


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    with np.load(SAMPLE / "truth.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def slide():
    with nc.open_slide(SAMPLE / "slide.tiff") as opened:
        yield opened


@pytest.fixture(scope="module")
def spots(slide):
    return nc.read_spots(SAMPLE / "spots.h5ad", slide=slide)


@pytest.fixture(scope="module")
def cells():
    return nc.read_cells(SAMPLE / "cells.h5ad")


@pytest.fixture(scope="module")
def model():
    """The packaged model; on one thread, since threads of a shared machine wait for each other at every layer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield nc.load_model(SAMPLE / "model.safetensors")
    torch.set_num_threads(threads)


def true_profiles(truth, cell_types, genes) -> np.ndarray:
    """The true prototypes for some types and genes, rows that sum to 1."""
    rows = [list(truth["cell_types"]).index(name) for name in cell_types]
    cols = [list(truth["genes"]).index(name) for name in genes]
    profiles = truth["prototypes"][np.ix_(rows, cols)]
    return profiles / profiles.sum(axis=1, keepdims=True)


def test_everything_is_there_and_small_enough_for_the_wheel():
    assert all((SAMPLE / name).is_file() for name in FILES)
    assert sum(p.stat().st_size for p in SAMPLE.iterdir()) <= 25e6


def test_slide_is_a_tiled_jpeg_pyramid_with_its_pixel_size(slide):
    assert slide.mpp == pytest.approx((0.5, 0.5))
    assert slide.shape == (12000, 12000, 3)
    assert len(slide.level_shapes) >= 3
    with tifffile.TiffFile(SAMPLE / "slide.tiff") as tiff:
        page = tiff.pages[0]
        assert page.is_tiled
        assert page.compression.name == "JPEG"
        assert page.photometric.name == "YCBCR"


def test_openslide_sees_the_same_slide(slide):
    with openslide.OpenSlide(SAMPLE / "slide.tiff") as other:
        assert other.level_count == len(slide.level_shapes)
        assert float(other.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(other.properties["openslide.mpp-y"]) == pytest.approx(0.5)
        theirs = np.asarray(other.read_region((3000, 4000), 0, (300, 200)).convert("RGB"))
    ours = slide.read_region(4000, 3000, 200, 300)
    assert ours.std() > 20  # tissue, not glass
    assert np.abs(ours.astype(int) - theirs).mean() < 2  # two JPEG decoders


def test_levels_show_the_same_tissue(slide):
    first, last = slide.levels[0], slide.levels[-1]
    factor = round(slide.downsamples[-1][0])
    region = np.asarray(first[4000 : 4000 + 40 * factor, 2000 : 2000 + 40 * factor]).astype(float)
    shrunk = region.reshape(40, factor, 40, factor, 3).mean(axis=(1, 3, 4))  # the chroma of small levels is coarse
    y, x = 4000 // factor, 2000 // factor
    likeness = {}
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            small = np.asarray(last[y + dy : y + dy + 40, x + dx : x + dx + 40]).mean(axis=-1)
            likeness[dy, dx] = np.corrcoef(shrunk.ravel(), small.ravel())[0, 1]
    assert likeness[0, 0] > 0.94  # not 1: the small level is JPEG too
    assert max(likeness, key=likeness.get) == (0, 0)


def test_tissue_is_found_where_it_was_drawn(slide, truth):
    grid = Grid.over(slide.shape[:2], slide.mpp, float(truth["stride_um"]))
    found = find_tissue(slide).coverage(grid) > 0.5
    drawn = truth["tissue"] > 0.5
    assert drawn.mean() > 0.2
    assert (found & drawn).sum() / (found | drawn).sum() > 0.9


def test_truth_is_a_composition_in_both_halves(truth):
    shares, n_cells = truth["composition"], truth["n_cells"]
    assert np.array_equal(np.isnan(shares).any(axis=-1), n_cells == 0)
    assert np.allclose(shares[n_cells > 0].sum(axis=-1), 1, atol=1e-5)
    assert len(truth["cell_types"]) >= 5
    middle = shares.shape[1] // 2
    for half in (np.s_[:, :middle], np.s_[:, middle:]):
        weights = np.nan_to_num(shares[half]) * n_cells[half][..., None]
        assert (weights.sum(axis=(0, 1)) / n_cells[half].sum() > 0.03).all()


def test_spots_follow_the_contract(spots, slide):
    assert 350 <= spots.n_obs <= 450
    counts = spots.layers["counts"]
    assert counts.format == "csr"
    assert np.array_equal(counts.data, np.rint(counts.data))
    assert {"in_tissue", "array_row", "array_col", "split"} <= set(spots.obs)
    (library,) = spots.uns["spatial"].values()
    image, scale = library["images"]["hires"], library["scalefactors"]["tissue_hires_scalef"]
    assert image.shape[:2] == pytest.approx((slide.shape[0] * scale, slide.shape[1] * scale), abs=1)
    # Centres of neighbours are 100 um apart, and the two halves do not share a patch.
    centers = spatial_to_um(spots.obsm["spatial"], slide.mpp)
    gaps = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    np.fill_diagonal(gaps, np.inf)
    assert np.median(gaps.min(axis=1)) == pytest.approx(100, abs=1)
    is_train = (spots.obs["split"] == "train").to_numpy()
    assert gaps[is_train][:, ~is_train].min() > 112
    assert (centers[is_train, 1] < 3000).all()
    assert (centers[~is_train, 1] > 3000).all()


def test_spots_agree_with_the_truth_of_their_map_cell(spots, slide, truth):
    grid = Grid.over(slide.shape[:2], slide.mpp, float(truth["stride_um"]))
    at = [grid.cell_at(y, x) for y, x in spatial_to_um(spots.obsm["spatial"], slide.mpp)]
    around = truth["composition"][tuple(np.transpose(at))]
    table = spots.obsm["true_composition"][list(truth["cell_types"])].to_numpy()
    assert np.allclose(table.sum(axis=1), 1, atol=1e-5)
    known = ~np.isnan(around).any(axis=1)
    correlations = [np.corrcoef(table[known, c], around[known, c])[0, 1] for c in range(table.shape[1])]
    # A spot sees a 55 um disc anywhere in or across the 112 um cell, so they agree, but are not the same.
    assert min(correlations) > 0.6
    assert np.mean(correlations) > 0.75


def test_counts_of_spots_reflect_prototypes_and_composition(spots, truth):
    counts = np.asarray(spots.layers["counts"].sum(axis=0)).ravel()
    names = list(truth["cell_types"])
    depth = np.asarray(spots.layers["counts"].sum(axis=1)).ravel()
    shares = depth @ spots.obsm["true_composition"][names].to_numpy() / depth.sum()
    expected = shares @ true_profiles(truth, names, spots.var_names)
    seen = counts > 50
    assert np.corrcoef(np.log(counts[seen]), np.log(expected[seen]))[0, 1] > 0.9


def test_single_cells_are_of_three_patients_and_know_their_markers(cells, truth):
    assert 2800 <= cells.n_obs <= 3200
    assert cells.obs["patient"].nunique() == 3
    assert set(cells.obs["celltype"]) == set(truth["cell_types"])
    assert (cells.obs.groupby("patient", observed=True)["celltype"].nunique() == len(truth["cell_types"])).all()
    counts = cells.layers["counts"]
    share = counts.multiply(1 / counts.sum(axis=1)).tocsc()
    markers = {
        "Cancer Epithelial": "ERBB2", "Normal Epithelial": "KRT14", "CAFs": "COL1A1", "T-cells": "CD3D",
        "B-cells": "MS4A1", "Plasmablasts": "IGHG1", "Myeloid": "CD68", "Endothelial": "PECAM1",
    }  # fmt: skip
    for cell_type, gene in markers.items():
        values = np.asarray(share[:, cells.var_names.get_loc(gene)].todense()).ravel()
        mine = (cells.obs["celltype"] == cell_type).to_numpy()
        assert values[mine].mean() > 3 * values[~mine].mean(), gene


def test_prototypes_are_those_of_the_cells_and_near_the_truth(cells, truth):
    stored = nc.Prototypes.load(SAMPLE / "prototypes.h5ad")
    settings = nc.PrototypeSettings.from_dict(stored.provenance["settings"])
    fresh = nc.estimate_prototypes(cells, cell_type="celltype", batch="patient", settings=settings)
    assert stored.genes == fresh.genes
    assert stored.cell_types == fresh.cell_types
    assert np.allclose(stored.profiles, fresh.profiles, atol=1e-6)
    for row, true in zip(stored.profiles, true_profiles(truth, stored.cell_types, stored.genes), strict=True):
        seen = (row > 1e-5) & (true > 1e-4)
        assert np.corrcoef(np.log(row[seen]), np.log(true[seen]))[0, 1] > 0.9


def test_deconvolved_spots_match_the_truth(spots):
    estimated = nc.deconvolve(spots, nc.Prototypes.load(SAMPLE / "prototypes.h5ad"))
    true = spots.obsm["true_composition"]
    assert np.mean([np.corrcoef(estimated[name], true[name])[0, 1] for name in true]) > 0.95


def test_model_knows_the_composition_of_tissue_it_has_not_seen(model, slide, truth):
    assert model.spec.backbone == "stnet"
    grid = Grid.over(slide.shape[:2], slide.mpp, float(truth["stride_um"]))
    usable = (truth["tissue"] > 0.6) & (truth["n_cells"] >= 10) & ~truth["artefact"]
    usable[:, : grid.shape[1] // 2 + 1] = False  # the left half trained the model
    cells = np.argwhere(usable)
    cells = cells[np.random.default_rng(0).permutation(len(cells))[:200]]
    assert len(cells) == 200
    weights, *_ = Predictor(model).predict(read_patches(slide, grid.centers_um(cells), model.patch))
    true = truth["composition"][tuple(cells.T)]
    scores = {
        name: np.corrcoef(weights[:, model.cell_types.index(name)].astype(float), true[:, c])[0, 1]
        for c, name in enumerate(truth["cell_types"])
    }
    assert np.mean(list(scores.values())) >= 0.8, scores
    assert min(scores.values()) > 0.5, scores


def test_model_can_tell_glass_from_tissue_like_that_of_its_training(model, slide, truth):
    assert model.provenance["domain"]["calibrated_on"] == "the right half of the sample"
    grid = Grid.over(slide.shape[:2], slide.mpp, float(truth["stride_um"]))
    scores = {}
    for name, usable in (("tissue", (truth["tissue"] > 0.6) & ~truth["artefact"]), ("glass", truth["tissue"] == 0)):
        cells = np.argwhere(usable)
        cells = cells[np.random.default_rng(0).permutation(len(cells))[:40]]
        scores[name] = Predictor(model).predict(read_patches(slide, grid.centers_um(cells), model.patch)).out_of_domain
    assert 0.25 < np.median(scores["tissue"]) < 0.7
    assert (scores["tissue"] > 0.95).mean() < 0.15
    assert scores["glass"].min() > 0.95


def test_model_predicts_genes_of_held_out_spots(model, slide, spots):
    scores = nc.evaluate(model, slide, spots[spots.obs["split"] == "test"][::2].copy())
    assert scores.loc[["EPCAM", "COL1A1", "CD3D"], "pcc"].min() > 0.5
    assert scores["pcc"].mean() > 0.1


@pytest.mark.slow
def test_script_gives_the_same_bytes_whatever_the_number_of_processes(tmp_path):
    script = REPO / "scripts" / "make_sample_data.py"
    runs = [
        subprocess.Popen(
            [sys.executable, script, "--size", "1500", "--no-model", "--out", tmp_path / n, "--workers", n],
            stdout=subprocess.DEVNULL,
        )
        for n in ("1", "2")
    ]
    assert [run.wait() for run in runs] == [0, 0]
    digests = [
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((tmp_path / n).iterdir())}
        for n in ("1", "2")
    ]
    assert set(digests[0]) == {"slide.tiff", "truth.npz", "spots.h5ad", "cells.h5ad"}
    assert digests[0] == digests[1]
