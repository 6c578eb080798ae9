from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from margins import SEED, less_than
from napari_cpnn.errors import GenesError, PrototypesError, SettingsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import CPNN, build_model, composition_penalty, pcc_loss, predict_symmetric, prototype_penalty
from napari_cpnn.settings import TrainingSettings


def forward(model: CPNN, patches: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return model(model.normalize(patches))


def test_weights_are_a_composition_and_shapes_fit(model: CPNN, patches: np.ndarray) -> None:
    weights, programs = forward(model, patches)
    assert weights.shape == (5, 3)
    assert programs.shape == (5, 4)
    assert weights.dtype == programs.dtype == torch.float32
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))
    assert model.decode(weights, programs).shape == (5, len(model.genes))
    assert (model.n_programs, model.patch) == (4, PatchSpec(64, 1.0))


def test_two_predictions_of_one_patch_are_bit_equal(model: CPNN, patches: np.ndarray) -> None:
    first, second = forward(model, patches), forward(model, patches)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_normalize_takes_both_axis_orders(model: CPNN, patches: np.ndarray) -> None:
    expected = (patches / 255 - np.array(model.mean)) / np.array(model.std)
    got = model.normalize(patches)
    np.testing.assert_allclose(got.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)
    assert got.is_contiguous(memory_format=torch.channels_last)
    channels_first = torch.from_numpy(np.ascontiguousarray(patches.transpose(0, 3, 1, 2)))
    assert torch.equal(model.normalize(channels_first), got)
    read_only = patches.copy()
    read_only.flags.writeable = False
    before = read_only.copy()
    assert torch.equal(model.normalize(read_only), got)
    np.testing.assert_array_equal(read_only, before)
    for wrong in (patches[0], patches.astype(np.float32), patches[..., :2]):
        with pytest.raises(ValueError, match="uint8"):
            model.normalize(wrong)


def test_prediction_starts_at_the_mean_expression(
    model: CPNN, profiles: np.ndarray, mean_expression: np.ndarray
) -> None:
    """By the formula of the paper with T0 in place of T; its zeros start at a thousandth of an even profile."""
    even, none = torch.full((1, 3), 1 / 3), torch.zeros(1, 4)
    np.testing.assert_allclose(model.decode(even, none)[0].detach().numpy(), mean_expression, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(model.prototypes.detach().numpy(), profiles, atol=1e-4)
    np.testing.assert_allclose(model.prototypes.sum(dim=1).detach().numpy(), 1, rtol=1e-6)
    one_type = model.decode(torch.tensor([[0.0, 1.0, 0.0]]), none)[0].detach().numpy()
    floored = np.maximum(profiles, 1e-3 / 40)
    floored /= floored.sum(axis=1, keepdims=True)
    ratio = floored[1] / floored.mean(axis=0)
    np.testing.assert_allclose(one_type, mean_expression * (0.9 * ratio + 0.1), rtol=1e-4, atol=3e-3)


def test_decode_equals_the_numpy_decoder(model: CPNN, patches: np.ndarray, rng: np.random.Generator) -> None:
    model.scale.copy_(torch.from_numpy(rng.uniform(0, 2, 40)))
    model.shift.copy_(torch.from_numpy(rng.normal(size=40)))
    weights, programs = forward(model, patches)
    decoder = model.decoder()
    expected = model.decode(weights, programs).detach().numpy()
    got = decoder.expression(weights.numpy(), programs.numpy(), model.genes)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    some = ["GENE30", "GENE2"]
    np.testing.assert_allclose(
        model.decode(weights, programs, some).detach().numpy(), expected[:, [30, 2]], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(GenesError, match="does not have ERBB2"):
        model.decode(weights, programs, ["GENE1", "ERBB2"])


def test_head_and_decoding_stay_in_float32_under_autocast(model: CPNN, patches: np.ndarray) -> None:
    images = model.normalize(patches)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        weights, programs = model(images)
        expression = model.decode(weights, programs)
    assert weights.dtype == programs.dtype == expression.dtype == torch.float32
    with torch.inference_mode():
        assert torch.equal(expression, model.decode(weights, programs))
        full, _ = model(images)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))
    torch.testing.assert_close(weights, full, atol=0.01, rtol=0)


