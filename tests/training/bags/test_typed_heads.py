"""Models of typed expression: parts add up exactly, closed forms are what they claim, planted programs are found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import pearson
from napari_cpnn.prototypes import TypedExpression
from napari_cpnn.settings import TypedSettings
from napari_cpnn.training.bags import Bags
from napari_cpnn.training.bags.typed import (
    BagLinear,
    Modulated,
    TileComposition,
    TypedLabels,
    grouped_folds,
    load_typed,
    train_typed,
)

S, C, G, F = 90, 3, 40, 12
TYPES = ("cancer", "stroma", "immune")
PLANTED = 10
HEADS = ("bag-linear", "typed")


def world(seed: int = 0) -> tuple[Bags, TypedLabels, np.ndarray, np.ndarray]:
    """Bags whose patches show type and state; labels; true states ``(S, C)`` and log expression ``(S, C, G)``.

    Feature c says how much of the patch is of type c, and feature ``C + c`` the state of the type where the type is.
    """
    rng = np.random.default_rng(seed)
    shares, states = rng.dirichlet([3, 2, 2], S), rng.standard_normal((S // 2, C)).repeat(2, axis=0)
    features = []
    for n in range(S):
        kinds = rng.choice(C, 25, p=shares[n])
        X = 0.05 * rng.standard_normal((25, F))
        X[np.arange(25), kinds] += 1
        X[np.arange(25), C + kinds] += states[n, kinds]
        features.append(X)
        shares[n] = np.bincount(kinds, minlength=C) / 25
    profiles = rng.lognormal(0, 0.4, (C, G))
    profiles /= profiles.sum(axis=1, keepdims=True)
    log = np.zeros((S, C, G))
    for c in range(C):
        log[:, c, c * PLANTED : (c + 1) * PLANTED] = 0.4 * states[:, [c]]
    expression = profiles * np.exp(log)
    mean = np.einsum("sc,scg->sg", shares, expression) * rng.lognormal(0, 0.05, (S, G))
    totals = 1e6 * np.ones(S)
    names = np.array([f"s{i}" for i in range(S)])
    labels = TypedLabels(
        names,
        TYPES,
        tuple(f"G{i}" for i in range(G)),
        shares,
        np.log1p(1e4 * expression).astype(np.float32),
        profiles,
        rng.poisson(totals[:, None] * mean).astype(float),
        totals,
        np.ones((G, C)),
    )
    bags = Bags.of(features, names.tolist(), [f"p{i // 2}" for i in range(S)])
    return bags, labels, states, log


@pytest.fixture(scope="module", params=HEADS)
def trained(request):
    bags, labels, _, log = world()
    train = np.arange(60)
    return train_typed(bags.subset(train), labels.subset(train), TypedSettings(head=request.param)), bags, labels, log


def test_planted_programs_are_found_in_their_own_type(trained) -> None:
    model, bags, labels, log = trained
    test = np.arange(60, S)
    predicted = model.predict(bags.subset(test))
    for c in range(C):
        planted = slice(c * PLANTED, (c + 1) * PLANTED)
        assert pearson(predicted[:, c, planted], log[test][:, c, planted]).mean() > 0.7
    shares = model.shares(bags.subset(test))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert min(np.corrcoef(shares[:, c], labels.shares[test][:, c])[0, 1] for c in range(C)) > 0.9


def test_parts_of_patches_add_up_to_the_prediction(trained) -> None:
    model, bags, _, _ = trained
    one = bags.subset([70])
    for cell_type, gene in (("stroma", "G12"), ("immune", "G3")):
        c, g = TYPES.index(cell_type), int(gene[1:])
        mean = model.parts(one.bag(0), cell_type, gene).mean()
        if model.settings.head == "bag-linear":
            whole = model.predict(one)[0, c, g]
        else:
            whole = np.mean([member.modulation(one)[0, c, g] for member in model.members])
        assert mean == pytest.approx(whole, abs=1e-9)
    with pytest.raises(TrainingError, match="no cell type"):
        model.parts(one.bag(0), "absent", "G0")


def test_typed_head_hears_only_the_patches_of_a_type() -> None:
    bags, labels, _, _ = world()
    settings = TypedSettings()
    composition = TileComposition.fit(bags, labels.shares, settings)
    model = Modulated.fit(bags, labels, settings, composition, np.ones(G))
    features = bags.bag(3)
    parts, kinds = model.parts(features, 0, 4) - model.offset[0, 4], features[:, :C].argmax(axis=1)
    assert np.abs(parts[kinds == 0]).mean() > 4 * np.abs(parts[kinds != 0]).mean()


def linear(bags: Bags, labels: TypedLabels, settings: TypedSettings) -> BagLinear:
    composition = TileComposition.fit(bags, labels.shares, settings)
    return BagLinear.fit(bags, labels, settings, composition, np.full((C, G), 0.3))


def test_ridge_is_that_of_the_normal_equations() -> None:
    bags, labels, _, _ = world()
    settings = TypedSettings(head="bag-linear", rank=None, n_components=None)
    model = linear(bags, labels, settings)
    means = bags.means()
    X = (means - means.mean(axis=0)) / means.std(axis=0)
    penalty = 0.3 * (np.linalg.svd(X, compute_uv=False) ** 2).mean()
    for c in range(C):
        Y = labels.expression[:, c].astype(np.float64)
        A = np.linalg.solve(X.T @ X + penalty * np.eye(F), X.T @ (Y - Y.mean(axis=0)))
        np.testing.assert_allclose(model.predict(bags)[:, c], X @ A + Y.mean(axis=0), atol=1e-8)


def test_reduced_rank_is_the_best_approximation_of_fitted_values() -> None:
    bags, labels, _, _ = world()
    full = linear(bags, labels, TypedSettings(head="bag-linear", rank=None)).predict(bags)
    low = linear(bags, labels, TypedSettings(head="bag-linear", rank=2)).predict(bags)
    for c in range(C):
        fitted = full[:, c] - full[:, c].mean(axis=0)
        U, s, V = np.linalg.svd(fitted, full_matrices=False)
        best = (U[:, :2] * s[:2]) @ V[:2]
        np.testing.assert_allclose(low[:, c] - low[:, c].mean(axis=0), best, atol=1e-8)


def test_modulations_are_the_mode_of_the_written_posterior() -> None:
    """Without counting noise, a step of Fisher scoring is the ridge regression of the residual logarithm."""
    from napari_cpnn.training.bags.typed.modulated import _DETECTION, _OFFSET, _modes

    rng = np.random.default_rng(5)
    features, (_, labels, _, _) = rng.standard_normal((S, C, 4)), world()
    weights, offset, detection = _modes(features, labels, np.full((1, G), 2.0), steps=6)[0]
    modulation = np.einsum("ncp,cpg->ncg", features, weights) + offset
    typed = np.einsum("sc,cg->scg", labels.shares, labels.profiles) * np.exp(modulation) * labels.totals[:, None, None]
    # The gradient of the posterior vanishes: sum_n weight q_nc r_n m_nc = penalty u_c.
    start = np.einsum("sc,cg->sg", labels.shares, labels.profiles) * labels.totals[:, None]
    first = start * np.exp(np.log((labels.counts.sum(axis=0) + 1) / (start.sum(axis=0) + 1)))
    noise = np.maximum((((labels.counts - first) / first) ** 2 - 1 / first).mean(axis=0), 1e-3)
    mean = typed.sum(axis=1) * detection
    inverse = 1 / mean + noise
    inverse *= (1 / inverse).mean(axis=0)
    pull = (labels.counts - mean) / mean / inverse
    share = typed * detection / mean[:, None, :]
    np.testing.assert_allclose(np.einsum("ng,ncg,ncp->cpg", pull, share, features), 2.0 * weights, atol=0.05)
    np.testing.assert_allclose(np.einsum("ng,ncg->cg", pull, share), offset / _OFFSET, atol=0.05)
    assert _DETECTION > 1e3


def test_gradient_of_the_composition_is_that_of_its_loss(monkeypatch) -> None:
    bags, labels, _, _ = world()
    import napari_cpnn.training.bags.typed.composition as module

    seen = {}

    def stop(loss, start, **_):
        seen["loss"] = loss
        raise RuntimeError("seen")

    monkeypatch.setattr(module, "minimize", stop)
    with pytest.raises(RuntimeError, match="seen"):
        TileComposition.fit(bags, labels.shares, TypedSettings())
    at = 0.3 * np.random.default_rng(1).standard_normal((F + 1) * C)
    numeric = approx_fprime(at, lambda x: seen["loss"](x)[0], 1e-6)
    np.testing.assert_allclose(seen["loss"](at)[1], numeric, atol=1e-5)


def test_file_keeps_the_model(trained, tmp_path) -> None:
    model, bags, _, _ = trained
    model.save(tmp_path / "typed.safetensors")
    back = load_typed(tmp_path / "typed.safetensors")
    np.testing.assert_array_equal(back.predict(bags), model.predict(bags))
    assert (back.cell_types, back.genes, back.patients) == (model.cell_types, model.genes, model.patients)
    whole = (tmp_path / "typed.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match="damaged"):
        load_typed(tmp_path / "half.safetensors")


def test_predictions_are_a_typed_expression(trained, tmp_path) -> None:
    model, bags, _, _ = trained
    typed = model.typed_expression(bags.subset([61, 80]))
    typed.save(tmp_path / "typed.h5ad")
    back = TypedExpression.load(tmp_path / "typed.h5ad")
    assert back.trained_on == model.patients
    assert back.samples == ("s61", "s80")
    np.testing.assert_allclose(back.stacked(), np.maximum(model.predict(bags.subset([61, 80])), 0), atol=1e-5)


def test_training_slides_are_refused(trained) -> None:
    model, bags, _, _ = trained
    model.require_unseen(bags.patients[60:], bags.names[60:])
    with pytest.raises(TrainingError, match="trained on p3"):
        model.require_unseen(["p3", "p44"])


def test_a_patient_is_never_in_two_folds() -> None:
    patients = np.array([f"p{i // 3}" for i in range(60)])
    outcome = (np.arange(60) // 3 % 4 == 0).astype(int)
    fold = grouped_folds(patients, 5, 1, outcome)
    assert all(len(set(fold[patients == p])) == 1 for p in set(patients))
    assert np.bincount(fold).tolist() == [12] * 5
    assert [outcome[fold == k].sum() for k in range(5)] == [3] * 5
    with pytest.raises(TrainingError, match="30 folds"):
        grouped_folds(patients, 30)


def test_labels_in_another_order_are_refused() -> None:
    bags, labels, _, _ = world()
    with pytest.raises(TrainingError, match="same order"):
        train_typed(bags, labels.subset(np.arange(S)[::-1]))
