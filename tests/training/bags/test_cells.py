"""Single cells are learned from spots, of which only the sum of the cells is known."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import napari_cpnn as nc
from cell_world import RADIUS_UM, TYPES, cell_world, own_cache, quick_cells
from napari_cpnn.errors import CellMapError, MappingError, NucleiError, SettingsError, TrainingError
from napari_cpnn.models import build_model, read_card
from napari_cpnn.prediction import PlacePredictor, Predictor
from napari_cpnn.training.bags import BagReader, fit_cells, load_slide_model, read_cell_spots
from napari_cpnn.training.bags.cell_heads import correlation_loss
from napari_cpnn.training.bags.cell_spots import cell_model

__all__ = ["cell_world", "own_cache", "quick_cells"]


@pytest.fixture(scope="module")
def known(cell_world):
    return [cell_world.sample(1), cell_world.sample(2)]


@pytest.fixture(scope="module")
def unseen(cell_world):
    return cell_world.sample(3)


@pytest.fixture(scope="module")
def pairs(known):
    return [(one.slide, one.spots) for one in known], [one.nuclei for one in known]


@pytest.fixture(scope="module")
def trained(cell_world, pairs, quick_cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "cells.safetensors"
    with pytest.warns(
        nc.errors.CpnnWarning, match=r"2 spots with no nucleus inside are left out \(slide1 1, slide2 1\)"
    ):
        model = nc.train_cells(pairs[0], cell_world.prototypes, quick_cells, pairs[1], out=path)
    return model, path


@pytest.fixture(scope="module")
def cells(trained, unseen):
    return nc.predict_cells(unseen.slide, trained[0], unseen.nuclei, progress=False)


def test_the_types_of_cells_are_learned_from_spots_alone(cells, unseen):
    found = cells.dominant()
    recalls = [(found[unseen.types == c] == c).mean() for c in range(len(TYPES))]
    assert np.mean(recalls) > 0.9
    genes = [f"GENE{i}" for i in range(40)]
    best = [gene for gene in genes if np.corrcoef(cells.expression(gene), unseen.types == 0)[0, 1] > 0.8]
    assert best  # genes of a type are high in its cells


def test_a_spot_is_the_mean_of_its_cells_in_counts(cell_world, pairs, quick_cells, unseen):
    samples, nuclei = [*pairs[0], (unseen.slide, unseen.spots)], [*pairs[1], unseen.nuclei]
    with pytest.warns(nc.errors.CpnnWarning, match="left out"):
        read = read_cell_spots(samples, cell_world.prototypes, quick_cells, nuclei)
    made = fit_cells(read, cell_world.prototypes, quick_cells)
    assert read.held_out_name == "slide3"
    cells = nc.predict_cells(unseen.slide, made.model, unseen.nuclei, progress=False)
    decoder = made.model.decoder()
    T, alpha, beta, V = (
        np.asarray(v, dtype=np.float64) for v in (decoder.prototypes, decoder.alpha, decoder.beta, decoder.programs)
    )
    counts = (cells.weights.astype(float) @ T) * alpha + cells.programs.astype(float) @ V + beta  # of every cell
    centers = unseen.spots.obsm["spatial"][:, ::-1] * 0.5
    held = read.labelled.bags.subset(read.held_out)
    predicted = made.predict(held)
    for i in (0, 30, len(held) - 1):
        spot = int(held.names[i].split("spot")[1])
        inside = np.linalg.norm(unseen.nuclei.centers_um - centers[spot], axis=1) <= RADIUS_UM
        assert len(held.bag(i)) == inside.sum()
        total = counts[inside].mean(axis=0)
        np.testing.assert_allclose(predicted[i], np.log1p(1e4 * total / total.sum()), atol=0.02)  # float16
    scores = made.model.provenance["metrics"]["held_out"]
    assert scores["slide"] == "slide3"
    assert scores["pcc_mean"] > 0.5
    assert len(read.labelled.bags) == 3 * 71  # of 72 spots a slide one has no nucleus
    assert read.n_empty.tolist() == [1, 1, 1]


def test_calibration_gives_the_scale_that_correlations_do_not_know(trained, unseen, cells):
    in_spots = np.expm1(np.stack([cells.expression(gene) for gene in trained[0].genes], axis=1)).mean(axis=0)
    counts = unseen.spots.layers["counts"].toarray()[:-1, :].astype(float)
    measured = (1e4 * counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    assert np.corrcoef(in_spots, measured)[0, 1] > 0.95
    assert 0.7 < in_spots.sum() / measured.sum() < 1.4


def test_the_card_says_what_a_cell_model_knows(trained, cell_world, known):
    model, path = trained
    card = read_card(path)
    assert card["format_version"] == 6  # programs that read up to 5 say that they are too old
    assert card["model"]["sees"] == "nucleus"
    about = card["provenance"]["cells"]
    assert about["n_spots"] == 142
    assert about["n_spots_without_nuclei"] == 2
    assert about["radius_um"] == [RADIUS_UM, RADIUS_UM]
    assert card["provenance"]["training_data"][0] == {"slide": "slide1", "n_spots": 71}
    assert "metrics" in card["provenance"]
    between = card["provenance"]["between_types"]
    assert set(between) == set(model.genes)
    again = nc.load_model(path)
    assert again.fingerprint == model.fingerprint
    assert again.input_kind == "nucleus"
    assert again.domain is not None


def test_a_map_of_patches_refuses_it_and_the_other_way_round(trained, unseen, cells):
    model, path = trained
    loaded = nc.load_model(path)
    with pytest.raises(MappingError, match=r"model cells .* was trained on single nuclei and has no map of patches"):
        nc.predict_map(unseen.slide, loaded)
    with pytest.raises(MappingError, match="single nuclei"):
        PlacePredictor(unseen.slide, model, Predictor(model))
    with pytest.raises(MappingError, match="single nuclei"):
        BagReader(model).grid(unseen.slide)
    settings = nc.TrainingSettings(backbone="frozen", encoder="colour", head="linear", patch=nc.PatchSpec(224, 0.5))
    of_patches = build_model(settings, ["A"], [], None, [0.0])
    with pytest.raises(CellMapError, match="was trained on patches of 112 um, not on nuclei"):
        nc.predict_cells(unseen.slide, of_patches, unseen.nuclei)


def test_a_cell_has_the_same_numbers_among_any_others_and_from_the_cache(trained, unseen, cells):
    order = np.random.default_rng(0).permutation(len(unseen.nuclei))[:301]
    for keep in (False, True, True):
        some = nc.predict_cells(unseen.slide, trained[0], unseen.nuclei.subset(order), progress=False, keep=keep)
        np.testing.assert_array_equal(some.weights, cells.weights[order])
        np.testing.assert_array_equal(some.programs, cells.programs[order])
        np.testing.assert_array_equal(some.out_of_domain, cells.out_of_domain[order])
    part = nc.predict_cells(unseen.slide, trained[0], unseen.nuclei, (50, 60, 200, 210), progress=False)
    inside = unseen.nuclei.query((50, 60, 200, 210))
    np.testing.assert_array_equal(part.weights, cells.weights[inside])


def test_tissue_of_another_colour_is_unlike_the_training(trained, unseen, cells):
    assert 0.2 < np.median(cells.out_of_domain) < 0.8
    green = nc.Slide.from_arrays([np.asarray(unseen.slide.levels[0])[..., [1, 0, 2]]], 0.5, name="green")
    other = nc.predict_cells(green, trained[0], unseen.nuclei, progress=False)
    assert np.median(other.out_of_domain) > 0.99


def test_genes_that_types_hardly_tell_are_marked(trained, cells, cell_world):
    shares = nc.variance_between_types(cell_world.prototypes.select(trained[0].genes))
    low = {gene for gene, share in zip(trained[0].genes, shares, strict=True) if share < 0.1}
    assert low
    assert set(cells.poorly_told()) == low
    table = cells.to_anndata()
    np.testing.assert_allclose(table.var["between_types"], shares, atol=1e-4)
    assert "between_types" not in table.uns["napari_cpnn"]


def test_training_is_deterministic(cell_world, pairs, quick_cells):
    settings = quick_cells.replace(epochs=2, validation="none")
    with pytest.warns(nc.errors.CpnnWarning, match="left out"):
        read = read_cell_spots(*_one(pairs, cell_world, settings))
    first, second = (fit_cells(read, cell_world.prototypes, settings).model for _ in range(2))
    assert first.fingerprint == second.fingerprint


def test_a_single_slide_is_split_into_quarters_a_spot_and_a_crop_apart(cell_world, known, quick_cells):
    one = known[0]
    with pytest.warns(nc.errors.CpnnWarning, match="1 spot with no nucleus inside is left out"):
        read = read_cell_spots([(one.slide, one.spots)], cell_world.prototypes, quick_cells, [one.nuclei])
    assert read.held_out_name == "a quarter of slide1"
    x = one.spots.obsm["spatial"][:, 0] * 0.5
    where = {name: x[int(name.split("spot")[1])] for name in read.labelled.bags.names.tolist()}
    names = read.labelled.bags.names
    assert read.left_out.pop("no nucleus inside") == 1
    assert list(read.left_out) == ["between the training spots and the held-out quarter"]
    assert len(names) + 1 + sum(read.left_out.values()) == one.spots.n_obs
    assert min(where[n] for n in names[read.held_out]) - max(where[n] for n in names[read.train]) >= 2 * RADIUS_UM + 12


@pytest.mark.parametrize("head", ["cpnn", "mlp"])
def test_spots_that_are_neither_trained_on_nor_held_out_play_no_part(cell_world, pairs, quick_cells, head):
    settings = quick_cells.replace(head=head, epochs=1, validation="slide2")
    with pytest.warns(nc.errors.CpnnWarning, match="left out"):
        read = read_cell_spots(pairs[0], cell_world.prototypes, settings, pairs[1])
    alone = replace(read, held_out=np.zeros(0, dtype=np.intp), held_out_name="")
    counts = read.labelled.counts.copy()
    counts[read.held_out] = counts[read.held_out][:, ::-1]
    features = read.labelled.bags.features.copy()
    features[np.isin(read.labelled.bags.owners, read.held_out)] = 1000.0
    other = replace(read.labelled, counts=counts, bags=replace(read.labelled.bags, features=features))
    first, second = (
        fit_cells(one, cell_world.prototypes, settings).predict(read.labelled.bags)
        for one in (alone, replace(alone, labelled=other))
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("loss", ["pcc", "mse"])
def test_the_baseline_learns_spots_and_is_kept(cell_world, pairs, quick_cells, unseen, loss, tmp_path):
    samples, nuclei = [*pairs[0], (unseen.slide, unseen.spots)], [*pairs[1], unseen.nuclei]
    settings = quick_cells.replace(head="mlp", loss=loss, epochs=20)
    with pytest.warns(nc.errors.CpnnWarning, match="left out"):
        read = read_cell_spots(samples, cell_world.prototypes, settings, nuclei)
    made = fit_cells(read, cell_world.prototypes, settings)
    assert made.model.provenance["metrics"]["held_out"]["pcc_mean"] > 0.5
    held = read.labelled.bags.subset(read.held_out)
    made.save(tmp_path / "mlp.safetensors")
    np.testing.assert_allclose(
        load_slide_model(tmp_path / "mlp.safetensors").predict(held), made.predict(held), atol=1e-5
    )
    spots = made.predict(held.subset([4]))[0]
    single = made.predict(_cell_by_cell(held, 4))
    mean = single.mean(axis=0) if loss == "mse" else np.log1p(np.expm1(single).mean(axis=0))
    np.testing.assert_allclose(spots, mean, rtol=1e-4, atol=1e-6)  # of logarithms in sCellST, of counts in ours


def test_the_likelihood_learns_too(cell_world, pairs, quick_cells, unseen):
    settings = quick_cells.replace(loss="nb", validation="none", epochs=20)
    with pytest.warns(nc.errors.CpnnWarning, match="left out"):
        model = nc.train_cells(pairs[0], cell_world.prototypes, settings, pairs[1])
    found = nc.predict_cells(unseen.slide, model, unseen.nuclei, progress=False).dominant()
    assert np.mean([(found[unseen.types == c] == c).mean() for c in range(3)]) > 0.8


def test_no_other_crop_is_advised_than_that_of_a_nucleus():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cell_model(nc.CellSettings(device="cpu")).patch == nc.CellSettings().patch


def test_correlations_are_those_within_slides():
    rng = np.random.default_rng(0)
    predicted, measured = rng.normal(size=(2, 12, 4))
    slides = np.array([0] * 5 + [1] * 6 + [2])  # one spot has no correlation
    parts = [
        n * np.mean([1 - np.corrcoef(predicted[rows, g], measured[rows, g])[0, 1] for g in range(4)])
        for n, rows in ((5, slides == 0), (6, slides == 1))
    ]
    got = correlation_loss(*(torch.from_numpy(v) for v in (predicted, measured, slides)))
    assert float(got) == pytest.approx(sum(parts) / 11, rel=1e-6)


def test_the_share_between_types_is_that_of_drawn_cells():
    rng = np.random.default_rng(0)
    profiles = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], dtype=np.float32)
    n, theta = np.array([3000, 1000]), np.array([4.0, 2.0, 1.0], dtype=np.float32)
    protos = nc.Prototypes(profiles, ("a", "b"), ("x", "y", "z"), n, {}, theta)
    types = np.repeat([0, 1], n * 25)
    rates = profiles[types] * rng.gamma(theta, 1 / theta, (len(types), 3))
    means = np.stack([rates[types == c].mean(axis=0) for c in (0, 1)])[types]
    np.testing.assert_allclose(nc.variance_between_types(protos), means.var(axis=0) / rates.var(axis=0), atol=0.02)
    without = nc.Prototypes(profiles, ("a", "b"), ("x", "y", "z"), n, {})
    assert np.isnan(nc.variance_between_types(without)).all()


def test_one_sentence_for_what_cannot_be(cell_world, pairs, quick_cells, known, trained, unseen):
    protos, one = cell_world.prototypes, known[0]
    with pytest.raises(TrainingError, match="There are 2 slides and nuclei of 1"):
        nc.train_cells(pairs[0], protos, quick_cells, pairs[1][:1])
    far = nc.Nuclei([[399.0, 449.0]])
    with pytest.raises(TrainingError, match="None of the 72 spots of slide1 has a nucleus in it"):
        nc.train_cells([(one.slide, one.spots)], protos, quick_cells, [nc.Nuclei(np.zeros((0, 2)))])
    with pytest.raises(NucleiError, match="lie outside"):
        nc.train_cells([(one.slide, one.spots)], protos, quick_cells, [nc.Nuclei([[9999.0, 5.0]])])
    bare = one.spots.copy()
    del bare.uns["spatial"]
    with pytest.raises(SettingsError, match="do not say how large they are; give radius_um"):
        nc.train_cells([(one.slide, bare)], protos, quick_cells, [one.nuclei])
    with pytest.raises(SettingsError, match="'mlp' is a baseline"):
        nc.train_cells(pairs[0], protos, quick_cells.replace(head="mlp"), pairs[1])
    coarse = nc.Slide.from_arrays([np.asarray(one.slide.levels[0])[::4, ::4].copy()], 2.0, name="coarse")
    with pytest.raises(NucleiError, match="pixels of 2 um"):
        nc.predict_cells(coarse, trained[0], far)
    with pytest.raises(CellMapError, match="no nucleus in the region"):
        nc.predict_cells(unseen.slide, trained[0], unseen.nuclei, (0, 0, 0.5, 0.5), progress=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head": "ridge"}, "Unknown head 'ridge'"),
        ({"loss": "mse"}, "'mse' is that of the head 'mlp'"),
        ({"radius_um": 0.0}, "must be a positive number"),
        ({"composition_weight": -1.0}, "cannot be negative"),
        ({"batch_spots": 1}, "a batch needs two spots"),
    ],
)
def test_settings_that_make_no_sense(change, words):
    with pytest.raises(SettingsError, match=words):
        nc.CellSettings(**change)


def _one(pairs, cell_world, settings):
    return [pairs[0][0]], cell_world.prototypes, settings, [pairs[1][0]]


def _cell_by_cell(bags, i):
    from napari_cpnn.training.bags import Bags

    rows = bags.bag(i)
    return Bags.of([row[None] for row in rows], [f"cell {k}" for k in range(len(rows))])