def test_linear_head_is_a_linear_layer_on_the_features(
    linear_model: CPNN, patches: np.ndarray, mean_expression: np.ndarray
) -> None:
    weights, programs = forward(linear_model, patches)
    assert weights.shape == (5, 0)
    assert programs.shape == (5, 512)
    assert linear_model.cell_types == ()
    assert linear_model.n_programs == 512
    layer = torch.nn.Linear(512, 40)
    layer.weight.data = linear_model.head.program_genes.data.T
    layer.bias.data = torch.from_numpy(mean_expression).float()
    expected = layer(programs)
    torch.testing.assert_close(linear_model.decode(weights, programs), expected)
    got = linear_model.decoder().expression(weights.numpy(), programs.numpy(), linear_model.genes)
    np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_a_new_linear_head_predicts_the_mean_and_can_learn_under_the_correlation_loss(
    settings: TrainingSettings, mean_expression: np.ndarray, patches: np.ndarray
) -> None:
    plain = TrainingSettings.plain(backbone="squeezenet", weights="none", patch=settings.patch)
    fresh = build_model(plain, [f"g{i}" for i in range(40)], ["passed over"], None, mean_expression)
    weights, programs = fresh(fresh.normalize(patches))
    predicted = fresh.decode(weights, programs)
    np.testing.assert_allclose(predicted.detach().numpy(), np.tile(mean_expression, (5, 1)), rtol=1e-6)
    pcc_loss(predicted, torch.randn(5, 40)).backward()
    assert (fresh.head.program_genes.grad != 0).any()
    assert all(torch.isfinite(p.grad).all() for p in fresh.parameters() if p.grad is not None)


def test_settings_decide_what_is_learned(
    settings: TrainingSettings, profiles: np.ndarray, mean_expression: np.ndarray
) -> None:
    def build(**changes: object) -> CPNN:
        names = [f"g{i}" for i in range(40)], ["A", "B", "C"]
        return build_model(settings.replace(**changes), *names, profiles, mean_expression)

    learned, fixed, random = (build(prototype_mode=mode) for mode in ("learned", "fixed", "random"))
    assert learned.head.log_prototypes.requires_grad
    assert random.head.log_prototypes.requires_grad
    assert not fixed.head.log_prototypes.requires_grad
    assert torch.equal(fixed.prototypes, learned.prototypes)
    assert np.abs(random.prototypes.detach().numpy() - profiles).max() > 0.02
    bare = build(scale_shift=False)
    assert not bare.head.log_alpha.requires_grad
    assert not bare.head.log_beta.requires_grad
    decoder = bare.decoder()
    assert np.ptp(decoder.alpha) == 0
    assert decoder.alpha[0] == pytest.approx(mean_expression.clip(1e-3).sum(), rel=1e-5)
    assert decoder.beta.max() < 1e-9
    assert build(n_programs=0).n_programs == 0
    assert build(n_programs=0)(torch.zeros(2, 3, 64, 64))[1].shape == (2, 0)


def test_the_same_settings_build_the_same_model_and_leave_the_random_state_alone(
    settings: TrainingSettings, model: CPNN, profiles: np.ndarray, mean_expression: np.ndarray
) -> None:
    state = torch.get_rng_state()
    again = build_model(settings, model.genes, model.cell_types, profiles, mean_expression)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.fingerprint == model.fingerprint
    other = build_model(settings.replace(seed=1), model.genes, model.cell_types, profiles, mean_expression)
    assert other.fingerprint != model.fingerprint


def test_fingerprint_feels_tensors_and_names_but_not_provenance(model: CPNN) -> None:
    first = model.fingerprint
    other = copy.deepcopy(model)
    other.provenance["metrics"] = {"pcc": 1}
    assert other.fingerprint == first
    other.shift[3] += 1e-6
    assert other.fingerprint != first
    assert copy.deepcopy(model).to(memory_format=torch.channels_last).fingerprint == first


