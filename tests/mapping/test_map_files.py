"""Maps from elsewhere: right, or refused in one sentence; nothing in them runs, and no bit flips unseen."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from map_world import STRIDE, calibrated_map, make_world
from napari_cpnn.errors import MappingError
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.mapping.map_layout import sealed


@pytest.fixture(scope="module")
def cmap() -> CompositionMap:
    return make_world().cmap


@pytest.fixture(scope="module")
def saved(cmap, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "map.zarr"
    cmap.save(path)
    return path


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "map.zarr"))


@pytest.fixture
def trusted(tmp_path) -> Path:
    path = tmp_path / "trusted.zarr"
    calibrated_map(make_world(), [4 * STRIDE, -1.0]).save(path)
    return path


@pytest.mark.parametrize(
    ("row", "value", "name"),
    [(0, 9.0, "centers"), (5, -1.0, "floor"), (6, 1.0, "lower"), (9, -1.0, "upper"), (12, -1.0, "most"),
     (13, -77.0, "scale_um"), (13, 1e9, "scale_um"), (14, 3.0, "pcc"), (15, -5.0, "n_spots"), (16, 1e9, "slope")],
)  # fmt: skip
def test_a_calibration_that_makes_no_sense_is_refused(trusted, row, value, name):
    zarr.open_array(str(trusted / "trust"), mode="r+")[row, 0] = value
    with pytest.raises(MappingError, match=f"is damaged: {name} in trust has values that no calibration gives"):
        CompositionMap.load(trusted)


def test_a_calibration_of_an_earlier_version_has_no_slopes(trusted):
    array = zarr.open_array(str(trusted / "trust"), mode="r+")
    values = array[...]
    assert CompositionMap.load(trusted).trust.knows_slopes is False  # not known of this model
    array[16] = 0.3
    assert CompositionMap.load(trusted).trust.slope_of(0) == pytest.approx(0.3)
    for rows in (16, 15):
        group = zarr.open_group(str(trusted), mode="r+", use_consolidated=False)
        chunks, codecs = (rows, values.shape[1]), array.compressors
        group.create_array("trust", data=values[:rows], chunks=chunks, compressors=codecs, fill_value=0, overwrite=True)
        if rows == 16:
            again = CompositionMap.load(trusted).trust
            assert again.scale(0) == 4 * STRIDE
            assert not again.knows_slopes
    with pytest.raises(MappingError, match="trust is float32"):
        CompositionMap.load(trusted)


def write_old_layout(cmap: CompositionMap, path: Path) -> None:
    """What version 0.1 wrote: no checksums on the decoder, none on the attributes, no chunks of zeros."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    state = cmap.state.copy()
    state[cmap.tissue & (state != 2)] = 0
    arrays = {"weights": cmap.weights, "programs": cmap.programs, "out_of_domain": cmap.out_of_domain, "state": state}
    for name, array in arrays.items():
        group.create_array(
            name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=(*(min(64, n) for n in array.shape[:2]), *array.shape[2:]),
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            fill_value=0 if name == "state" else np.float16(np.nan),
        )[...] = array
    decoder = group.create_group("decoder")
    for name in ("prototypes", "alpha", "beta", "programs"):
        values = getattr(cmap.decoder, name)
        decoder.create_array(name, shape=values.shape, dtype=values.dtype, chunks=values.shape)[...] = values
    group.attrs["napari_cpnn"] = {
        "format": 1,
        "grid": cmap.grid.to_dict(),
        "cell_types": list(cmap.cell_types),
        "genes": list(cmap.genes),
        "states": {"unknown": 0, "background": 1, "done": 2},
        "provenance": cmap.provenance,
    }


def assert_same(one: CompositionMap, other: CompositionMap) -> None:
    assert one.grid == other.grid
    assert one.genes == other.genes
    assert one.cell_types == other.cell_types
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.out_of_domain, other.out_of_domain)
    for gene in one.genes:
        np.testing.assert_array_equal(one.expression(gene), other.expression(gene))


