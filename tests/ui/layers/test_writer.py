"""File > Save Selected Layers, on an overlay in a real napari."""

from __future__ import annotations

import json
from importlib.resources import files

import anndata as ad
import napari
import numpy as np
import pandas as pd
import pytest
import zarr
from npe2 import PluginManager, PluginManifest
from npe2.io_utils import _write
from tests.ui.conftest import GENES, TYPES

from napari_cpnn.errors import ExportError
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.ui.layers.writer import write_map
from napari_cpnn.ui.viewer.state import Shown


@pytest.fixture
def dock(explore, wait, slide_path, model, monkeypatch):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    dock.session.viewer.reset_view()
    wait(dock.is_settled)
    dock.state.set_shown(Shown("gene", ("CD3E",)))
    viewer = dock.session.viewer.__wrapped__
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    return dock


@pytest.fixture
def save(dock):
    """Saves layers as napari does, with its own writers and ours to choose from, ours first."""
    manager = PluginManager()
    for package in ("napari_cpnn", "napari_builtins"):
        name = "napari.yaml" if package == "napari_cpnn" else "builtins.yaml"
        path = files(package) / name
        manager.register(PluginManifest.from_file(str(path)))

    def save(path, *layers):
        layers = layers or [dock.session.overlays.layer_of("gene")]
        return _write(str(path), list(layers), return_writer=True, _pm=manager)

    return save


def test_an_overlay_is_saved_as_its_map_by_the_ending(dock, save, tmp_path):
    cmap = dock.state.map
    done = int((cmap.state == 2).sum())
    for name in ("m.zarr", "m.h5ad", "m.csv", "m.geojson", "m.ome.zarr"):
        written, writer = save(tmp_path / name)
        assert written == [str(tmp_path / name)]
        assert writer.command == "napari-cpnn.write_map"
    np.testing.assert_array_equal(CompositionMap.load(tmp_path / "m.zarr").weights, cmap.weights)
    table = ad.read_h5ad(tmp_path / "m.h5ad")
    assert table.shape == (done, len(GENES))
    assert "hires" in table.uns["spatial"]["section"]["images"]
    lines = pd.read_csv(tmp_path / "m.csv")
    assert len(lines) == done
    assert lines.columns[-1] == "CD3E"  # the gene on screen
    properties = json.loads((tmp_path / "m.geojson").read_text())["features"][0]["properties"]
    assert properties["classification"]["name"] in TYPES
    assert "CD3E (log1p CP10k)" in properties["measurements"]
    assert zarr.open_group(tmp_path / "m.ome.zarr", mode="r")["0"].shape[1:] == cmap.grid.shape


@pytest.mark.slow  # test_overwrite has it for every writer
def test_saving_again_replaces(dock, save, tmp_path):
    for name in ("m.zarr", "m.csv"):
        save(tmp_path / name)
        save(tmp_path / name)
    (tmp_path / "photos.zarr").mkdir()
    with pytest.raises(ExportError, match="exists and is not a map, so it is not overwritten"):
        save(tmp_path / "photos.zarr")


def test_layers_of_others_are_left_to_others(dock, save, tmp_path):
    slide = dock.state.layer
    for layers in ([slide], [dock.session.overlays.layer_of("gene"), slide]):
        with pytest.raises(ExportError, match="only the layers of a CPNN map can be saved as a map"):
            save(tmp_path / "m.zarr", *layers)
    photo = napari.layers.Image(np.zeros((4, 4)))
    written, writer = save(tmp_path / "photo.tif", photo)
    assert not writer.command.startswith("napari-cpnn")
    _, writer = save(tmp_path / "photo", photo)  # without an ending
    assert not writer.command.startswith("napari-cpnn")
    assert written == [str(tmp_path / "photo.tif")]


def test_without_a_map_or_a_viewer_it_is_said(dock, tmp_path, monkeypatch):
    layers = [dock.session.overlays.layer_of("gene").as_layer_data_tuple()]
    dock.state.set_mapper(None)
    with pytest.raises(ExportError, match=r"m\.csv was not written"):
        write_map(str(tmp_path / "m.csv"), layers)
    monkeypatch.setattr(napari, "current_viewer", lambda: None)
    with pytest.raises(ExportError, match=r"m\.csv was not written"):
        write_map(str(tmp_path / "m.csv"), layers)
