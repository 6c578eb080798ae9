from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.signal import correlate
from torch import nn

from napari_cpnn.errors import SettingsError, WeightsError
from napari_cpnn.models import CPNN, ENCODERS, build_model, get_encoder, save_model
from napari_cpnn.settings import TrainingSettings

KERAS = Path("pretrained-imagenet/squeezenet1.1/squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5")


def randomised(name: str) -> nn.Module:
    """A network whose every tensor differs from its start, batch statistics too."""
    network = ENCODERS[name].build("none")
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) * 0.1 + 0.05)
    return network


def assert_same(first: nn.Module, second: nn.Module) -> None:
    a, b = first.state_dict(), second.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a if "num_batches" not in name)


def old_torchvision_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What densenet121-a639ec97.pth looks like: ``denselayer1.norm.1.weight``, no batch counters, a classifier."""
    renamed = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if "layers" in parts:
            at = parts.index("layers")
            layer = parts[at + 1]
            parts[at : at + 2] = [layer[:-1], layer[-1]]
        if parts[-1] != "num_batches_tracked":
            renamed[".".join(parts)] = tensor
    return {**renamed, "classifier.weight": torch.zeros(1000, 1024), "classifier.bias": torch.zeros(1000)}


@pytest.mark.parametrize("name", list(ENCODERS))
def test_registry_is_true(name: str) -> None:
    info = ENCODERS[name]
    network = info.build("none").eval()
    with torch.inference_mode():
        smallest = network(torch.randn(2, 3, info.min_px, info.min_px))
        usual = network(torch.randn(1, 3, 224, 224).to(torch.bfloat16).float())
    assert smallest.shape == (2, info.n_features)
    assert usual.shape == (1, info.n_features)
    assert torch.isfinite(smallest).all()
    if n_parameters := sum(p.numel() for p in network.parameters()):
        assert re.search(rf"{n_parameters / 1e6:.1f} M parameters", info.description)
    assert network.n_features == info.n_features
    if name == "colour":
        assert (n_parameters, info.source) == (0, None)
    elif name == "ciga":
        assert info.source.sha256 is None  # none is published
    elif info.source.is_packaged:
        assert (Path(sys.modules[type(info).__module__].__file__).parent / info.source.file_name).stat().st_size < 2.5e6
    else:
        beginning = re.search(r"-([0-9a-f]{8})\.pth$", info.source.url)
        assert info.source.sha256.startswith(beginning[1] if beginning else "")
        assert len(info.source.sha256) == 64


@pytest.mark.parametrize("name", list(ENCODERS))
def test_features_are_float32_under_autocast(name: str) -> None:
    network = ENCODERS[name].build("none").eval().to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        exact = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            fast = network(images)
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast, exact, rtol=0.1, atol=0.05 * exact.abs().max().item())


def test_unknown_names() -> None:
    with pytest.raises(SettingsError, match="no encoder 'resnet'; use one of stnet, squeezenet"):
        get_encoder("resnet")
    settings = TrainingSettings(backbone="resnet")
    with pytest.raises(SettingsError, match=r"no backbone 'resnet'; use one of stnet, .*frozen"):
        build_model(settings, ["a"], ["x"], [[1.0]], [1.0])


@pytest.mark.parametrize("kind", ["monai.safetensors", "old.pth", "new.pth", "wrapped.pth", "lightning.ckpt"])
def test_densenet_weights_under_every_name_they_have(kind: str, tmp_path: Path) -> None:
    source = randomised("stnet")
    state, path = source.state_dict(), tmp_path / kind
    old = old_torchvision_names(state)
    new = {re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name): t for name, t in old.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert "features.denseblock4.denselayer16.conv2.weight" in new
    if kind == "monai.safetensors":
        save_file({**state, "class_layers.out.weight": torch.zeros(5, 1024)}, path)
    elif kind == "old.pth":
        torch.save(old, path, _use_new_zipfile_serialization=False)  # as the real file
    elif kind == "new.pth":
        torch.save(new, path)
    elif kind == "lightning.ckpt":
        ours = {f"model.backbone.{name}": t for name, t in state.items()}
        torch.save({"epoch": 3, "state_dict": {**ours, "model.head.bias": torch.zeros(4)}}, path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in new.items()}}, path)
    assert_same(ENCODERS["stnet"].build(str(path)), source)


def test_densenet_and_resnet_are_monais() -> None:
    """MONAI has the same networks; it is a dependency of the tests alone, since it takes seconds to import."""
    from monai.networks.nets.densenet import DenseNet121
    from monai.networks.nets.resnet import resnet18

    like_torchvision = {"conv1_t_size": 7, "conv1_t_stride": 2, "bias_downsample": False}
    theirs = {
        "stnet": DenseNet121(spatial_dims=2, in_channels=3, out_channels=2),
        "resnet18": resnet18(spatial_dims=2, n_input_channels=3, feed_forward=False, **like_torchvision),
    }
    theirs["stnet"].class_layers.out = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    for name, network in theirs.items():
        ours = randomised(name).eval()
        (network.features if name == "stnet" else network).load_state_dict(ours.features.state_dict())
        with torch.inference_mode():
            torch.testing.assert_close(ours(images), network.eval()(images), rtol=1e-5, atol=1e-5)


def test_a_model_is_loaded_without_what_takes_seconds_to_import() -> None:
    """Neither MONAI nor the compiler of torch, which the meta device would call for random numbers."""
    model_path = Path(__file__).parents[2] / "sample_data" / "model.safetensors"
    heavy = ("monai", "transformers", "torch._dynamo", "sympy", "lightning")
    code = (
        "import sys, numpy as np; from napari_cpnn.models import load_model; "
        "from napari_cpnn.models.checkpoint import _WithoutNumbers; from napari_cpnn.models.backbones import ENCODERS; "
        "from napari_cpnn.prediction import Predictor; import torch\n"
        "with torch.device('meta'), _WithoutNumbers(): [info.network() for info in ENCODERS.values()]\n"
        f"model = load_model({str(model_path)!r}); side = model.patch.size_px\n"
        "Predictor(model, 'cpu').predict(np.zeros((1, side, side, 3), np.uint8))\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert out.stdout.strip() == "[]"


def test_squeezenet_weights_under_torchvisions_names(tmp_path: Path) -> None:
    source = randomised("squeezenet")
    state = source.state_dict()
    # Names and shapes as in torchvision's file, from its documentation of the architecture.
    assert state["features.0.weight"].shape == (64, 3, 3, 3)
    assert state["features.3.squeeze.weight"].shape == (16, 64, 1, 1)
    assert state["features.7.expand3x3.bias"].shape == (128,)
    assert state["features.12.expand1x1.weight"].shape == (256, 64, 1, 1)
    assert len(state) == 50
    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    classifier = {"classifier.1.weight": torch.zeros(1000, 512, 1, 1), "classifier.1.bias": torch.zeros(1000)}
    torch.save({**state, **classifier}, path)
    assert_same(ENCODERS["squeezenet"].build(str(path)), source)


def test_the_backbone_of_one_of_our_models_is_a_start(model: CPNN, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    assert_same(ENCODERS["squeezenet"].build(str(path)), model.backbone)


class NumpyKerasNet:
    """SqueezeNet 1.1 as Keras computes it, in numpy and scipy, straight from the HDF5 file: (H, W, channel)."""

    def __init__(self, path: Path) -> None:
        self.arrays: dict[str, list[np.ndarray]] = {}
        with h5py.File(path) as file:
            file.visititems(self._collect)

    def _collect(self, name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            layer = re.match(r"(conv1|fire\d/(?:squeeze|expand)\dx\d)", name)[1]
            self.arrays.setdefault(layer, []).append(item[()])

    def conv(self, layer: str, x: np.ndarray, stride: int = 1, pad: int = 0) -> np.ndarray:
        kernel = next(a for a in self.arrays[layer] if a.ndim == 4)
        bias = next(a for a in self.arrays[layer] if a.ndim == 1)
        x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
        maps = [correlate(x, kernel[..., o], mode="valid")[::stride, ::stride, 0] for o in range(kernel.shape[3])]
        return np.maximum(np.stack(maps, axis=-1) + bias, 0)

    def pool(self, x: np.ndarray) -> np.ndarray:
        size = (x.shape[0] - 3) // 2 + 1
        windows = [x[i : i + 2 * size - 1 : 2, j : j + 2 * size - 1 : 2] for i in range(3) for j in range(3)]
        return np.max(windows, axis=0)

    def fire(self, number: int, x: np.ndarray) -> np.ndarray:
        name = f"fire{number}"
        squeezed = self.conv(f"{name}/squeeze1x1", x)
        sides = self.conv(f"{name}/expand1x1", squeezed), self.conv(f"{name}/expand3x3", squeezed, pad=1)
        return np.concatenate(sides, axis=-1)

    def features(self, rgb: np.ndarray) -> np.ndarray:
        x = rgb[..., ::-1].astype(np.float64) - (103.939, 116.779, 123.68)
        x = self.pool(self.conv("conv1", x, stride=2))
        x = self.pool(self.fire(3, self.fire(2, x)))
        x = self.pool(self.fire(5, self.fire(4, x)))
        return self.fire(9, self.fire(8, self.fire(7, self.fire(6, x)))).mean(axis=(0, 1))


def test_keras_weights_give_what_keras_computes(shared_data: Path, rng: np.random.Generator) -> None:
    """At 63 px every pooling window is whole, as at 224 px, so that both kinds of padding agree."""
    path = shared_data / KERAS
    info = ENCODERS["squeezenet"]
    network = info.build(str(path)).eval()
    image = rng.integers(0, 256, (63, 63, 3), dtype=np.uint8)
    image[20:40, 10:50] = (200, 120, 180)
    normalised = (image / 255 - np.array(info.mean)) / np.array(info.std)
    with torch.inference_mode():
        got = network(torch.from_numpy(normalised.transpose(2, 0, 1)[None]).float())[0].numpy()
    expected = NumpyKerasNet(path).features(image)
    assert expected.std() > 0.1
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_imagenet_squeezenet_is_one_we_know(shared_data: Path) -> None:
    state = ENCODERS["squeezenet"].build(str(shared_data / KERAS)).state_dict()
    assert sum(t.numel() for t in state.values()) == 722_496


@pytest.mark.parametrize(("name", "other"), [("stnet", "squeezenet"), ("squeezenet", "stnet")])
def test_weights_of_another_network_are_refused(name: str, other: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(ENCODERS[other].build("none").state_dict(), path)
    architecture = {"stnet": "DenseNet-121", "squeezenet": "SqueezeNet 1.1"}[name]
    with pytest.raises(
        WeightsError, match=rf"other.safetensors does not hold the weights of {architecture}: it misses"
    ):
        ENCODERS[name].build(str(path))


def test_keras_weights_are_not_for_the_densenet(shared_data: Path) -> None:
    with pytest.raises(WeightsError, match=r"DenseNet-121: it misses features\.conv0"):
        ENCODERS["stnet"].build(str(shared_data / KERAS))


def test_shapes_and_numbers_are_checked(tmp_path: Path) -> None:
    state = {name: t.clone() for name, t in ENCODERS["squeezenet"].build("none").state_dict().items()}
    path = tmp_path / "w.safetensors"
    save_file({**state, "features.0.weight": torch.zeros(64, 4, 3, 3)}, path)
    with pytest.raises(WeightsError, match=r"features\.0\.weight has shape \(64, 4, 3, 3\), not \(64, 3, 3, 3\)"):
        ENCODERS["squeezenet"].build(str(path))
    state["features.3.squeeze.bias"][2] = torch.nan
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"w\.safetensors is damaged: features\.3\.squeeze\.bias"):
        ENCODERS["squeezenet"].build(str(path))


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    build = ENCODERS["squeezenet"].build
    with pytest.raises(WeightsError, match=r"nowhere\.pth cannot be read: No such file"):
        build(str(tmp_path / "nowhere.pth"))
    text = tmp_path / "text.pth"
    text.write_text("these are not weights")
    with pytest.raises(WeightsError, match=r"text\.pth cannot be read as weights"):
        build(str(text))
    truncated = tmp_path / "cut.pth"
    torch.save(ENCODERS["squeezenet"].build("none").state_dict(), truncated)
    truncated.write_bytes(truncated.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"cut\.pth cannot be read as weights"):
        build(str(truncated))
    truncated = tmp_path / "cut.safetensors"
    save_file(ENCODERS["squeezenet"].build("none").state_dict(), truncated)
    truncated.write_bytes(truncated.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"cut\.safetensors is damaged"):
        build(str(truncated))
    numbers = tmp_path / "numbers.pth"
    torch.save([1, 2, 3], numbers)
    with pytest.raises(WeightsError, match="holds no dictionary of weights"):
        build(str(numbers))
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["x"] = [1.0]
    with pytest.raises(WeightsError, match=r"bare\.h5 cannot be read as a Keras weights file"):
        build(str(tmp_path / "bare.h5"))


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (marker,)

    path = tmp_path / "evil.pth"
    torch.save({"features.0.weight": Evil()}, path)
    with pytest.raises(WeightsError, match="tensors only"):
        ENCODERS["squeezenet"].build(str(path))
    assert not marker.exists()


def test_imagenet_weights_come_from_the_cache_and_are_checked(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that pooch makes is replaced by a file; pooch checks it as it would check a real one."""
    import hashlib

    import pooch

    from napari_cpnn.models import backbones

    info = ENCODERS["squeezenet"]
    source = randomised("squeezenet")
    served = private_cache.parent / "served.pth"
    torch.save(source.state_dict(), served)
    calls = []

    def downloader(url: str, output_file: object, _pooch: object) -> None:
        calls.append(url)
        Path(str(output_file)).write_bytes(served.read_bytes())

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *_, **__: downloader)
    with pytest.raises(WeightsError, match=r"squeezenet1_1-b8a52dc0\.pth from .* arrived damaged"):
        info.build("imagenet")
    digest = hashlib.sha256(served.read_bytes()).hexdigest()
    honest = backbones.WeightsSource(info.source.url, digest)
    monkeypatch.setitem(info.__dict__, "source", honest)
    assert_same(info.build("imagenet"), source)
    assert_same(info.build("imagenet"), source)
    assert calls == [info.source.url] * 2
    assert (private_cache / "weights" / "squeezenet1_1-b8a52dc0.pth").is_file()


def test_offline_the_message_names_the_file_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch
    import requests

    def no_network(*_args: object, **_kwargs: object) -> None:
        raise requests.exceptions.ConnectionError("no route to host")

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *_, **__: no_network)
    with pytest.raises(WeightsError, match=r"densenet121-a639ec97\.pth.*give its path as weights.*'none'"):
        ENCODERS["stnet"].build("imagenet")