def test_what_does_not_fit_together_is_refused(
    settings: TrainingSettings, model: CPNN, profiles: np.ndarray, mean_expression: np.ndarray
) -> None:
    names = list(model.genes), list(model.cell_types)
    with pytest.raises(PrototypesError, match="needs prototypes"):
        build_model(settings, *names, None, mean_expression)
    with pytest.raises(PrototypesError, match=r"\(3, 40\), not \(3, 39\)"):
        build_model(settings, *names, profiles[:, 1:], mean_expression)
    with pytest.raises(PrototypesError, match="negative"):
        build_model(settings, *names, -profiles, mean_expression)
    silent = profiles * np.array([[1], [0], [1]])
    with pytest.raises(PrototypesError, match="expressed in CAFs"):
        build_model(settings, *names, silent, mean_expression)
    with pytest.raises(GenesError, match="one number for each of 40"):
        build_model(settings, *names, profiles, mean_expression[1:])
    with pytest.raises(GenesError, match="GENE0 came twice"):
        build_model(settings, ["GENE0", "GENE0"], names[1], profiles[:, :2], mean_expression[:2])
    with pytest.raises(SettingsError, match="at least 32 px, not 16"):
        build_model(settings.replace(patch=PatchSpec(16, 1.0)), *names, profiles, mean_expression)
    with pytest.raises(SettingsError, match="use one of stnet, squeezenet"):
        build_model(settings.replace(backbone="vgg"), *names, profiles, mean_expression)


def test_symmetric_prediction_is_the_mean_over_the_eight_and_does_not_see_them(
    model: CPNN, patches: np.ndarray
) -> None:
    images = model.normalize(patches)
    with torch.inference_mode():
        weights, programs, _ = predict_symmetric(model, images)
        turned = predict_symmetric(model, images.rot90(1, (2, 3)).flip(2))
        by_hand = []
        for transpose in (False, True):
            for dims in ((), (2,), (3,), (2, 3)):
                view = images.transpose(2, 3) if transpose else images
                by_hand.append(model(view.flip(dims) if dims else view)[0])
    torch.testing.assert_close(weights, torch.stack(by_hand).mean(dim=0))
    torch.testing.assert_close(turned[0], weights)
    torch.testing.assert_close(turned[1], programs)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))


class Chain(torch.nn.Module):
    """Features to expression."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        weights, programs = self.head(features)
        prototypes, alpha, beta, program_genes = self.head.coefficients()
        return alpha * (weights @ prototypes) + programs @ program_genes + beta


def test_gradients_of_the_head_against_finite_differences(model: CPNN) -> None:
    chain = Chain(copy.deepcopy(model.head).double())
    features = torch.randn(6, 512, dtype=torch.float64)
    measured = torch.randn(6, 40, dtype=torch.float64)
    measured[:, 5] = 0
    names = ["head.log_prototypes", "head.log_alpha", "head.log_beta", "head.program_genes"]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        expression = torch.func.functional_call(chain, dict(zip(names, values, strict=True)), (features,))
        return pcc_loss(expression, measured) + 0.1 * expression.square().mean()

    start = [dict(chain.named_parameters())[name].detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(loss, start)


@pytest.mark.parametrize("name", ["ours", "paper", "plain"])
def test_training_learns_a_small_problem(
    name: str, settings: TrainingSettings, profiles: np.ndarray, rng: np.random.Generator
) -> None:
    """Patches whose colour tells their composition; expression follows from it and the prototypes."""
    shares = rng.dirichlet(np.ones(3), size=32)
    images = np.clip(shares[:, None, None, :] * 200 + rng.normal(0, 10, (32, 64, 64, 3)), 0, 255).astype(np.uint8)
    expression = np.log1p(1e3 * shares @ profiles)
    genes, mean = [f"g{i}" for i in range(40)], expression.mean(axis=0)
    base = settings.replace(composition_weight=5.0, seed=SEED)
    chosen = {
        "ours": base,
        "paper": TrainingSettings.paper(**{**_shape(base), "n_programs": 0}),
        "plain": TrainingSettings.plain(backbone="squeezenet", weights="none", patch=settings.patch, seed=SEED),
    }[name]
    model = build_model(chosen, genes, ["A", "B", "C"], profiles, mean)
    start = model.prototypes.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)  # at 2e-3 the loss jumps, on some processors at the end
    measured, target = torch.from_numpy(expression).float(), torch.from_numpy(shares).float()
    losses = []
    for _ in range(20):
        weights, programs = model(model.normalize(images))
        loss = pcc_loss(model.decode(weights, programs), measured)
        if model.cell_types:
            loss = loss + 1e3 * prototype_penalty(model.prototypes, start)
            loss = loss + chosen.composition_weight * composition_penalty(weights, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    less_than(0.5, losses[-1] / losses[0], "last loss over first")


def _shape(settings: TrainingSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in ("backbone", "weights", "hidden", "patch", "seed")}
