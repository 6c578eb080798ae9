"""Sessions of a slide that is an OME-Zarr folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from tests.ui.conftest import MPP, tissue_image

from napari_cpnn.ui.sessions import restore
from napari_cpnn.ui.sessions.collect import identified, session_of
from napari_cpnn.ui.sessions.restore import open_session
from napari_cpnn.ui.sessions.session_file import read_session, save_session


def write_zarr(folder: Path, image: np.ndarray) -> Path:
    group = zarr.open_group(str(folder), mode="w", zarr_format=2)
    group.create_array("0", data=image, chunks=(256, 256, 3))
    axes = [*({"name": a, "unit": "micrometer"} for a in "yx"), {"name": "c"}]
    scale = {"coordinateTransformations": [{"type": "scale", "scale": [MPP, MPP, 1]}]}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0", **scale}]}]
    return folder


@pytest.mark.slow  # test_sessions has it for files
def test_a_folder_that_moved_is_chosen_and_known_again(explore, wait, model_path, tmp_path, monkeypatch):
    slide = write_zarr(tmp_path / "mein Präparat.ome.zarr", tissue_image())
    dock = explore(slide, show=True)
    dock.open_model(model_path)
    wait(lambda: dock.state.mapper is not None)
    session = identified(session_of(dock.viewer, dock))
    assert session.slide.path == slide
    path = save_session(session, tmp_path / "mine")
    assert read_session(path).slide.path == slide
    dock.shut_down()
    dock.viewer.layers.clear()
    store = zarr.open_group(str(tmp_path / "elsewhere.zarr"), mode="w", zarr_format=2)
    store.attrs["bioformats2raw.layout"] = 3  # the folder of the store is chosen, of which the slide is a part
    moved = Path(shutil.move(slide, tmp_path / "elsewhere.zarr" / "0"))
    monkeypatch.setattr(restore, "ask", lambda *_: True)
    monkeypatch.setattr(restore.QFileDialog, "getExistingDirectory", lambda *_: str(moved.parent))
    again = explore(show=True)
    opening = open_session(again.viewer, path)
    wait(lambda: opening.is_done and again.state.mapper is not None)
    assert opening.notes == []
    assert again.state.slide.path == moved
