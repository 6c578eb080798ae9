"""Learning rates by stage, and the average of the weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from napari_cpnn.errors import SettingsError
from napari_cpnn.models import build_model
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.fit.optimisation import WeightAverage, parameter_groups


def model_of(backbone="squeezenet"):
    settings = TrainingSettings(
        backbone=backbone, weights="none", encoder="resnet18", encoder_weights="none", hidden=4, n_programs=1
    )
    return build_model(settings, ["a", "b"], ["x", "y"], [[0.5, 0.5], [0.2, 0.8]], [1.0, 1.0])


@pytest.mark.parametrize(("backbone", "n_stages"), [("squeezenet", 4), ("stnet", 5), ("resnet18", 5)])
def test_rates_rise_from_the_image_to_the_head(backbone, n_stages):
    model = model_of(backbone)
    settings = TrainingSettings(layer_decay=0.5, learning_rate=1e-2, backbone_learning_rate=1e-3)
    rate = {id(p): group["lr"] for group in parameter_groups(model, settings) for p in group["params"]}
    names = [name for name, _ in model.named_parameters()]
    rates = [rate[id(p)] for _, p in model.named_parameters()]
    in_backbone = [r for name, r in zip(names, rates, strict=True) if name.startswith("backbone.")]
    assert sorted(set(in_backbone)) == pytest.approx([1e-3 * 0.5**k for k in range(n_stages)][::-1])
    # Parameters are listed from the image on.
    assert in_backbone == sorted(in_backbone)
    assert {r for name, r in zip(names, rates, strict=True) if name.startswith("head.")} == {1e-2}


@pytest.mark.parametrize("backbone", ["squeezenet", "stnet"])
def test_stages_are_where_the_resolution_changes(backbone):
    """Each stage ends before the maps get smaller, or is the last: told from the network itself."""
    network, sizes = model_of(backbone).backbone.eval(), {}
    for name, layer in network.features.named_children():
        layer.register_forward_hook(lambda _m, i, _o, name=name: sizes.__setitem__(name, i[0].shape[-1]))
    with torch.no_grad():
        network(torch.zeros(1, 3, 128, 128))
    for stage in network.stages[1:]:
        assert len({sizes[layer] for layer in stage}) == 1, stage
    of_stage = [sizes[stage[0]] for stage in network.stages]
    assert of_stage == sorted(set(of_stage), reverse=True)


def test_without_decay_all_layers_have_one_rate_and_need_no_stages():
    model = model_of()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 3))
    settings = TrainingSettings(backbone_learning_rate=3e-4)
    rates = {group["lr"] for group in parameter_groups(model, settings)}
    assert rates == {3e-4, 1e-3}


def test_a_frozen_encoder_has_no_learning_rate():
    model = model_of("frozen")
    settings = TrainingSettings(backbone="frozen", layer_decay=0.5, backbone_learning_rate=3e-4)
    learning = [p for group in parameter_groups(model, settings) for p in group["params"]]
    assert len(learning) == len(list(model.head.parameters()))
    assert not any(p.requires_grad for p in model.backbone.parameters())


def test_a_backbone_of_unknown_stages_is_refused():
    model = model_of()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(SettingsError, match="stages of backbone 'squeezenet' are not known"):
        parameter_groups(model, TrainingSettings(layer_decay=0.7))


def test_the_average_is_the_recursion():
    model = model_of()
    average = WeightAverage(model, decay=0.8)
    wanted = {name: t.double().clone() for name, t in model.state_dict().items()}
    for n in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(n)))
        average.update(model)
        d = min(0.8, (1 + n) / (10 + n))
        wanted = {name: d * w + (1 - d) * model.state_dict()[name].double() for name, w in wanted.items()}
    for name, tensor in average.model.state_dict().items():
        np.testing.assert_allclose(tensor.double(), wanted[name], atol=1e-5)
    assert not any(p.requires_grad for p in average.model.parameters())


def test_counters_and_running_statistics_are_taken_along():
    model = model_of("stnet")
    average = WeightAverage(model, decay=0.5)
    model.train()
    before = copy.deepcopy(average.model.state_dict())
    for _ in range(3):
        model.backbone(torch.randn(2, 3, 32, 32))
        average.update(model)
    after, now = average.model.state_dict(), model.state_dict()
    counter = "backbone.features.norm0.num_batches_tracked"
    assert after[counter] == now[counter] == 3
    running = "backbone.features.norm0.running_mean"
    assert not torch.equal(after[running], before[running])
    assert not torch.equal(after[running], now[running])
