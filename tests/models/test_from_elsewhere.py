"""Models from anybody: used as they are or refused in one sentence; nothing runs, and nobody is told."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_cpnn.errors import CheckpointError, CpnnError, WeightsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import build_model, encoder_files, get_encoder, load_model, read_card, save_model
from napari_cpnn.models.backbones import foundation
from napari_cpnn.models.card import METADATA_KEY, ModelSpec, card_text
from napari_cpnn.models.cpnn import fingerprint
from napari_cpnn.settings import TrainingSettings

TINY = {"hidden": 8, "n_programs": 2, "patch": PatchSpec(32, 0.5)}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    settings = TrainingSettings(backbone="squeezenet", weights="none", **TINY)
    save_model(build_model(settings, ["a", "b"], ["x", "y"], [[0.5, 0.5], [0.1, 0.9]], [1.0, 2.0]), path)
    return path


def rewritten(
    original: Path,
    path: Path,
    change: Callable[[dict[str, Any]], None] | None = None,
    tensors: Callable[[dict[str, torch.Tensor]], None] | None = None,
) -> Path:
    """A model that somebody has edited who knows its digests."""
    card, state = read_card(original), load_file(original)
    if tensors is not None:
        tensors(state)
        card["fingerprint"] = fingerprint(ModelSpec.from_dict(card["model"]), state)
    if change is not None:
        change(card)
    save_file(state, path, {METADATA_KEY: card_text(card)})
    return path


def test_rewriting_alone_changes_nothing(original: Path, tmp_path: Path) -> None:
    again = load_model(rewritten(original, tmp_path / "m.safetensors", tensors=lambda _: None))
    assert again.fingerprint == load_model(original).fingerprint


BAD = {
    "genes twice": lambda m: m.update(genes=["a", "a"]),
    "genes numbers": lambda m: m.update(genes=[1, 2]),
    "genes text": lambda m: m.update(genes="ab"),
    "gene ..": lambda m: m.update(genes=["..", "b"]),
    "gene NUL": lambda m: m.update(genes=["a\0", "b"]),
    "gene long": lambda m: m.update(genes=["a" * 10_000, "b"]),
    "type empty": lambda m: m.update(cell_types=["", "y"]),
    "genes more": lambda m: m.update(genes=["a", "b", "c"]),
    "std 0": lambda m: m.update(std=[0.2, 0, 0.2]),
    "std short": lambda m: m.update(std=[0.2, 0.2]),
    "mean text": lambda m: m.update(mean=["x", 0, 0]),
    "hidden huge": lambda m: m.update(hidden=10**18),
    "hidden below 0": lambda m: m.update(hidden=-8),
    "hidden broken": lambda m: m.update(hidden=8.5),
    "hidden text": lambda m: m.update(hidden="8"),
    "programs huge": lambda m: m.update(n_programs=10**400),
    "patch 0": lambda m: m["patch"].update(size_px=0),
    "patch huge": lambda m: m["patch"].update(size_px=10**9),
    "patch of nothing": lambda m: m["patch"].update(mpp=0),
    "no patch": lambda m: m.pop("patch"),
    "patch a list": lambda m: m.update(patch=[32, 0.5]),
    "backbone unknown": lambda m: m.update(backbone="../x"),
    "backbone a list": lambda m: m.update(backbone=["squeezenet"]),
    "head unknown": lambda m: m.update(head=["cpnn"]),
    "gain text": lambda m: m.update(program_gain="x"),
    "arguments a list": lambda m: m.update(backbone_args=[1]),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_an_edited_card_is_a_sentence(original: Path, tmp_path: Path, change: Callable[[Any], None]) -> None:
    path = rewritten(original, tmp_path / "m.safetensors", lambda card: change(card["model"]))
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("entry", ["model", "provenance", "fingerprint", "domain", "format_version"])
@pytest.mark.parametrize("value", [None, 3, "x", [1], {"n_axes": 10**12}, {"n_axes": -1}])
def test_an_entry_of_another_kind(original: Path, tmp_path: Path, entry: str, value: Any) -> None:
    if (entry, value) in [("domain", None), ("provenance", {}), ("format_version", 3)]:
        pytest.skip("as ours may be")
    path = rewritten(original, tmp_path / "m.safetensors", lambda card: card.update({entry: value}))
    if entry == "provenance" and isinstance(value, dict):
        load_model(path)
        return
    with pytest.raises(CheckpointError):
        load_model(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(original: Path, tmp_path: Path, value: float) -> None:
    path = rewritten(original, tmp_path / "m.safetensors", tensors=lambda s: s["scale"].fill_(value))
    with pytest.raises(CheckpointError, match=r"scale has values that are not numbers"):
        load_model(path)


@pytest.mark.parametrize("kind", [torch.float64, torch.int32, torch.bfloat16])
def test_tensors_of_another_type(original: Path, tmp_path: Path, kind: torch.dtype) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["scale"] = state["scale"].to(kind)

    path = rewritten(original, tmp_path / "m.safetensors", tensors=change)
    with pytest.raises(CheckpointError, match=r"scale is of torch\.\w+, not of torch\.float32"):
        load_model(path)


def test_every_flipped_bit_of_the_card_is_seen(original: Path, tmp_path: Path) -> None:
    content = bytearray(original.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    start = content.index(b"format_version")
    changed = tmp_path / "m.safetensors"
    fine = load_model(original).fingerprint
    refused = 0
    places = range(start, 8 + length, max(1, (8 + length - start) // 60))
    for place in places:
        content[place] ^= 1
        changed.write_bytes(content)
        content[place] ^= 1
        try:
            assert load_model(changed).fingerprint == fine
        except CheckpointError:
            refused += 1
    assert refused > 0.8 * len(places)


def with_header(path: Path, header: bytes, rest: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + rest)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":' * 100_000,
        b'{"__metadata__": ' + b"[" * 100_000,
        b'{"x": {"dtype": "F32", "shape": [1000000000, 1000000], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e400]}}',
        b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}',
        b'{"x": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 4]}}',
        (
            b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
            b'"y": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
        ),
        b'{"x": [], "__metadata__": 3}',
        b"{" + b" " * 1000,
        b'{"\xff": 1}',
    ],
    ids=range(10),
)
def test_headers_that_lie(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"The header of .* is damaged|truncated|no model card"):
        load_model(with_header(tmp_path / "m.safetensors", header, b"\0" * 4))


def test_a_header_that_would_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", 10**12) + b"{")
    with pytest.raises(CheckpointError, match="is not a napari-cpnn model"):
        load_model(path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_names_that_no_disk_takes(original: Path, tmp_path: Path, name: str) -> None:
    for door in (load_model, read_card, lambda path: save_model(load_model(original), path)):
        with pytest.raises(CheckpointError, match=r"is not a file name|File name too long"):
            door(tmp_path / name)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    settings = TrainingSettings(backbone="squeezenet", weights="none", **TINY)
    model = build_model(settings, ["a", "b\n"], ["x", "y"], [[0.5, 0.5], [0.1, 0.9]], [1.0, 2.0])
    with pytest.raises(CheckpointError, match=r"its genes have the name .* which is none"):
        save_model(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.glob("*.safetensors"))


# -- encoders that are elsewhere -------------------------------------------------------------------------------------


class ContactedError(BaseException):
    """Somebody was asked for something; nobody tries that again."""


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to reach another computer, which ends the test."""
    import socket

    tried: list[str] = []

    def refuse(*args: Any, **_: Any) -> None:
        tried.append(str(args[:2]))
        raise ContactedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    foundation.by_library.cache_clear()
    return tried


