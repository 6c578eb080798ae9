from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from napari_cpnn.models import CPNN, build_model, fuse_for_inference, inference
from napari_cpnn.models.chunks import CHUNK
from napari_cpnn.settings import TrainingSettings


@pytest.fixture(params=["stnet", "squeezenet"])
def lively(request: pytest.FixtureRequest, profiles: np.ndarray, mean_expression: np.ndarray) -> CPNN:
    """A model whose batch normalisations and biases are no identities."""
    settings = TrainingSettings(backbone=request.param, weights="none", n_programs=3, hidden=16)
    model = build_model(settings, [f"g{i}" for i in range(40)], ["a", "b", "c"], profiles, mean_expression)
    with torch.no_grad():
        for module in model.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.7, 1.3)
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
        monkeypatch.setattr(inference, "_has_fused_convolution", lambda _dtype: False)
    before = lively.fingerprint
    fused = fuse_for_inference(lively)
    images = lively.normalize(rng.integers(0, 256, (CHUNK + 3, 64, 64, 3), dtype=np.uint8))
    with torch.inference_mode():
        expected, got = lively(images), fused(images)
        features = lively.backbone(images)
        torch.testing.assert_close(fused.backbone(images), features, rtol=1e-4, atol=1e-4 * features.abs().max().item())
    torch.testing.assert_close(got[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-3, atol=1e-4)
    assert lively.fingerprint == before
    assert fused.decoder().genes == lively.genes


def test_bfloat16_is_as_near_as_autocast(lively: CPNN, rng: np.random.Generator) -> None:
    images = lively.normalize(rng.integers(0, 256, (9, 64, 64, 3), dtype=np.uint8))
    fused = fuse_for_inference(lively, bfloat16=True)
    with torch.inference_mode():
        exact = lively.backbone(images)
        with torch.autocast("cpu", torch.bfloat16):
            by_autocast = lively.backbone(images)
        got = fused.backbone(images)
        weights, programs = fused(images)
    assert got.dtype == weights.dtype == programs.dtype == torch.float32
    usual, ours = ((other - exact).square().mean().sqrt().item() for other in (by_autocast, got))
    assert 0 < ours < 1.5 * usual
    assert usual < 0.05 * exact.std().item()


def test_layers_are_really_folded(lively: CPNN) -> None:
    def count(model: nn.Module, *kinds: type[nn.Module]) -> int:
        return sum(isinstance(m, kinds) for m in model.modules())

    fused = fuse_for_inference(lively)
    if lively.spec.backbone == "stnet":
        # 58 dense layers and the stem each lose one normalisation and one rectifier.
        assert count(lively, nn.BatchNorm2d) - count(fused, nn.BatchNorm2d) == 59
        assert count(fused, inference._ConvReLU) == 59
    else:
        assert count(fused, inference._ConvReLU) == 1 + 3 * 8
        assert count(fused, nn.ReLU) == 0


def test_a_batch_of_one_and_the_same_bits_twice(model: CPNN, patches: np.ndarray) -> None:
    fused = fuse_for_inference(copy.deepcopy(model).train())
    images = model.normalize(patches[:1])
    with torch.inference_mode():
        assert torch.equal(fused(images)[0], fused(images)[0])
    assert not fused.training
