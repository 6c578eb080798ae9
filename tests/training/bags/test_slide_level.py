"""Models of slides learn from one bulk profile per bag."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from napari_cpnn.errors import CheckpointError, PrototypesError, SettingsError, TrainingError
from napari_cpnn.settings import SLIDE_HEADS, SlideLevelSettings
from napari_cpnn.studies import cross_validate_slides, evaluate_slides, slide_folds, summarise_slides
from napari_cpnn.training.bags import (
    Bags,
    fit_ridge,
    label_bags,
    load_slide_model,
    log1p_cp10k,
    nb_loss,
    spot_model,
    train_slides,
)
from napari_cpnn.training.bags.loop import batch_of, validation_rows
from napari_cpnn.training.bags.networks import bag_softmax


@pytest.fixture(scope="module")
def trained(bulk_world, quick_bags):
    return train_slides(bulk_world.bags.subset(range(45)), bulk_world.bulk, bulk_world.prototypes, quick_bags)


def test_the_likelihood_is_scipys():
    rng = np.random.default_rng(0)
    y, p = rng.poisson(50, (4, 6)).astype(float), rng.dirichlet(np.ones(6), 4)
    theta = np.exp(rng.normal(size=6))
    mu = y.sum(axis=1, keepdims=True) * p
    expected = -stats.nbinom.logpmf(y, theta, theta / (theta + mu))
    got = nb_loss(torch.from_numpy(y), torch.from_numpy(p), torch.from_numpy(np.log(theta)))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)


def test_ridge_in_closed_form_is_the_same_as_fits_without_each_patient():
    rng = np.random.default_rng(1)
    X, groups = rng.normal(size=(30, 8)), np.repeat(np.arange(10), 3)
    Y = X @ rng.normal(size=(8, 5)) + rng.normal(0, 1, (30, 5)) + 7
    fitted = fit_ridge(X, Y, groups, 5)

    def plain(x, y, penalty):
        xc, yc = x - x.mean(0), y - y.mean(0)
        b = np.linalg.solve(xc.T @ xc + penalty * np.eye(8), xc.T @ yc)
        return b, y.mean(0) - x.mean(0) @ b

    np.testing.assert_allclose(fitted.coefficients, plain(X, Y, fitted.penalty)[0], rtol=1e-8)
    np.testing.assert_allclose(fitted.intercept, plain(X, Y, fitted.penalty)[1], rtol=1e-8)
    assert fitted.errors[fitted.penalty] == min(fitted.errors.values())
    # The centre of the features is that of all rows in the closed form; the exact refit with it fixed:
    for penalty, error in fitted.errors.items():
        left = np.empty_like(Y)
        for g in range(10):
            out, kept = groups == g, groups != g
            design = np.c_[np.ones(30), X - X.mean(0)]
            ridge = np.diag([0.0] + [penalty] * 8)
            b = np.linalg.solve(design[kept].T @ design[kept] + ridge, design[kept].T @ Y[kept])
            left[out] = Y[out] - design[out] @ b
        np.testing.assert_allclose(error, ((left**2).mean(0) / Y.var(0)).mean(), rtol=1e-8)


def test_the_composition_is_learned_from_bulk_alone(bulk_world, trained):
    test = bulk_world.bags.subset(range(45, 60))
    shares = trained.composition(test).to_numpy()
    for c in range(3):
        assert np.corrcoef(shares[:, c], bulk_world.truth[45:, c])[0, 1] > 0.9
    assert np.abs(shares - bulk_world.truth[45:]).mean() < 0.1
    with torch.no_grad():  # the patches were never labelled
        weights = trained.model.head_outputs(trained.model.views(torch.from_numpy(test.features))[0])[0].numpy()
    at = bulk_world.bags.starts[45]
    assert np.corrcoef(weights.ravel(), bulk_world.tiles[at:].ravel())[0, 1] > 0.85


def test_rows_of_the_prototypes_sum_to_1_and_the_model_is_on_the_count_scale(trained):
    assert trained.model.spec.scale == "count"
    np.testing.assert_allclose(trained.model.prototypes.detach().sum(dim=1), 1, rtol=1e-5)
    decoder = trained.model.decoder()
    assert (decoder.alpha > 0).all()
    assert (decoder.beta > 0).all()


def test_all_patches_are_used_and_a_slide_needs_only_its_mean_weights(bulk_world, trained):
    bags = bulk_world.bags.subset([50, 51])
    with torch.no_grad():
        w, _ = trained.model.head_outputs(trained.model.views(torch.from_numpy(bags.features))[0])
    T, alpha, beta, _ = (t.detach().double().numpy() for t in trained.model.head.coefficients())
    for i in range(2):
        rows = slice(bags.starts[i], bags.starts[i + 1])
        counts = (w[rows].double().numpy() @ T * alpha + beta).sum(axis=0)  # eq. 1: a sum over all patches
        np.testing.assert_allclose(trained.predict(bags)[i], np.log1p(1e4 * counts / counts.sum()), rtol=1e-4)


def test_the_same_seed_gives_the_same_model(bulk_world, quick_bags):
    few = quick_bags.replace(epochs=2)
    bags = bulk_world.bags.subset(range(20))
    first, again, other = (
        train_slides(bags, bulk_world.bulk, bulk_world.prototypes, few.replace(seed=seed)).model for seed in (1, 1, 2)
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize("head", list(SLIDE_HEADS))
def test_every_head_predicts_other_patients_and_comes_back_from_its_file(bulk_world, quick_bags, head, tmp_path):
    settings = quick_bags.replace(head=head, epochs=30)
    path = tmp_path / "one.safetensors"
    model = train_slides(bulk_world.bags.subset(range(45)), bulk_world.bulk, bulk_world.prototypes, settings, out=path)
    test = bulk_world.bags.subset(range(45, 60))
    scores = summarise_slides(evaluate_slides(model, test, bulk_world.bulk))
    assert scores.loc[head, "pcc"] > 0.6
    again = load_slide_model(path)
    assert again.head == head
    assert again.genes == model.genes
    np.testing.assert_allclose(again.predict(test), model.predict(test), rtol=1e-5, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["one.safetensors"]


def test_scores_are_those_of_scipy_on_log1p_cp10k(bulk_world, trained):
    test = bulk_world.bags.subset(range(45, 60))
    table = evaluate_slides(trained, test, bulk_world.bulk, genes=["GENE7", "GENE3"]).set_index("gene")
    counts = bulk_world.bulk.layers["counts"][45:].astype(float)
    measured = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    for g in (7, 3):
        predicted = trained.predict(test)[:, g]
        assert np.isclose(table.loc[f"GENE{g}", "pcc"], stats.pearsonr(predicted, measured[:, g]).statistic)
        assert np.isclose(table.loc[f"GENE{g}", "scc"], stats.spearmanr(predicted, measured[:, g]).statistic)


def test_patients_are_never_split(bulk_world, quick_bags):
    for fold in slide_folds(bulk_world.bags, 4):
        assert not set(bulk_world.bags.patients[fold.test]) & set(bulk_world.bags.patients[fold.train])
    held = validation_rows(bulk_world.bags, quick_bags)
    assert len(held) == 12
    assert not set(bulk_world.bags.patients[held]) & set(np.delete(bulk_world.bags.patients, held))
    with pytest.raises(TrainingError, match="20 patients cannot be split into 21 folds"):
        slide_folds(bulk_world.bags, 21)


def test_cross_validation_compares_heads_in_the_same_folds(bulk_world, quick_bags):
    table = cross_validate_slides(
        bulk_world.bags, bulk_world.bulk, bulk_world.prototypes,
        {"ridge": quick_bags.replace(head="ridge"), "short": quick_bags.replace(epochs=1)}, n_folds=2,
    )  # fmt: skip
    assert table.groupby(["head", "fold"]).size().tolist() == [50] * 4
    means = summarise_slides(table)
    assert means.loc["ridge", "pcc"] > 0.6


@pytest.mark.parametrize("name", SlideLevelSettings.ablations())
def test_ablations_switch_what_they_name(bulk_world, quick_bags, name):
    settings = SlideLevelSettings.ablation(name, encoder="colour", patch=quick_bags.patch, epochs=2, hidden=8)
    model = train_slides(bulk_world.bags.subset(range(20)), bulk_world.bulk, bulk_world.prototypes, settings).model
    start = bulk_world.prototypes.profiles
    moved = np.abs(model.prototypes.detach().numpy() - start / start.sum(axis=1, keepdims=True)).max()
    if "U" in name.split("/o ")[-1].replace(" ", "").split(","):
        assert moved < 1e-3  # fixed, but for the floor of what is never expressed
    elif "PI" in name:
        assert moved > 0.01
    assert bool(np.ptp(model.decoder().alpha) < 1e-3) == (not settings.scale_shift)


def with_spots(world, seed: int) -> tuple[tuple[Bags, ad.AnnData], np.ndarray, Bags]:
    """200 spots with another detection of genes than bulk, that detection, and three bags; all drawn by the seed."""
    bags, bulk, rng = world.bags, world.bulk, np.random.default_rng(5 + seed)
    rows = rng.choice(bags.starts[45], 200, replace=False)
    spots = Bags.of([bags.features[[r]] for r in rows], [f"spot {r}" for r in rows])
    bias = np.exp(rng.normal(0, 1.0, 50))
    p = (world.tiles[rows] @ world.prototypes.profiles) * bias
    y = rng.poisson(3000 * p / p.sum(axis=1, keepdims=True)).astype(np.int32)
    table = ad.AnnData(
        y, obs=pd.DataFrame(index=spots.names.tolist()), var=pd.DataFrame(index=list(bulk.var_names)),
        layers={"counts": y},
    )  # fmt: skip
    return (spots, table), bias, bags.subset(rng.choice(45, 3, replace=False))


@pytest.mark.slow  # the next test learns from both, too
def test_spots_beside_few_bags_tell_the_composition(bulk_world, quick_bags):
    """Mean of three draws: which three bags there are matters so much that one draw says little."""
    test, truth, found = bulk_world.bags.subset(range(45, 60)), bulk_world.truth[45:], []
    for seed in range(3):
        spots, _, few = with_spots(bulk_world, seed)
        both = [
            train_slides(few, bulk_world.bulk, bulk_world.prototypes, quick_bags.replace(seed=seed), **more)
            for more in ({"spots": spots}, {})
        ]
        shares = [one.composition(test).to_numpy() for one in both]
        found.append([np.mean([np.corrcoef(w[:, c], truth[:, c])[0, 1] for c in range(3)]) for w in shares])
    mixed, alone = np.mean(found, axis=0)
    assert mixed > 0.95
    assert mixed > alone + 0.1


def test_spots_and_bulk_share_prototypes_and_network(bulk_world, quick_bags, tmp_path):
    spots, bias, _ = with_spots(bulk_world, 0)
    path = tmp_path / "mixed.safetensors"
    few = bulk_world.bags.subset(range(20))
    mixed = train_slides(few, bulk_world.bulk, bulk_world.prototypes, quick_bags, spots=spots, out=path)
    for one in (mixed, load_slide_model(path)):
        of_spots = spot_model(one)
        assert torch.equal(of_spots.prototypes, one.model.prototypes)
        assert torch.equal(of_spots.head.composition[0].weight, one.model.head.composition[0].weight)
        ratio = np.log(of_spots.decoder().alpha / one.model.decoder().alpha)
        assert np.corrcoef(ratio, np.log(bias))[0, 1] > 0.8  # what differs is the modality
    alone = train_slides(few, bulk_world.bulk, bulk_world.prototypes, quick_bags.replace(epochs=1))
    with pytest.raises(SettingsError, match="not trained on spots"):
        spot_model(alone)


def test_attention_sums_to_1_in_each_bag(bulk_world):
    bags = bulk_world.bags
    batch = batch_of(bags, np.array([3, 7, 1]), torch.from_numpy(bags.features))
    weights = bag_softmax(torch.randn(len(batch.features), generator=torch.Generator().manual_seed(0)) * 50, batch)
    sums = torch.zeros(3).index_add(0, batch.owner, weights)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)


def test_a_draw_takes_different_patches_of_the_bag_and_never_more(bulk_world):
    bags = bulk_world.bags
    rng = np.random.default_rng(0)
    index = np.arange(5)
    a, b = (batch_of(bags, index, torch.from_numpy(bags.features), 10, rng) for _ in range(2))
    assert torch.bincount(a.owner).tolist() == [10] * 5
    assert not torch.equal(a.features, b.features)
    for i in range(5):
        of_bag = {row.tobytes() for row in bags.bag(i)}
        assert {row.numpy().tobytes() for row in a.features[a.owner == i]} <= of_bag


def test_what_does_not_fit_is_said(bulk_world, quick_bags, tmp_path):
    bags, bulk, protos = bulk_world.bags, bulk_world.bulk, bulk_world.prototypes
    with pytest.raises(TrainingError, match="Bag sample 0 is not in the bulk table"):
        train_slides(bags, bulk[5:].copy(), protos, quick_bags)
    with pytest.raises(PrototypesError, match="needs prototypes"):
        train_slides(bags, bulk, None, quick_bags)
    with pytest.raises(SettingsError, match="Only the head 'cpnn'"):
        train_slides(bags, bulk, protos, quick_bags.replace(head="ridge"), spots=(bags, bulk))
    empty = bulk.copy()
    empty.layers["counts"] = empty.layers["counts"].copy()
    empty.layers["counts"][3] = 0
    with pytest.raises(TrainingError, match="sample of bag sample 3 has no counts"):
        label_bags(bags, empty, None, list(bulk.var_names))
    with pytest.raises(TrainingError, match="at least 3"):
        evaluate_slides(train_slides(bags, bulk, protos, quick_bags.replace(head="ridge")), bags.subset([1]), bulk)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a napari-cpnn model"):
        load_slide_model(broken)


def test_shares_of_bags_are_those_of_their_rna(bulk_world):
    one = label_bags(bulk_world.bags, bulk_world.bulk, bulk_world.prototypes, list(bulk_world.bulk.var_names))
    np.testing.assert_allclose(one.shares.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(one.expression, log1p_cp10k(bulk_world.bulk.layers["counts"].astype(np.float32)))
