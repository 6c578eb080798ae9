"""The loss of TRIPLEX: a term per view beside that of the fused view."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_cpnn.errors import SettingsError
from napari_cpnn.models import SlideTokens, build_model
from napari_cpnn.training.data.inputs import FeatureInputs, SurroundedInputs
from napari_cpnn.training.fit.module import VIEWS, CpnnTraining
from napari_cpnn.training.fit.optimisation import parameter_groups
from training.triplex_world import SETTINGS, shrink

GENES, TYPES = [f"G{i}" for i in range(12)], ["a", "b", "c"]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    shrink(monkeypatch)


def training(**changes):
    settings = SETTINGS.replace(**{"prototype_weight": 100.0, "composition_weight": 3.0, **changes})
    start = np.random.default_rng(1).dirichlet(np.ones(12), 3)
    slides = {k: SlideTokens(torch.randn(6 + k, 12), torch.rand(6 + k, 2) * 500, 128.0) for k in (0, 1)}
    model = build_model(settings, GENES, TYPES, start, np.ones(12))
    inputs = SurroundedInputs(settings)
    inputs.surroundings = SimpleNamespace(slides=slides)
    return CpnnTraining(model, inputs, settings, "float32")


@pytest.fixture
def batch():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    present = torch.rand(8, 25) > 0.3
    present[:, 12] = True
    return {
        "images": torch.from_numpy(rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)),
        "targets": torch.from_numpy(rng.random((8, 12), dtype=np.float32)),
        "shares": torch.from_numpy(rng.dirichlet(np.ones(3), 8).astype(np.float32)),
        "slide": torch.tensor([0, 1, 0, 0, 1, 1, 0, 0]),
        "neighbours": torch.randn(8, 25, 12).half(),
        "present": present,
        "places": torch.rand(8, 2) * 500,
    }


def expression_loss(predicted, measured, slide, settings):
    """The paper's words in numpy."""
    if settings.loss == "mse":
        return np.mean((predicted - measured) ** 2)
    parts = [slide == 0, slide == 1] if settings.correlation == "slide" else [slide >= 0]
    pccs = [[np.corrcoef(predicted[p, g], measured[p, g])[0, 1] for g in range(12)] for p in parts]
    return 1 - np.average(np.mean(pccs, axis=1), weights=[p.sum() for p in parts])


def by_hand(module, batch):
    """Expression that each view predicts, from the parameters themselves."""
    model = module.model
    head = model.head
    surroundings = module_surroundings(module, batch)
    views = model.backbone.views(model.backbone.patch_features(model.normalize(batch["images"])), surroundings)
    predicted = []
    for features, own in zip(views, (head, *model.view_heads), strict=True):
        if module.settings.head == "linear":
            values = features @ own.program_genes + own.bias
        else:
            weights = own.composition(features).softmax(dim=1)
            values = (1 - head.free_share) * (weights @ head.log_prototypes.softmax(dim=1))
            if head.mixture is not None:
                values = values + head.free_share * own.mixture(features).softmax(1) @ head.log_free.softmax(1)
            values = head.log_alpha.exp() * values + head.log_beta.exp() + own.programs(features) @ head.program_genes
        predicted.append(values.detach().double().numpy())
    return predicted


def module_surroundings(module, batch):
    from napari_cpnn.models import Surroundings

    parts = batch["neighbours"].float(), batch["present"], batch["places"], batch["slide"]
    return Surroundings(*parts, [module._inputs.surroundings.slides[0], module._inputs.surroundings.slides[1]])