def test_maps_of_earlier_versions_open(cmap, tmp_path):
    write_old_layout(cmap, tmp_path / "old.zarr")
    assert_same(CompositionMap.load(tmp_path / "old.zarr"), cmap)
    shutil.rmtree(tmp_path / "old.zarr" / "out_of_domain")  # still older
    assert np.isnan(CompositionMap.load(tmp_path / "old.zarr").out_of_domain).all()
    shutil.rmtree(tmp_path / "old.zarr" / "decoder" / "alpha" / "c")
    with pytest.raises(MappingError, match="a part of decoder/alpha is missing"):
        CompositionMap.load(tmp_path / "old.zarr")


def chunks(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json")


def test_every_flipped_bit_of_a_chunk_is_seen(copy):
    assert len(chunks(copy)) == 8
    for file in chunks(copy):
        content = file.read_bytes()
        for place in sorted({0, len(content) // 2, len(content) - 1}):
            flipped = bytearray(content)
            flipped[place] ^= 4
            file.write_bytes(flipped)
            with pytest.raises(MappingError, match="it is damaged, or is no map of napari-cpnn"):
                CompositionMap.load(copy)
        file.write_bytes(content)
    CompositionMap.load(copy)


def test_every_flipped_bit_of_the_attributes_is_seen_or_harmless(copy, cmap):
    """A bit of a blank or of a name that nobody reads changes nothing; then the map is the same."""
    file = copy / "zarr.json"
    content = file.read_bytes()
    refused = 0
    for place in range(0, len(content), 11):
        flipped = bytearray(content)
        flipped[place] ^= 1
        file.write_bytes(flipped)
        try:
            assert_same(CompositionMap.load(copy), cmap)
        except MappingError as error:
            assert "\n" not in str(error)  # noqa: PT017 -- either may be
            refused += 1
    assert refused > len(content) / 11 / 2


@pytest.mark.parametrize(
    "array", ["state", "weights", "programs", "decoder/prototypes", "decoder/beta", "decoder/programs"]
)
def test_a_chunk_that_is_missing_is_never_zeros(copy, array):
    shutil.rmtree(copy / array / "c")
    with pytest.raises(MappingError, match=r"a part of .* is missing|lacks the values of \d+ patches"):
        CompositionMap.load(copy)


def edited(path: Path, change) -> None:
    """Change the card as somebody would who knows how it is sealed."""
    said = json.loads((path / "zarr.json").read_text())
    card = said["attributes"]["napari_cpnn"]
    del card["digest"]
    change(card)
    said["attributes"]["napari_cpnn"] = sealed(card)
    (path / "zarr.json").write_text(json.dumps(said))


BAD_CARDS = {
    "stride 0": lambda c: c["grid"].update(stride_um=0),
    "stride below 0": lambda c: c["grid"].update(stride_um=-16.0),
    "stride NaN": lambda c: c["grid"].update(stride_um=float("nan")),
    "stride infinite": lambda c: c["grid"].update(stride_um=float("inf")),
    "stride huge": lambda c: c["grid"].update(stride_um=10**400),
    "stride text": lambda c: c["grid"].update(stride_um="16"),
    "origin NaN": lambda c: c["grid"].update(origin_um=[0, float("nan")]),
    "origin short": lambda c: c["grid"].update(origin_um=[0]),
    "shape 0": lambda c: c["grid"].update(shape=[0, 18]),
    "shape below 0": lambda c: c["grid"].update(shape=[-10, -18]),
    "shape huge": lambda c: c["grid"].update(shape=[10**9, 10**9]),
    "shape broken": lambda c: c["grid"].update(shape=[10.5, 18]),
    "shape other": lambda c: c["grid"].update(shape=[18, 10]),
    "no grid": lambda c: c.pop("grid"),
    "grid a list": lambda c: c.update(grid=[1, 2]),
    "types twice": lambda c: c.update(cell_types=["a", "a", "b", "c"]),
    "types numbers": lambda c: c.update(cell_types=[1, 2, 3, 4]),
    "types text": lambda c: c.update(cell_types="abcd"),
    "type ..": lambda c: c.update(cell_types=["a", "..", "b", "c"]),
    "type empty": lambda c: c.update(cell_types=["a", "", "b", "c"]),
    "type long": lambda c: c.update(cell_types=["a", "x" * 100_000, "b", "c"]),
    "type of lines": lambda c: c.update(cell_types=["a", "b\nc", "b", "c"]),
    "type NUL": lambda c: c.update(cell_types=["a", "b\0", "b", "c"]),
    "types missing": lambda c: c.update(cell_types=["a", "b"]),
    "genes twice": lambda c: c.update(genes=["G"] * 9),
    "genes more": lambda c: c["genes"].append("MORE"),
    "provenance a list": lambda c: c.update(provenance=[1]),
    "newer": lambda c: c.update(format=99),
}


@pytest.mark.parametrize("change", BAD_CARDS.values(), ids=BAD_CARDS)
def test_an_edited_card_is_a_sentence(copy, change):
    edited(copy, change)
    with pytest.raises(MappingError) as caught:
        CompositionMap.load(copy)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "codec",
    [
        {"name": "numcodecs.pickle", "configuration": {}},
        {"name": "vlen-bytes"},
        {"name": "sharding_indexed", "configuration": {}},
        {"name": "x" * 1000},
    ],
    ids=lambda codec: codec["name"][:20],
)
def test_a_codec_that_is_not_ours_is_refused_before_anything_is_opened(copy, codec, monkeypatch):
    file = copy / "weights" / "zarr.json"
    said = json.loads(file.read_text())
    said["codecs"] = [codec, *said["codecs"]]
    file.write_text(json.dumps(said))
    monkeypatch.setattr(zarr, "open_group", lambda *_a, **_k: pytest.fail("opened"))
    with pytest.raises(MappingError, match=r"is stored with .* which no map of napari-cpnn is"):
        CompositionMap.load(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"data_type": "object"},
        {"data_type": {"name": "numpy.datetime64"}},
        {"shape": [10**6, 10**6, 4]},
        {"fill_value": 0},
        {"zarr_format": 2},
        {"node_type": "group"},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**9, 10**9, 4]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 0, 0]}}},
        {"chunk_grid": {}},
        {"storage_transformers": [{"name": "x"}]},
        {"codecs": "bytes"},
        {"codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 3, "checksum": False}}]},
    ],
    ids=str,
)
def test_an_array_that_is_not_ours_is_refused(copy, change, monkeypatch):
    file = copy / "weights" / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    monkeypatch.setattr(zarr, "open_group", lambda *_a, **_k: pytest.fail("opened"))
    with pytest.raises(MappingError):
        CompositionMap.load(copy)


