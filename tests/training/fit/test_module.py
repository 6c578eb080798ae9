"""The loss as a whole, and the schedule of the learning rates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cpnn.models import build_model
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.data.inputs import PatchInputs
from napari_cpnn.training.fit.module import CpnnTraining
from napari_cpnn.training.fit.optimisation import WARM_UP, parameter_groups, schedule

GENES, TYPES = [f"G{i}" for i in range(12)], ["a", "b", "c"]


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), 8).astype(np.float32)
    shares[2] = np.nan
    return {
        "images": torch.from_numpy(rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)),
        "targets": torch.from_numpy(rng.random((8, 12), dtype=np.float32)),
        "shares": torch.from_numpy(shares),
        "slide": torch.tensor([0, 1, 0, 0, 1, 1, 0, 0]),
    }


def training(**changes):
    settings = TrainingSettings(
        backbone="squeezenet", weights="none", hidden=8, n_programs=2, prototype_weight=100.0, composition_weight=3.0
    ).replace(**changes)
    start = np.random.default_rng(1).dirichlet(np.ones(12), 3)
    return CpnnTraining(
        build_model(settings, GENES, TYPES, start, np.ones(12)), PatchInputs(settings), settings, "float32"
    )


def mean_pcc(predicted, measured, slide, correlation):
    """Mean over columns of the PCC over the rows of each slide, then over slides by their numbers of rows."""
    parts = [slide == 0, slide == 1] if correlation == "slide" else [slide >= 0]
    n = predicted.shape[1]
    pccs = [[np.corrcoef(predicted[p, g], measured[p, g])[0, 1] for g in range(n)] for p in parts]
    return np.average(np.mean(pccs, axis=1), weights=[p.sum() for p in parts])


@pytest.mark.parametrize("composition_loss", ["pcc", "squares"])
@pytest.mark.parametrize(("loss", "correlation"), [("pcc", "slide"), ("pcc", "batch"), ("mse", "slide")])
def test_terms_are_the_weighted_sums_of_the_paper(batch, loss, correlation, composition_loss):
    module = training(loss=loss, correlation=correlation, composition_loss=composition_loss)
    with torch.no_grad():
        module.model.head.log_prototypes.add_(0.1 * torch.randn(3, 12, generator=torch.manual_seed(0)))
    terms = {name: value.item() for name, value in module.terms(batch).items()}
    weights, programs = module(batch)
    predicted = module.model.decode(weights, programs).detach().numpy().astype(float)
    measured, shares = batch["targets"].numpy().astype(float), batch["shares"].numpy()
    if loss == "mse":
        assert terms["expression"] == pytest.approx(np.mean((predicted - measured) ** 2), rel=1e-5)
    else:
        wanted = 1 - mean_pcc(predicted, measured, batch["slide"].numpy(), correlation)
        assert terms["expression"] == pytest.approx(wanted, abs=1e-4)
    moved = module.model.prototypes.detach().numpy() - module.initial_prototypes.numpy()
    assert terms["prototypes"] == pytest.approx(100 * (moved**2).sum(), rel=1e-4)
    known = ~np.isnan(shares[:, 0])
    weights = weights.detach().numpy().astype(float)
    distance = ((weights - shares) ** 2)[known].sum(axis=1).mean()
    if composition_loss == "pcc":
        distance += 1 - mean_pcc(weights[known], shares[known], batch["slide"].numpy()[known], correlation)
    assert terms["composition"] == pytest.approx(3 * distance, rel=1e-4)


def test_composition_term_without_a_known_share_is_zero(batch):
    batch["shares"][:] = torch.nan
    term = training().terms(batch)["composition"]
    assert term.item() == 0
    term.backward()


def test_only_the_terms_that_are_asked_for(batch):
    assert set(training(composition_weight=0.0).terms(batch)) == {"expression", "prototypes"}
    assert set(training(prototype_mode="fixed").terms(batch)) == {"expression", "composition"}
    assert set(training(head="linear", composition_weight=0.0).terms(batch)) == {"expression"}


def test_expression_and_loss_stay_in_float32_under_bfloat16(batch):
    settings = TrainingSettings(backbone="squeezenet", weights="none", hidden=8)
    start = np.random.default_rng(1).dirichlet(np.ones(12), 3)
    module = CpnnTraining(
        build_model(settings, GENES, TYPES, start, np.ones(12)), PatchInputs(settings), settings, "bfloat16"
    )
    seen = []
    module.model.backbone.register_forward_hook(lambda _m, inputs, _o: seen.append(torch.is_autocast_enabled("cpu")))
    weights, programs = module(batch)
    assert seen == [True]
    assert weights.dtype == programs.dtype == module.model.decode(weights, programs).dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in module.terms(batch).values())


def test_learning_rates_and_decay_by_kind_of_parameter():
    module = training(learning_rate=1e-3, backbone_learning_rate=1e-5, weight_decay=0.1)
    where = {id(p): group for group in parameter_groups(module.model, module.settings) for p in group["params"]}
    named = dict(module.model.named_parameters())
    assert len(where) == len(named)
    for name, parameter in named.items():
        group = where[id(parameter)]
        assert group["lr"] == (1e-5 if name.startswith("backbone.") else 1e-3)
        keeps = parameter.ndim < 2 or name == "head.log_prototypes"
        assert group["weight_decay"] == (0.0 if keeps else 0.1), name


def test_schedule_warms_up_and_ends_at_zero():
    values = [schedule(step, 200) for step in range(201)]
    peak = int(np.argmax(values))
    assert peak == WARM_UP * 200 - 1
    assert values[peak] == 1
    assert values[0] == pytest.approx(0.1)
    assert (np.diff(values[peak:]) <= 0).all()
    assert values[-1] == pytest.approx(0)
    assert schedule(0, 1) == 1
