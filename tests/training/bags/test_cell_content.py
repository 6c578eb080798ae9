"""Where cells hold RNA by the area of their nucleus, a spot is the mean of its cells weighted by that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

import napari_cpnn as nc
from cell_world import MPP, RADIUS_UM, TYPES, CellSample, cell_world, own_cache, quick_cells
from napari_cpnn.errors import NucleiError, SettingsError, TrainingError
from napari_cpnn.nuclei import Outlines
from napari_cpnn.training.bags import fit_cells, load_slide_model, read_cell_spots
from napari_cpnn.training.bags.loop import Batch

__all__ = ["cell_world", "own_cache", "quick_cells"]

pytestmark = pytest.mark.filterwarnings("ignore:.*left out:napari_cpnn.errors.CpnnWarning")


@pytest.fixture(scope="module")
def by_area(quick_cells):
    return quick_cells.replace(rna_content="area", gene_learning_rate=0.03)


def sized(world, seed: int, exponent: float) -> CellSample:
    """A slide of the world whose nuclei have areas of any size, and spots whose cells count as area ** exponent."""
    one, rng = world.sample(seed), np.random.default_rng(seed + 100)
    centers = one.nuclei.centers_um.astype(float)
    areas = 30 * np.exp(0.8 * rng.normal(size=len(centers)))
    corners = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)]) / 2
    squares = centers[:, None] + np.sqrt(areas)[:, None, None] * corners
    nuclei = nc.Nuclei(centers, Outlines.of(squares), source="painted")
    spots = one.spots.copy()
    inside = np.linalg.norm(spot_centers(spots)[:, None] - centers[None], axis=2) <= RADIUS_UM
    sums = (inside * areas**exponent) @ np.eye(len(TYPES))[one.types]
    empty = sums.sum(axis=1) == 0
    shares = np.where(empty[:, None], 1 / len(TYPES), sums / np.where(empty, 1, sums.sum(axis=1))[:, None])
    counts = sparse.csr_matrix(rng.poisson(4000 * shares @ world.prototypes.profiles).astype(np.int32))
    spots.X, spots.layers["counts"], spots.obsm["truth"] = counts, counts.copy(), shares
    return replace(one, spots=spots, nuclei=nuclei)


def spot_centers(spots) -> np.ndarray:
    return np.asarray(spots.obsm["spatial"])[:, ::-1] * MPP


def read(world, samples, settings):
    return read_cell_spots(
        [(one.slide, one.spots) for one in samples], world.prototypes, settings, [one.nuclei for one in samples]
    )


@pytest.fixture(scope="module")
def proportional(cell_world, by_area):
    """Three slides whose cells count as their area, the last held out, and the model of them."""
    samples = [sized(cell_world, seed, 1.0) for seed in (1, 2, 3)]
    spots = read(cell_world, samples, by_area)
    return samples, spots, fit_cells(spots, cell_world.prototypes, by_area)


def test_the_exponent_is_found(proportional):
    assert proportional[2].exponent == pytest.approx(1.0, abs=0.1)


def test_where_all_cells_count_alike_the_exponent_goes_to_nothing(cell_world, by_area):
    settings = by_area.replace(validation="none")
    spots = read(cell_world, [sized(cell_world, seed, 0.0) for seed in (1, 2)], settings)
    made = fit_cells(spots, cell_world.prototypes, settings)
    assert 0 <= made.exponent < 0.1


def test_a_spot_is_the_weighted_mean_of_its_cells_in_counts_and_in_types(proportional, tmp_path):
    samples, spots, made = proportional
    one, held = samples[2], spots.labelled.bags.subset(spots.held_out)
    cells = nc.predict_cells(one.slide, made.model, one.nuclei, progress=False)
    decoder = made.model.decoder()
    T, alpha, beta, V = (
        np.asarray(v, dtype=np.float64) for v in (decoder.prototypes, decoder.alpha, decoder.beta, decoder.programs)
    )
    counts = (cells.weights.astype(float) @ T) * alpha + cells.programs.astype(float) @ V + beta
    content = (one.nuclei.areas_um2() / np.median(one.nuclei.areas_um2())) ** made.exponent
    predicted, shares = made.predict(held), made.composition(held)
    for i in (0, 30, len(held) - 1):
        spot = int(held.names[i].split("spot")[1])
        inside = np.linalg.norm(one.nuclei.centers_um - spot_centers(one.spots)[spot], axis=1) <= RADIUS_UM
        total = np.average(counts[inside], axis=0, weights=content[inside])
        np.testing.assert_allclose(predicted[i], np.log1p(1e4 * total / total.sum()), atol=0.02)  # float16
        np.testing.assert_allclose(
            shares.iloc[i], np.average(cells.weights[inside], axis=0, weights=content[inside]), atol=5e-3
        )
    truth = one.spots.obsm["truth"][[int(name.split("spot")[1]) for name in held.names]]
    alike = made.composition(replace(held, log_areas=np.zeros_like(held.log_areas)))
    assert np.abs(shares.to_numpy() - truth).mean() < 0.4 * np.abs(alike.to_numpy() - truth).mean()
    made.save(tmp_path / "cells.safetensors")
    again = load_slide_model(tmp_path / "cells.safetensors")
    assert again.exponent == made.exponent
    np.testing.assert_allclose(again.predict(held), predicted, atol=1e-6)


def test_areas_play_no_part_unless_they_are_asked_for(cell_world, quick_cells):
    settings = quick_cells.replace(epochs=2, validation="none")
    with_areas = sized(cell_world, 1, 1.0)
    without = replace(with_areas, nuclei=nc.Nuclei(with_areas.nuclei.centers_um))
    first, second = (
        fit_cells(read(cell_world, [one], settings), cell_world.prototypes, settings) for one in (with_areas, without)
    )
    assert first.model.fingerprint == second.model.fingerprint
    assert first.exponent is None
    assert "content_exponent" not in first.model.provenance


def test_content_are_weights_of_a_mean():
    rng = np.random.default_rng(0)
    values, content, owner = rng.normal(size=(9, 4)), rng.uniform(0.1, 5, 9), np.repeat([0, 1, 2], [2, 1, 6])
    batch = Batch(torch.zeros(9, 1), torch.from_numpy(owner), 3)
    expected = [np.average(values[owner == i], axis=0, weights=content[owner == i]) for i in range(3)]
    np.testing.assert_allclose(batch.mean(torch.from_numpy(values), torch.from_numpy(content)), expected)
    np.testing.assert_allclose(
        batch.mean(torch.from_numpy(values), torch.ones(9, dtype=torch.float64)), batch.mean(torch.from_numpy(values))
    )


def test_one_sentence_for_what_cannot_be(cell_world, quick_cells, by_area, proportional):
    one = cell_world.sample(1)  # centres only
    with pytest.raises(NucleiError, match="nuclei of slide1 are centres only, and rna_content 'area' needs outlines"):
        nc.train_cells([(one.slide, one.spots)], cell_world.prototypes, by_area, [one.nuclei])
    _, spots, made = proportional
    with pytest.raises(TrainingError, match="read with another rna_content than 'equal'"):
        fit_cells(spots, cell_world.prototypes, quick_cells)
    with pytest.raises(SettingsError, match="weighs cells by their nuclear area, and the bags have none"):
        made.predict(replace(spots.labelled.bags, log_areas=None))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"rna_content": "size"}, "Unknown RNA content 'size'"), ({"rna_content": "area", "head": "mlp"}, "head 'cpnn'")],
)
def test_settings_that_make_no_sense(change, words):
    with pytest.raises(SettingsError, match=words):
        nc.CellSettings(**change)