@pytest.mark.parametrize("name", ["hf:org/x", "phikon-v2", "resnet18", "squeezenet"])
@pytest.mark.parametrize("embedded", [True, False])
def test_a_strangers_card_tells_nobody_that_it_is_opened(
    original: Path, tmp_path: Path, watched: list[str], name: str, embedded: bool
) -> None:
    pytest.importorskip("transformers", reason="the extra 'foundation' is not installed")
    args = {"encoder": name, "embedded": embedded}

    def change(card: dict[str, Any]) -> None:
        card["model"].update(backbone="frozen", backbone_args=args)
        card["encoder"] = {"name": name, "fingerprint": "0" * 64}

    path = rewritten(original, tmp_path / "m.safetensors", change)
    with pytest.raises(CpnnError) as caught:
        load_model(path)
    assert watched == []
    if not embedded:
        assert "on this computer" in str(caught.value)
        assert "'pretrained' downloads them" in str(caught.value)
    if name == "hf:org/x":
        with pytest.raises(ContactedError):
            load_model(path, "pretrained")  # now it was asked for


def test_a_fingerprint_is_no_way_to_a_file(original: Path, tmp_path: Path, watched: list[str]) -> None:
    def change(card: dict[str, Any]) -> None:
        card["model"].update(backbone="frozen", backbone_args={"encoder": "ciga", "embedded": False})
        card["encoder"] = {"name": "ciga", "fingerprint": "../../../secret"}

    with pytest.raises(CheckpointError, match="names no fingerprint of its encoder"):
        load_model(rewritten(original, tmp_path / "m.safetensors", change))
    encoder_files.remember_place("../../x", str(tmp_path), "ciga")
    assert "../../x" not in encoder_files._FOUND


