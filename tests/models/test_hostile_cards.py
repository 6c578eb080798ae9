"""Cards that anybody may have written: what cannot be shown counts as unknown, for every reader."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import napari_cpnn as nc
from napari_cpnn.errors import CheckpointError, CpnnWarning
from napari_cpnn.models import build_model, load_model, model_words, read_card, save_model, usable
from napari_cpnn.models.card import METADATA_KEY, card_text
from napari_cpnn.models.provenance import training_slides, unusable
from napari_cpnn.ui.frame import gene_note, model_card, model_label

GOOD = {
    "settings": {"tissue": "breast", "symmetries": False},
    "training_data": [{"slide": "C2.tif", "patient": "patient 1", "n_spots": 176}, {"slide": "C3", "n_spots": 12}],
    "metrics": {
        "held_out": {
            "slide": "C4", "pcc_mean": 0.25, "scc_mean": 0.5, "n_genes": 2, "per_gene_pcc": {"a": 0.5, "b": None},
        }
    },
    "held_out": "C4",
    "domain": {"calibrated_on": "C4", "appearance": {"eosin": [0, 1]}},
    "trust": {"calibrated_on": "C4", "n_spots": 30},
    "licence_notes": ["BSD"],
    "backbone_weights": "none",
    "epoch": 3,
}  # fmt: skip

VALUES = [5, -1.5, True, "x", "a\ud800\0\nb", [], [1], {}, {"a": 1}, {"slide": {}}, 10**400, [[]], "x" * 100_000]


def entries(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in the card."""
    yield path
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from entries(child, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = replaced(changed[path[0]], path[1:], new)
    return changed


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    settings = nc.TrainingSettings(
        backbone="squeezenet", weights="none", hidden=8, n_programs=2, patch=nc.PatchSpec(32, 0.5)
    )
    model = build_model(settings, ["a", "b"], ["x", "y"], [[0.5, 0.5], [0.1, 0.9]], [1.0, 2.0])
    model.provenance = dict(GOOD)
    save_model(model, path)
    return path


def with_provenance(original: Path, path: Path, provenance: Any) -> Path:
    card = read_card(original)
    card["provenance"] = provenance
    save_file(load_file(original), path, {METADATA_KEY: card_text(card)})
    return path


def read_all(model: nc.CPNN) -> str:
    """All that readers say about a model."""
    said = [model.trained_on, model_label(model), gene_note(model, "a"), gene_note(model, "b")]
    said += [f"{name}: {value}" for name, value in model_card(model)]
    model.has_seen("C2")
    text = "\n".join(said)
    assert text.isprintable() or all(line.isprintable() for line in text.splitlines())
    return text


def test_a_good_card_is_read_as_it_was_written(original: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CpnnWarning)
        model = load_model(original)
    held_out = {**GOOD["metrics"]["held_out"], "per_gene_pcc": {"a": 0.5}}
    assert model.provenance == {**GOOD, "metrics": {"held_out": held_out}}
    assert model.trained_on == "breast, 1 patient, 2 slides"
    assert [model.has_seen(name) for name in ("C2.tif", "C2", "C3.svs", "C4")] == [True, True, True, False]
    real = ("5714_HE_BT_C2.jpg", "5714_HE_BT_C2", "5714_HE_BT_D1", "5714_HE_BT_D2")  # pictures of C2, C2, C3, C4
    assert [model.has_seen(name) for name in real] == [True, True, True, False]
    said = read_all(model)
    assert "Trained on: C2.tif (176 spots), C3 (12 spots)" in said
    assert "Held out: C4: mean PCC 0.250, SCC 0.500 over 2 genes" in said
    assert "held-out PCC 0.50 on C4" in said


def nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("depth", [100, 900, 5_000])
def test_nesting_is_read_and_written_or_refused_in_one_sentence(
    original: Path, tmp_path: Path, depth: int, kind: type
) -> None:
    model = load_model(original)
    model.provenance["deep"] = nested(depth, kind)
    written = tmp_path / "written.safetensors"
    try:
        save_model(model, written)
    except CheckpointError as error:
        assert str(error).endswith("its provenance is nested too deeply, or contains itself.")  # noqa: PT017
        assert depth > 100
        assert not written.exists()
    else:
        assert load_model(written).provenance["deep"] == model.provenance["deep"]
    text = card_text({**read_card(original), "deep": 0}).replace('"deep": 0', f'"deep": {json_of(depth, kind)}')
    text = re.sub(r', "digest": "\w+"', "", text)
    save_file(load_file(original), tmp_path / "read.safetensors", {METADATA_KEY: text})
    try:
        load_model(tmp_path / "read.safetensors")
    except CheckpointError as error:
        assert "damaged; get the file again" in str(error)  # noqa: PT017
        assert depth > 900


def json_of(depth: int, kind: type) -> str:
    start, end = ("[", "]") if kind is list else ('{"a":', "}")
    return start * depth + "1" + end * depth


def test_a_provenance_that_contains_itself_is_refused(original: Path, tmp_path: Path) -> None:
    model = load_model(original)
    model.provenance["self"] = [model.provenance]
    with pytest.raises(CheckpointError, match="nested too deeply, or contains itself"):
        save_model(model, tmp_path / "m.safetensors")


def test_a_model_has_the_name_of_its_card_or_of_its_file(original: Path, tmp_path: Path) -> None:
    model = load_model(original)
    assert re.fullmatch(r"m \(napari-cpnn [\w.]+\)", model.title)
    model.provenance |= {"name": "her2\x00", "version": "2026-11-29"}
    save_model(model, tmp_path / "other.safetensors")
    assert load_model(tmp_path / "other.safetensors").title == "her2 (2026-11-29)"
    assert model_words("her2 (2026-11-29)", "0123456789") == "model her2 (2026-11-29), 01234567"
    assert [model_words(*given) for given in ((None, "0123456789"), ("a", None), ("", None))] == [
        "CPNN model 01234567",
        "model a",
        "CPNN",
    ]


def test_whatever_an_entry_holds_readers_survive(original: Path) -> None:
    """Every entry of the card, replaced by every kind of value."""
    model = load_model(original)
    for path in entries(GOOD):
        for value in VALUES:
            if path or isinstance(value, dict):
                model.provenance = usable(replaced(GOOD, path, value))
                known = read_all(model)
                assert len(known) < 5_000
                model.provenance = replaced(GOOD, path, value)  # not through a file
                assert read_all(model) == known


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("training_data",), 5),
        (("training_data", 0), 7),
        (("metrics",), "x"),
        (("metrics", "held_out"), [1]),
        (("metrics", "held_out", "pcc_mean"), "high"),
        (("domain",), [1]),
        (("settings",), "x"),
        (("licence_notes",), {"a": 1}),
    ],
)
def test_a_file_with_such_a_card_is_read_with_one_warning(
    original: Path, tmp_path: Path, path: tuple[Any, ...], value: Any
) -> None:
    file = with_provenance(original, tmp_path / "m.safetensors", replaced(GOOD, path, value))
    with pytest.warns(
        CpnnWarning, match=rf"entries that cannot be used \({path[0]}\); they count as unknown"
    ) as caught:
        model = load_model(file)
    assert len(caught) == 1
    read_all(model)
    save_model(model, tmp_path / "again.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error", CpnnWarning)
        assert load_model(tmp_path / "again.safetensors").provenance == model.provenance


