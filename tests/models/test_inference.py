from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from napari_cpnn.models import CPNN, build_model, fuse_for_inference, fused
from napari_cpnn.models.chunks import CHUNK
from napari_cpnn.settings import TrainingSettings


@pytest.fixture(params=["stnet", "squeezenet", "resnet18"])
def lively(request: pytest.FixtureRequest, profiles: np.ndarray, mean_expression: np.ndarray) -> CPNN:
    """A model whose batch normalisations and biases are no identities."""
    settings = TrainingSettings(backbone=request.param, weights="none", n_programs=3, hidden=16)
    model = build_model(settings, [f"g{i}" for i in range(40)], ["a", "b", "c"], profiles, mean_expression)
    with torch.no_grad():
        for module in model.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.7, 1.3)
                # Networks that were trained have scales of both signs, and a few that are nothing.
                module.weight.uniform_(0.7, 1.3).mul_(torch.where(torch.rand_like(module.weight) < 0.2, -1.0, 1.0))
                module.weight[:2] = torch.tensor([0.0, 1e-20])
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_(0, 0.2)
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                module.bias.normal_(0, 0.2)
    return model.eval()


@pytest.mark.parametrize("one_pass", [True, False])
def test_the_fused_copy_predicts_the_same(
    lively: CPNN, one_pass: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not one_pass:  # a build of torch without oneDNN
        monkeypatch.setattr(fused, "has_fused_convolution", lambda _dtype: False)
    before = lively.fingerprint
    ready = fuse_for_inference(lively)
    images = lively.normalize(rng.integers(0, 256, (CHUNK + 3, 64, 64, 3), dtype=np.uint8))
    with torch.inference_mode():
        expected, got = lively(images), ready(images)
        features = lively.backbone(images)
        torch.testing.assert_close(ready.backbone(images), features, rtol=1e-4, atol=1e-4 * features.abs().max().item())
    torch.testing.assert_close(got[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-3, atol=1e-4)
    assert lively.fingerprint == before
    assert ready.decoder().genes == lively.genes


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a build of torch without oneDNN")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_convolutions_are_found_in_a_prediction_too(dtype: torch.dtype) -> None:
    fused.has_fused_convolution.cache_clear()
    outside = fused.has_fused_convolution(dtype)
    fused.has_fused_convolution.cache_clear()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert fused.has_fused_convolution(dtype) == outside


def test_bfloat16_is_as_near_as_autocast(lively: CPNN, rng: np.random.Generator) -> None:
    images = lively.normalize(rng.integers(0, 256, (9, 64, 64, 3), dtype=np.uint8))
    ready = fuse_for_inference(lively, bfloat16=True)
    with torch.inference_mode():
        exact = lively.backbone(images)
        with torch.autocast("cpu", torch.bfloat16):
            by_autocast = lively.backbone(images)
        got = ready.backbone(images)
        weights, programs = ready(images)
    assert got.dtype == weights.dtype == programs.dtype == torch.float32
    usual, ours = ((other - exact).square().mean().sqrt().item() for other in (by_autocast, got))
    assert 0 < ours < 1.5 * usual
    assert usual < 0.05 * exact.std().item()


def test_layers_are_really_folded(lively: CPNN) -> None:
    def count(model: nn.Module, *kinds: type[nn.Module]) -> int:
        return sum(isinstance(m, kinds) for m in model.modules())

    ready = fuse_for_inference(lively)
    left = {"stnet": 1, "squeezenet": 0, "resnet18": 0}  # the last normalisation of DenseNet
    assert count(ready, nn.BatchNorm2d) == left[lively.spec.backbone]
    assert count(ready, nn.ReLU) == 0
    # The stem, and DenseNet's 58 layers of two and 3 transitions; 8 fires of three; 8 blocks of two, 3 short cuts.
    convolutions = {"stnet": 1 + 2 * 58 + 3, "squeezenet": 1 + 3 * 8, "resnet18": 1 + 2 * 8 + 3}
    assert count(ready, fused.FusedConv) == convolutions[lively.spec.backbone]
    assert count(ready, nn.Conv2d) == 0


def test_a_batch_of_one_and_the_same_bits_twice(model: CPNN, patches: np.ndarray) -> None:
    ready = fuse_for_inference(copy.deepcopy(model).train())
    images = model.normalize(patches[:1])
    with torch.inference_mode():
        assert torch.equal(ready(images)[0], ready(images)[0])
    assert not ready.training


def test_layers_that_do_more_than_torchs_own_are_left_alone(model: CPNN) -> None:
    """As timm's: a normalisation that rectifies, a convolution with standardised weights; and odd paddings."""

    class NormAct(nn.BatchNorm2d):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return super().forward(maps).relu()

    class Doubling(nn.Conv2d):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(maps)

    class Mean(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return maps.mean(dim=(2, 3)).repeat(1, 64)

    stranger = nn.Sequential(
        nn.Conv2d(3, 8, 3), NormAct(8), Doubling(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(8), nn.ReLU(), Mean(),
    ).eval()  # fmt: skip
    model = copy.deepcopy(model)
    model.backbone = stranger
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(fuse_for_inference(model).backbone(images), stranger(images), rtol=1e-4, atol=1e-5)
