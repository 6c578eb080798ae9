"""ResNet-18 against torchvision's architecture, written down here from its documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from napari_cpnn.errors import WeightsError
from napari_cpnn.models import ENCODERS
from napari_cpnn.models.backbones.resnet import ResNetFeatures

WIDTHS = (64, 128, 256, 512)


def torchvision_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of resnet18-f37072fd.pth."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", 64)
    before = 64
    for stage, width in enumerate(WIDTHS, start=1):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, before, 3, 3)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            norm(f"{name}.bn1", width)
            norm(f"{name}.bn2", width)
            if block == 0 and stage > 1:
                shapes[f"{name}.downsample.0.weight"] = (width, before, 1, 1)
                norm(f"{name}.downsample.1", width)
            before = width
    return {**shapes, "fc.weight": (1000, 512), "fc.bias": (1000,)}


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, Tensor]:
    """Random weights under torchvision's names, of sizes that keep the signal alive through all layers."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in torchvision_shapes().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif len(shape) == 4:
            state[name] = torch.randn(shape, generator=generator) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        else:
            state[name] = 0.5 + torch.rand(shape, generator=generator)
    return state


def functional_maps(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The forward pass of He et al. 2016, table 1, 18 layers, in eval mode."""

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, weight, bias, training=False)

    x = functional.conv2d(x, state["conv1.weight"], stride=2, padding=3)
    x = functional.max_pool2d(functional.relu(norm("bn1", x)), 3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
            y = functional.relu(
                norm(f"{name}.bn1", functional.conv2d(x, state[f"{name}.conv1.weight"], None, stride, 1))
            )
            y = norm(f"{name}.bn2", functional.conv2d(y, state[f"{name}.conv2.weight"], padding=1))
            if f"{name}.downsample.0.weight" in state:
                x = norm(
                    f"{name}.downsample.1", functional.conv2d(x, state[f"{name}.downsample.0.weight"], None, stride)
                )
            x = functional.relu(x + y)
    return x


def test_parameters_are_torchvisions() -> None:
    ours = {name: tuple(t.shape) for name, t in ResNetFeatures().features.state_dict().items()}
    theirs = {name: shape for name, shape in torchvision_shapes().items() if not name.startswith("fc.")}
    assert ours == theirs


@pytest.mark.parametrize("side", [64, 75])
def test_maps_and_features_are_torchvisions(torchvision_state: dict[str, Tensor], side: int, tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision_state, path)
    network = ENCODERS["resnet18"].build(str(path)).eval()
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps, features = network.maps(images), network(images)
        wanted = functional_maps(torchvision_state, images)
    assert wanted.std() > 0.1
    torch.testing.assert_close(maps, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features, wanted.mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)


def test_cigas_file_is_read(torchvision_state: dict[str, Tensor], tmp_path: Path) -> None:
    """tenpercent_resnet18.ckpt: a Lightning checkpoint whose names begin with ``model.resnet.``, fc an empty module."""
    path = tmp_path / "tenpercent_resnet18.ckpt"
    state = {f"model.resnet.{name}": t for name, t in torchvision_state.items()}
    torch.save({"epoch": 999, "state_dict": state}, path)
    network = ENCODERS["ciga"].build(str(path))
    for name, tensor in network.features.state_dict().items():
        assert torch.equal(tensor, torchvision_state[name])


def test_monais_own_short_cuts_have_a_bias_that_is_zero(torchvision_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "monai.safetensors"
    bias = {"layer2.0.downsample.0.bias": torch.zeros(128)}
    save_file({**torchvision_state, **bias}, path)
    ENCODERS["resnet18"].build(str(path))
    save_file({**torchvision_state, "layer2.0.downsample.0.bias": torch.ones(128)}, path)
    with pytest.raises(WeightsError, match=r"ResNet-18: it also has features.layer2.0.downsample.0.bias"):
        ENCODERS["resnet18"].build(str(path))


def test_a_file_of_another_network_names_both(tmp_path: Path) -> None:
    path = tmp_path / "squeezenet.safetensors"
    save_file(ENCODERS["squeezenet"].build("none").state_dict(), path)
    with pytest.raises(
        WeightsError,
        match=r"squeezenet.safetensors does not hold the weights of ResNet-18.*encoder 'ciga', such as tenp",
    ):
        ENCODERS["ciga"].build(str(path))


def test_cigas_weights_are_never_downloaded_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(
        WeightsError, match=r"no checksum .* get https://github.com/ozanciga/.*tenpercent_resnet18.ckpt"
    ):
        ENCODERS["ciga"].build("pretrained")


@pytest.mark.parametrize("name", ["stnet", "squeezenet", "resnet18", "ciga"])
def test_features_are_the_mean_of_the_maps(name: str) -> None:
    network = ENCODERS[name].build("none").eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        maps = network.maps(images)
        torch.testing.assert_close(network(images), maps.mean(dim=(2, 3)))
    assert maps.shape[:2] == (2, network.n_features)
    assert maps.min() >= 0  # after the last rectifier
    parts = [part for stage in network.stages for part in stage]
    assert set(parts) == {n for n, m in network.features.named_children() if any(True for _ in m.parameters())}
    assert isinstance(network, nn.Module)