def test_what_was_asked_for_once_may_come_again(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same name only: another card might put another server's beside the same fingerprint."""
    encoder_files.remember_place("a" * 64, "pretrained", "hf:org/x")
    monkeypatch.setattr(encoder_files, "_FOUND", {})
    assert encoder_files.known_place("a" * 64, "hf:org/x") == "pretrained"
    assert encoder_files.known_place("a" * 64, "hf:evil/x") is None
    assert encoder_files.known_place("b" * 64, "hf:org/x") is None


EVIL = """
import pathlib
pathlib.Path({mark!r}).write_text("ran")
from transformers import PretrainedConfig, PreTrainedModel
class EvilConfig(PretrainedConfig):
    model_type = "evil"
class EvilModel(PreTrainedModel):
    config_class = EvilConfig
"""


@pytest.mark.parametrize("model_type", ["evil", "dinov2"])
def test_code_beside_a_model_never_runs_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    pytest.importorskip("transformers", reason="the extra 'foundation' is not installed")
    mark, folder = tmp_path / "ran", tmp_path / "encoder"
    folder.mkdir()
    (folder / "code.py").write_text(EVIL.format(mark=str(mark)))
    auto_map = {"AutoConfig": "code.EvilConfig", "AutoModel": "code.EvilModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "auto_map": auto_map}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(WeightsError, match=r"comes with code of its own, which is never run|cannot be loaded"):
        get_encoder(f"hf:{folder}").build("pretrained")
    with pytest.raises(WeightsError):
        get_encoder("phikon-v2").build(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "[" * 100_000, json.dumps({"model_type": "dinov2", "hidden_size": "x"}),
     json.dumps({"model_type": "dinov2", "attn_implementation": "org/kernel"}),
     json.dumps({"model_type": "dinov2", "num_hidden_layers": 1, "hidden_size": -4})],
    ids=range(8),
)  # fmt: skip
def test_configurations_that_are_none(tmp_path: Path, text: str) -> None:
    pytest.importorskip("transformers", reason="the extra 'foundation' is not installed")
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text(text)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    with pytest.raises(WeightsError):
        get_encoder(f"hf:{folder}").build("pretrained")


class Runs:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "ran")


@pytest.mark.parametrize("name", ["w.pth", "pytorch_model.bin"])
def test_pickles_that_run_code_are_refused(tmp_path: Path, name: str) -> None:
    from napari_cpnn.models.backbones.hub import _require_tensors

    torch.save({"a": Runs(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(WeightsError, match="holds tensors only"):
        get_encoder("squeezenet").build(str(tmp_path / name))
    with pytest.raises(WeightsError, match="holds tensors only"):
        _require_tensors(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_memory_that_runs_out_is_a_sentence(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_cpnn import untrusted

    monkeypatch.setattr(untrusted, "available_memory", lambda: 1000)
    with pytest.raises(CheckpointError, match="more than this computer has memory for"):
        load_model(original)
