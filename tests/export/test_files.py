"""Results are whole or not there, and nothing of the user's is lost."""

from __future__ import annotations

import errno
import json
import os
from types import SimpleNamespace

import pytest

import napari_cpnn as nc
from napari_cpnn.errors import ExportError
from napari_cpnn.export.files import replacing

OUT = ("map.h5ad", "map.csv", "map.geojson", "map.ome.zarr", "map.zarr")


@pytest.mark.parametrize("name", OUT)
def test_an_existing_result_is_refused_or_replaced(world, tmp_path, name):
    folder = tmp_path / "out"
    folder.mkdir()
    out = nc.export_map(world.cmap, folder / name, ["GENE0"])
    before = out.stat().st_ino
    with pytest.raises(ExportError, match=f"{name} exists already"):
        nc.export_map(world.cmap, out, ["GENE0"])
    nc.export_map(world.cmap, out, ["GENE1"], overwrite=True)
    assert out.stat().st_ino != before
    assert [p.name for p in folder.iterdir()] == [name]


@pytest.mark.parametrize("name", OUT)
def test_what_goes_wrong_leaves_what_was_there(empty, world, tmp_path, name):
    folder = tmp_path / "out"
    folder.mkdir()
    nc.export_map(world.cmap, folder / name, ["GENE0"])
    files = sorted(p.relative_to(folder) for p in folder.rglob("*"))
    with pytest.raises(ExportError, match="No patch of the map has been computed"):
        nc.export_map(empty, folder / name, overwrite=True)
    assert sorted(p.relative_to(folder) for p in folder.rglob("*")) == files


@pytest.mark.parametrize("name", OUT)
def test_a_full_disk(world, tmp_path, name, monkeypatch):
    """The disk is full while the values are written, after the file was begun."""
    from napari_cpnn.export.cells import MapCells

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(MapCells, "expression", full)
    monkeypatch.setattr("napari_cpnn.export.geojson.json.dumps", full)
    with pytest.raises(ExportError, match=f"{name} could not be written: No space left on device"):
        nc.export_map(world.cmap, folder / name, ["GENE0"])
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["map.h5ad", "map.zarr"])
def test_a_disk_that_is_too_small_is_found_before_the_work(world, tmp_path, name, monkeypatch):
    from napari_cpnn.export import files

    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(ExportError, match="but the disk has only 0 MB left; choose fewer genes or another place"):
        nc.export_map(world.cmap, tmp_path / name)


def test_hdf5_says_it_in_its_own_words(tmp_path):
    words = (
        "Can't synchronously write data (file write failed: time = Sat Nov 21\n, filename = 'a', errno = 28, error "
        "message = 'No space left on device', buf = 0x1)"
    )
    with pytest.raises(ExportError, match="could not be written: No space left on device"), replacing(tmp_path / "a"):
        raise OSError(words)
    with pytest.raises(ExportError, match="could not be written: OSError"), replacing(tmp_path / "a"):
        raise OSError


def test_folders_that_are_missing_or_read_only(world, tmp_path, monkeypatch):
    with pytest.raises(ExportError, match=r"The folder .*nowhere does not exist; create it"):
        nc.export_map(world.cmap, tmp_path / "nowhere" / "map.csv")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ExportError, match="Read-only file system"), replacing(tmp_path / "map.csv"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(world, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ExportError, match="Permission denied"):
        nc.export_map(world.cmap, tmp_path / "locked" / "map.csv")


def test_only_zarr_folders_are_ever_replaced(world, tmp_path):
    photos = tmp_path / "photos.zarr"
    photos.mkdir()
    (photos / "cat.jpg").write_text("meow")
    with pytest.raises(ExportError, match="a folder that is not a Zarr group, so it is not overwritten"):
        nc.export_map(world.cmap, photos, overwrite=True)
    with pytest.raises(ExportError, match="not a Zarr group"):
        nc.export_map(world.cmap, photos, file_format="csv", overwrite=True)
    assert (photos / "cat.jpg").read_text() == "meow"


def test_a_saved_map_is_not_replaced_by_another_format(world, tmp_path):
    """Both are Zarr folders, but a map cannot be made again from its export."""
    world.cmap.save(tmp_path / "map.zarr")
    with pytest.raises(ExportError, match="is a saved map of napari-cpnn, which an export never replaces"):
        nc.export_map(world.cmap, tmp_path / "map.zarr", overwrite=True)
    assert nc.CompositionMap.load(tmp_path / "map.zarr").grid == world.cmap.grid


def test_an_interrupt_leaves_nothing_behind(world, tmp_path, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(json, "dumps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        nc.to_geojson(world.cmap, folder / "map.geojson")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_old_result_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch, exchanges):
    import pathlib

    from napari_cpnn.storage import files

    old = tmp_path / "map.zarr"
    old.mkdir()
    (old / "zarr.json").write_text("{}")

    def broken(*_args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "exchange", broken if exchanges else lambda *_: False)
    monkeypatch.setattr(pathlib.Path, "replace", broken)
    with pytest.raises(ExportError, match="Input/output error"), replacing(old, overwrite=True) as temporary:
        temporary.mkdir()
    assert (old / "zarr.json").is_file()
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == ["map.zarr"]


def test_a_zarr_folder_with_files_of_the_user_in_it_is_not_replaced(world, tmp_path):
    out = nc.export_map(world.cmap, tmp_path / "map.ome.zarr", ["GENE0"])
    (out / "notes.txt").write_text("of great worth")
    with pytest.raises(ExportError, match="not a Zarr group, so it is not overwritten"):
        nc.export_map(world.cmap, out, ["GENE0"], overwrite=True)
    assert (out / "notes.txt").read_text() == "of great worth"


@pytest.mark.parametrize("name", ["a\0b.csv", "x" * 300 + ".csv", "x" * 300 + ".ome.zarr"])
def test_names_that_no_disk_takes(world, tmp_path, name):
    with pytest.raises(ExportError, match=r"is not a file name|File name too long"):
        nc.export_map(world.cmap, tmp_path / name, ["GENE0"])