@pytest.mark.parametrize("head", ["cpnn", "linear"])
@pytest.mark.parametrize(("loss", "correlation"), [("pcc", "slide"), ("pcc", "batch"), ("mse", "slide")])
def test_each_view_learns_from_the_measurement_and_from_the_fused_view(batch, head, loss, correlation):
    module = training(head=head, loss=loss, correlation=correlation)
    module.eval()  # without dropout; the programs count half then, in the main head alone
    module.model.head.program_gain = 1.0
    if head == "linear":
        for one in (module.model.head, *module.model.view_heads):
            torch.nn.init.normal_(one.program_genes, std=0.1)
    fused, *views = by_hand(module, batch)
    measured, slide = batch["targets"].double().numpy(), batch["slide"].numpy()
    terms = {name: value.item() for name, value in module.terms(batch).items()}
    assert terms["expression"] == pytest.approx(expression_loss(fused, measured, slide, module.settings), abs=2e-4)
    for name, predicted in zip(VIEWS, views, strict=True):
        wanted = 0.7 * expression_loss(predicted, measured, slide, module.settings)
        wanted += 0.3 * expression_loss(predicted, fused, slide, module.settings)
        assert terms[name] == pytest.approx(wanted, abs=2e-4), name
    others = {"prototypes", "composition"} if head == "cpnn" else set()
    assert set(terms) == {"expression", *VIEWS, *others}


@pytest.mark.parametrize("head", ["cpnn", "linear"])
def test_gradients_reach_all_that_learns(batch, head):
    module = training(head=head)
    for one in (module.model.head, *module.model.view_heads) if head == "linear" else ():
        torch.nn.init.normal_(one.program_genes, std=0.1)  # from zero weights the first step moves the head alone
    module.train()
    torch.stack(list(module.terms(batch).values())).sum().backward()
    for name, parameter in module.model.named_parameters():
        if name.startswith("backbone.encoder."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_the_fused_view_is_not_pulled_to_the_others(batch):
    """What the fused view predicts is a target here, not something that learns (detached)."""
    module = training(composition_weight=0.0, prototype_weight=0.0)
    module.terms(batch)["neighbours"].backward()
    own = [p.grad for p in module.model.head.composition.parameters()]
    assert all(grad is None for grad in own)
    assert all(p.grad is not None for p in module.model.view_heads[1].composition.parameters())
    assert module.model.backbone.overall.embed.weight.grad is None


def test_a_plain_head_leaves_its_zero_weights(batch):
    module = training(head="linear")
    optimizer = torch.optim.AdamW(parameter_groups(module.model, module.settings))
    before = [one.program_genes.detach().clone() for one in (module.model.head, *module.model.view_heads)]
    loss = torch.stack(list(module.terms(batch).values())).sum()
    assert loss.isfinite()
    loss.backward()
    optimizer.step()
    for one, start in zip((module.model.head, *module.model.view_heads), before, strict=True):
        assert not torch.equal(one.program_genes, start)


def test_transformers_learn_as_heads_do_and_the_target_network_as_a_backbone():
    module = training(learning_rate=1e-3, backbone_learning_rate=1e-5)
    where = {id(p): g["lr"] for g in parameter_groups(module.model, module.settings) for p in g["params"]}
    for name, parameter in module.model.named_parameters():
        if name.startswith("backbone.encoder."):
            assert id(parameter) not in where
        else:
            assert where[id(parameter)] == (1e-5 if name.startswith("backbone.target.") else 1e-3), name


def test_a_rate_of_zero_freezes_the_target_network_alone(batch):
    module = training(backbone_learning_rate=0.0)
    learns = {id(p) for g in parameter_groups(module.model, module.settings) for p in g["params"]}
    for name, parameter in module.model.named_parameters():
        frozen = name.startswith(("backbone.encoder.", "backbone.target."))
        assert (id(parameter) in learns) != frozen, name
    module.train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpnnTraining, "current_epoch", 0)
        patch.setattr(CpnnTraining, "global_rank", 0)
        module.on_train_start()
    assert not module.model.backbone.target.training
    assert module.model.backbone.neighbours.training  # dropout


def test_rates_by_stage_are_those_of_the_target_network(monkeypatch):
    module = training(layer_decay=0.5)
    assert parameter_groups(module.model, module.settings)
    monkeypatch.setattr(type(module.model.backbone.target), "stages", ())
    with pytest.raises(SettingsError, match="set layer_decay to 1"):
        parameter_groups(module.model, module.settings)


def test_features_in_a_batch_take_the_place_of_images(batch):
    module = training().eval()
    with torch.no_grad():
        expected = module(batch)
        tokens = module.model.patch_features(module.model.normalize(batch["images"]))
        module._inputs.patch = FeatureInputs(module.settings)
        got = module({**{k: v for k, v in batch.items() if k != "images"}, "features": tokens.half()})
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=2e-3)