def test_texts_are_on_one_line_without_control_characters(original: Path, tmp_path: Path) -> None:
    slides = [{"slide": "C2\n\0\ud800", "n_spots": 1}, "C3\tx"]
    file = with_provenance(original, tmp_path / "m.safetensors", {**GOOD, "training_data": slides})
    assert training_slides(load_model(file).provenance) == ["C2", "C3 x"]


def test_a_card_without_scores_or_with_none_has_none(original: Path) -> None:
    model = load_model(original)
    model.provenance["metrics"] = {"held_out": {"slide": "C4", "pcc_mean": None, "scc_mean": None, "n_genes": 0}}
    assert "Held out" not in read_all(model)
    assert unusable(model.provenance) == []  # there was nothing to measure: no fault


@pytest.mark.parametrize("encoder", [5, "x", [1], {}, {"name": "x"}])
def test_an_encoder_of_another_kind_is_a_sentence(original: Path, tmp_path: Path, encoder: Any) -> None:
    card = read_card(original)
    card["encoder"] = encoder
    file = tmp_path / "m.safetensors"
    save_file(load_file(original), file, {METADATA_KEY: card_text(card)})
    with pytest.raises(CheckpointError, match="its encoder has no name"):
        read_card(file)


def test_the_list_of_models_goes_on_after_a_damaged_one(tmp_path, monkeypatch, capsys, original):
    from napari_cpnn.cli import main
    from napari_cpnn.models import ZOO

    name = "breast-her2st"
    file = with_provenance(original, tmp_path / "m.safetensors", {"metrics": {"held_out": {"pcc_mean": 0.5}}})
    monkeypatch.setattr(type(ZOO[name]), "path", property(lambda self: file))
    assert main(["models"]) == 0
    assert "held out: unknown: mean PCC 0.500, 0 genes" in capsys.readouterr().out
    file.write_bytes(b"x" * 100)
    assert main(["models"]) == 0
    assert "cannot be used: " in capsys.readouterr().out
