"""Session files: what is written comes back, wherever the files are now; whatever else is in one is one sentence."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
from pathlib import Path

import pytest
from shapely.geometry import box

from napari_cpnn.errors import CpnnError, SessionError
from napari_cpnn.geometry import Rect
from napari_cpnn.painting import Look, Shown
from napari_cpnn.regions import Region
from napari_cpnn.slides import copy_identity
from napari_cpnn.ui.cells import CellShown
from napari_cpnn.ui.sessions import session_file
from napari_cpnn.ui.sessions.session import CellsOnScreen, ModelFile, PanelOnScreen, Session, SlideFile, View
from napari_cpnn.ui.sessions.session_file import differs, is_session, read_session, save_session
from napari_cpnn.ui.viewer import Memory


@pytest.fixture
def session(tmp_path: Path) -> Session:
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("section.tif", "model.safetensors", "counts.tsv"):
        (folder / name).write_bytes(name.encode() * 100)
    return Session(
        slide=SlideFile(folder / "section.tif", "section.tif", copy_identity(folder / "section.tif"), (0.5, 0.25)),
        memory=Memory(
            shown=Shown("contribution", ("ERBB2", "B-cells"), level="major"),
            look=Look(colormap="magma", range_mode="manual", manual=(0.5, 2.0), scale_um=400.0, style="contours"),
            spots=(str(folder / "counts.tsv"),),
            move=("a turn", (0.0, 1.0, 5.0, 1.0, 0.0, 6.0)),
            library="A1",
        ),
        model=ModelFile(folder / "model.safetensors", "", "mine", "ab" * 32),
        view=View(Rect(100.0, 200.0, 500.0, 900.0), 0.5),
        level="major",
        colors={"B-cells": "#0072B2"},
        hierarchy={"naive": "B-cells"},
        regions=(Region("Tumour", box(0.0, 0.0, 100.0, 50.0)),),
        has_spots=True,
        finer=4,
    )


def facts_of(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_session_comes_back(session, tmp_path):
    path = save_session(session, tmp_path / "here" / "mine")
    assert path.name == "mine.cpnn.json"
    assert is_session(path)
    found = read_session(path)
    for name in ("slide", "model", "view", "level", "colors", "hierarchy", "has_spots", "finer"):
        assert getattr(found, name) == getattr(session, name), name
    for name in ("shown", "look", "spots", "move", "library"):
        assert getattr(found.memory, name) == getattr(session.memory, name), name
    assert found.memory.regions[0][0] == "Tumour"
    assert found.regions[0].outline.equals_exact(session.regions[0].outline, 1e-6, normalize=True)
    # In pixels of the slide, as QuPath has them: x by the width of a pixel, y by its height.
    ring = facts_of(path)["regions"]["features"][0]["geometry"]["coordinates"][0]
    assert {tuple(point) for point in ring} == {(0.0, 0.0), (400.0, 0.0), (400.0, 100.0), (0.0, 100.0)}


def test_a_folder_that_was_moved_is_found_beside_the_session(session, tmp_path):
    path = save_session(session, tmp_path / "here" / "mine.cpnn.json")
    moved = tmp_path / "there"
    shutil.move(path.parent, moved)
    found = read_session(moved / "mine.cpnn.json")
    assert found.slide.path == moved / "section.tif"
    assert found.model.path == moved / "model.safetensors"
    assert found.memory.spots == (str(moved / "counts.tsv"),)
    assert differs(found) == ""  # a copy, whenever it was made
    (moved / "section.tif").unlink()
    assert read_session(moved / "mine.cpnn.json").slide.path == session.slide.path  # where it was


def test_another_slide_of_that_name_is_said(session, tmp_path):
    path = save_session(session, tmp_path / "here" / "mine.cpnn.json")
    session.slide.path.write_bytes(b"another")
    assert "is not the slide section.tif of this session" in differs(read_session(path))


CHANGES = {
    "no format": {"format": "other"},
    "later version": {"version": 99},
    "no version": {"version": None},
    "slide is a list": {"slide": []},
    "no slide": {"slide": None},
    "pixel size": {"slide": {"path": "a", "name": "a", "identity": "", "mpp": [float("nan"), 1]}},
    "path is a number": {"slide": {"path": 5, "name": "a", "identity": "", "mpp": [1, 1]}},
    "device": {"slide": {"path": "/dev/zero", "name": "a", "identity": "", "mpp": [1, 1]}},
    "null in path": {"slide": {"path": "a\0b", "name": "a", "identity": "", "mpp": [1, 1]}},
    "kind of quantity": {"shown": {"kind": "everything", "names": []}},
    "no name": {"shown": {"kind": "gene", "names": []}},
    "quantity is a text": {"shown": "ERBB2"},
    "colour map": {"look": {"colormap": "__import__('os')"}},
    "opacity": {"look": {"opacity": 1e9}},
    "opacity text": {"look": {"opacity": "x"}},
    "range": {"look": {"manual": [float("inf"), 0]}},
    "view": {"view": {"um": [0, 0, -1, 5], "px_per_um": 1}},
    "view of three": {"view": {"um": [0, 0, 1], "px_per_um": 1}},
    "view nan": {"view": {"um": [0, 0, float("nan"), 5], "px_per_um": 1}},
    "colour": {"colors": {"T-cells": "red; background: url(x)"}},
    "colours": {"colors": [1, 2]},
    "hierarchy": {"hierarchy": {"a": 1}},
    "regions": {"regions": {"features": [{"type": "Feature"}]}},
    "regions text": {"regions": "x"},
    "spots": {"spots": [{"path": {}}]},
    "move": {"move": ["a", [1, 2, 3]]},
    "level": {"level": "all"},
    "stride": {"finer": 3},
    "stride text": {"finer": "1/2"},
    "stride yes": {"finer": True},
    "model": {"model": "model.safetensors"},
    "cells": {"cells": "cells.zarr"},
    "colour of cells": {"cells": {"shown": {"kind": "everything"}}},
    "cells seen": {"cells": {"shown": {"kind": "plain"}, "visible": 1}},
    "panels": {"panels": {"kind": "tissue"}},
    "panel of nothing": {"panels": [{"kind": "map", "shown": None}]},
    "kind of panel": {"panels": [{"kind": "film"}]},
    "slide of a panel": {"panels": [{"kind": "tissue", "slide": {"path": "a", "name": "a", "mpp": [0, 1]}}]},
    "signature": {"shown": {"kind": "signature", "names": ["alone"]}},
}


def test_cells_and_panels_come_back(session, tmp_path):
    folder = tmp_path / "here"
    for name in ("cells.zarr", "other.tif", "b.safetensors"):
        (folder / name).write_bytes(b"x")
    other = SlideFile(folder / "other.tif", "other.tif", "", (0.5, 0.5))
    gene, both = Shown("gene", ("ERBB2",)), Shown("signature", ("mine", "ERBB2", "CD3E"))
    by = ModelFile(folder / "b.safetensors", "", "b", "cd" * 32)
    place = Rect(0, 0, 1, 1)
    panels = (
        PanelOnScreen("tissue", None, place, None, "H&E"),
        PanelOnScreen("map", gene, place, None, "ERBB2 predicted", other, by),
        PanelOnScreen("spots", both, place, None, "mine measured"),
    )
    gone = PanelOnScreen("spots", gene, place, None, "gone", missing="no spots")
    cells = CellsOnScreen(folder / "cells.zarr", CellShown("signature", "mine", ("ERBB2", "CD3E")), visible=False)
    whole = dataclasses.replace(session, cells=cells, panels=(*panels, gone))
    path = save_session(whole, folder / "mine")
    (folder / "sub").mkdir()
    found = read_session(path)
    assert found.cells == cells
    assert found.panels == panels  # without the one that cannot be drawn
    moved = shutil.copytree(folder, tmp_path / "there")
    shutil.rmtree(folder)
    found = read_session(moved / path.name)
    assert found.cells.path == moved / "cells.zarr"
    assert (found.panels[1].slide.path, found.panels[1].model.path) == (moved / "other.tif", moved / "b.safetensors")
    for cells, expected in (
        (CellsOnScreen(None, CellShown("area")), CellsOnScreen(None, CellShown("area"))),  # found on the slide
        (CellsOnScreen(None, CellShown("type"), missing="they have no file yet"), None),
    ):
        again = dataclasses.replace(session, cells=cells)
        assert read_session(save_session(again, moved / "again")).cells == expected


def test_a_session_of_before_has_the_stride_of_the_patch(session, tmp_path):
    path = save_session(session, tmp_path / "here" / "mine.cpnn.json")
    facts = facts_of(path)
    assert facts.pop("finer") == 4
    path.write_text(json.dumps(facts))
    assert read_session(path).finer == 1


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_is_wrong_is_one_sentence(session, tmp_path, what):
    path = save_session(session, tmp_path / "here" / "mine.cpnn.json")
    path.write_text(json.dumps({**facts_of(path), **CHANGES[what]}))
    with pytest.raises(CpnnError) as caught:
        read_session(path)
    assert str(caught.value).endswith(".")
    assert "Traceback" not in str(caught.value)


def test_truncated_nested_huge_and_other_files(session, tmp_path, monkeypatch):
    path = save_session(session, tmp_path / "here" / "mine.cpnn.json")
    whole = path.read_bytes()
    for content in (whole[:-20], b"", b"[" * 100_000, b'{"format": ' * 50_000, b"\xff\xfe\x00", b"[]", b"3", b"null"):
        path.write_bytes(content)
        with pytest.raises(SessionError):
            read_session(path)
    monkeypatch.setattr(session_file, "_MOST_BYTES", 1000)
    for content in (whole + b" " * 1000, gzip.compress(whole + b" " * 10**6)):
        path.write_bytes(content)
        with pytest.raises(SessionError, match="too large"):
            read_session(path)
    with pytest.raises(SessionError, match="cannot be read"):
        read_session(tmp_path / "nothing.cpnn.json")
    with pytest.raises(SessionError, match="a device"):
        read_session("/dev/zero")


def test_what_a_later_version_adds_is_ignored(session, tmp_path):
    path = save_session(session, tmp_path / "here" / "mine.cpnn.json")
    path.write_text(json.dumps({**facts_of(path), "films": [1, 2], "look": {**facts_of(path)["look"], "new": 3}}))
    assert read_session(path).memory.look == session.memory.look


def test_a_session_without_model_view_and_regions(session, tmp_path):
    bare = dataclasses.replace(session, model=None, view=None, regions=(), memory=Memory(), has_spots=False)
    found = read_session(save_session(bare, tmp_path / "bare.cpnn.json"))
    assert (found.model, found.view, found.regions, found.memory.shown) == (None, None, (), None)


def test_a_folder_that_cannot_be_written_is_one_sentence(session, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SessionError, match="could not be written"):
        save_session(session, tmp_path / "file" / "mine.cpnn.json")
