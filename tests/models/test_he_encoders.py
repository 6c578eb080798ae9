"""Encoders of H&E: features, published weights in Keras's layout, and the fused form."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from napari_cpnn.errors import WeightsError
from napari_cpnn.models import get_encoder
from napari_cpnn.models.inference import _ready

DATA = Path(os.environ.get("NAPARI_CPNN_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
WEIGHTS = DATA / "pretrained-histology" / "nic-histology" / "encoder_multitask-4.h5"


def numpy_code(images, layers, dense):
    """The published network on 64 px, one position after the other: ``(N, 64, 64, 3)`` -> code ``(N, 128)``, trunk."""
    maps = images
    for kernel, bias, gamma, beta, mean, variance in layers:
        n, side = len(maps), (maps.shape[1] - 3) // 2 + 1
        out = np.empty((n, side, side, kernel.shape[3]))
        for i in range(side):
            for j in range(side):
                window = maps[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                out[:, i, j] = np.tensordot(window, kernel, axes=3) + bias
        out = np.where(out > 0, out, 0.2 * out)
        maps = (out - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    return maps.reshape(len(maps), -1) @ dense[0] + dense[1], maps


@pytest.fixture
def keras_file(tmp_path):
    """Random weights in the layout of the published file, and the layers themselves."""
    rng = np.random.default_rng(0)
    layers = []
    for i in range(4):
        n_in = 3 if i == 0 else 128
        kernel = rng.normal(0, np.sqrt(2 / (9 * n_in)), (3, 3, n_in, 128))
        layers.append((kernel, *rng.normal(0, 0.1, (1, 128)), 1 + rng.normal(0, 0.1, 128),
                       *rng.normal(0, 0.1, (2, 128)), rng.uniform(0.5, 2, 128)))  # fmt: skip
    dense = rng.normal(0, 0.03, (9 * 128, 128)), rng.normal(0, 0.1, 128)
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights")
        content = {"input_1": {}, "encoded": dict(zip(("kernel", "bias"), dense, strict=True))}
        for i, (kernel, bias, *norm) in enumerate(layers, start=1):
            content[f"conv2d_{i}"] = {"kernel": kernel, "bias": bias}
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            content[f"batch_normalization_{i}"] = dict(zip(names, norm, strict=True))
        for layer, arrays in content.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{kind}:0".encode() for kind in arrays]
            for kind, array in arrays.items():
                group.create_dataset(f"{layer}/{kind}:0", data=array.astype(np.float32))
        root.attrs["layer_names"] = [layer.encode() for layer in content]
    return path, layers, dense


def test_nic_is_the_published_network(keras_file):
    path, layers, dense = keras_file
    network = get_encoder("nic").build(str(path)).eval()
    images = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 3))
    code, trunk = numpy_code(images, layers, dense)
    with torch.inference_mode():
        features = network(torch.from_numpy(images).float().permute(0, 3, 1, 2)).numpy()
    assert features.shape == (2, 512)
    np.testing.assert_allclose(features[:, :128], code, atol=2e-4)
    assert features[:, 128:256].max() < 1e-5  # one code: no deviation
    np.testing.assert_allclose(features[:, 256:384], trunk.mean(axis=(1, 2)), atol=2e-4)
    np.testing.assert_allclose(features[:, 384:], trunk.std(axis=(1, 2)), atol=2e-4)


def test_nic_on_a_larger_patch_is_the_code_of_each_window(keras_file):
    network = get_encoder("nic").build(str(keras_file[0])).eval()
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.inference_mode():
        windows = [network(images[:, :, y : y + 64, x : x + 64])[:, :128] for y in (0, 16, 32) for x in (0, 16, 32)]
        codes = torch.stack(windows)
        features = network(images)
    torch.testing.assert_close(features[:, :128], codes.mean(dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(features[:, 128:256], codes.std(dim=0, correction=0), atol=1e-5, rtol=1e-4)


def test_another_file_is_refused(keras_file, tmp_path):
    path, _, _ = keras_file
    with pytest.raises(WeightsError, match="does not hold the weights of he-small"):
        get_encoder("he-small").build(str(path))
    with h5py.File(path, "a") as file:
        del file["model_weights/encoded/encoded/kernel:0"]
    with pytest.raises(WeightsError):
        get_encoder("nic").build(str(path))


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="needs pretrained-histology of NAPARI_CPNN_DATA")
def test_the_published_files_agree():
    first, second = (
        get_encoder("nic").build(str(path)) for path in (WEIGHTS, next(WEIGHTS.parent.glob("*.safetensors")))
    )
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_he_small_comes_with_the_package_and_knows_stains_apart():
    network = get_encoder("he-small").build("pretrained").eval()
    rng = np.random.default_rng(0)
    blue, pink = (np.clip(rng.normal(color, 12, (4, 64, 64, 3)), 0, 255) for color in ((120, 90, 160), (230, 170, 200)))
    with torch.inference_mode():
        a, b = (network(torch.from_numpy(i / 127.5 - 1).float().permute(0, 3, 1, 2)) for i in (blue, pink))
    within = (a - a.mean(dim=0)).norm(dim=1).mean()
    assert (a.mean(dim=0) - b.mean(dim=0)).norm() > 5 * within


@pytest.mark.parametrize("name", ["nic", "he-small"])
def test_fused_is_the_same(name):
    network = get_encoder(name).build("none").eval()
    for module in network.modules():  # statistics as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        wanted = network(images)
        torch.testing.assert_close(_ready(network, torch.float32)(images), wanted, atol=1e-4, rtol=1e-4)