def test_a_map_of_zarr_2_is_refused_before_its_filters_can_run(cmap, tmp_path, monkeypatch):
    """The pickle filter of Zarr 2 runs code; no map of ours was ever of version 2."""
    group = zarr.open_group(tmp_path / "map.zarr", mode="w", zarr_format=2)
    group.attrs["napari_cpnn"] = {"format": 1}
    group.create_array("state", shape=(2, 2), dtype="uint8")
    array = json.loads((tmp_path / "map.zarr" / "state" / ".zarray").read_text())
    array.update(dtype="|O", filters=[{"id": "pickle"}])
    (tmp_path / "map.zarr" / "state" / ".zarray").write_text(json.dumps(array))
    monkeypatch.setattr(zarr, "open_group", lambda *_a, **_k: pytest.fail("opened"))
    with pytest.raises(MappingError, match="no Zarr folder of version 3"):
        CompositionMap.load(tmp_path / "map.zarr")


def test_consolidated_metadata_do_not_hide_what_is_opened(copy, cmap):
    """What consolidated metadata say of an array is not what was checked."""
    said = json.loads((copy / "zarr.json").read_text())
    state = json.loads((copy / "state" / "zarr.json").read_text())
    said["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": {"state": {**state, "codecs": [{"name": "numcodecs.pickle"}]}},
    }
    (copy / "zarr.json").write_text(json.dumps(said))
    assert_same(CompositionMap.load(copy), cmap)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("inside", ["decoder/beta/c/0", "weights", "zarr.json"])
def test_links_out_of_the_folder_are_not_followed(copy, tmp_path, inside):
    moved = tmp_path / "elsewhere"
    (copy / inside).rename(moved)
    (copy / inside).symlink_to(moved)
    with pytest.raises(MappingError, match="is a link or a device, not a file"):
        CompositionMap.load(copy)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_does_not_make_us_wait(copy):
    (copy / "weights" / "c" / "0" / "0" / "0").unlink()
    os.mkfifo(copy / "weights" / "c" / "0" / "0" / "0")
    with pytest.raises(MappingError, match="is a link or a device, not a file"):
        CompositionMap.load(copy)


@pytest.mark.parametrize("name", ["zarr.json", "decoder/zarr.json", "state/zarr.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xfd", b"[" * 100_000, b"null", b"[]", b'{"a": ' * 50_000])
def test_garbled_metadata_are_a_sentence(copy, name, content):
    (copy / name).write_bytes(content)
    with pytest.raises(MappingError):
        CompositionMap.load(copy)


def test_a_map_that_does_not_fit_into_memory_is_a_sentence(copy, monkeypatch):
    from napari_cpnn import untrusted

    monkeypatch.setattr(untrusted, "available_memory", lambda: 1000)
    with pytest.raises(MappingError, match="more than this computer has memory for"):
        CompositionMap.load(copy)


def test_values_of_a_decoder_that_are_not_finite(copy):
    group = zarr.open_group(copy, mode="r+")
    group["decoder"]["beta"][0] = np.nan
    with pytest.raises(MappingError, match="decoder/beta has values that are not numbers"):
        CompositionMap.load(copy)


@pytest.mark.parametrize("door", ["load", "save"])
@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_names_that_no_disk_takes(cmap, tmp_path, name, door):
    with pytest.raises(MappingError, match=r"is not a file name|File name too long"):
        cmap.save(tmp_path / name) if door == "save" else CompositionMap.load(tmp_path / name)


def test_a_map_never_takes_the_place_of_anything_else(cmap, tmp_path):
    """Not even of another Zarr folder, or of one of ours with files of the user in it."""
    photos, other, notes = tmp_path / "photos", tmp_path / "other.zarr", tmp_path / "notes.txt"
    photos.mkdir()
    (photos / "cat.jpg").write_text("mine")
    zarr.open_group(other, mode="w", attributes={"of": "somebody"})
    notes.write_text("mine")
    cmap.save(tmp_path / "map.zarr")
    (tmp_path / "map.zarr" / "notes.txt").write_text("mine")
    for path in (photos, other, notes, tmp_path / "map.zarr"):
        with pytest.raises(MappingError, match="is not a map of napari-cpnn alone; choose another name"):
            cmap.save(path)
    assert (photos / "cat.jpg").read_text() == notes.read_text() == "mine"
    assert (tmp_path / "map.zarr" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    cmap.save(tmp_path / "empty")
    assert_same(CompositionMap.load(tmp_path / "empty"), cmap)


def test_a_map_comes_back_after_a_kill_between_two_renames(cmap, copy, monkeypatch):
    from napari_cpnn.storage import temporaries

    copy.rename(temporaries.old_name(copy))
    monkeypatch.setattr(temporaries, "_may_live", lambda *_: False)
    assert_same(CompositionMap.load(copy), cmap)
