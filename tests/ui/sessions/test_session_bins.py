"""Sessions keep many bins, which are drawn as one picture."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image
from tests.ui.test_compare_bins import binned, pixels_of, um_of

from napari_cpnn.painting import spot_colors
from napari_cpnn.spots import bins as bins_module
from napari_cpnn.ui.frame import show_dock
from napari_cpnn.ui.sessions.collect import dock_of, session_of
from napari_cpnn.ui.sessions.restore import open_session
from napari_cpnn.ui.sessions.session_file import save_session


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(bins_module, "MANY_BINS", 100)


def picture_of(dock) -> Image:
    layer = dock.spots_layer.layer
    return getattr(layer, "__wrapped__", layer)


def test_bins_are_there_again_in_their_colours(explore, wait, slide_path, model_path, tmp_path):
    table = binned(rows=12, cols=14, step=(420.0, 500.0))
    table.write_h5ad(tmp_path / "bins.h5ad")
    dock = explore(slide_path, show=True)
    dock.open_model(model_path)
    wait(lambda: dock.state.mapper is not None)
    compare = show_dock(dock.viewer, "Compare")
    dock.viewer.open(str(tmp_path / "bins.h5ad"), plugin="napari-cpnn")
    wait(lambda: compare.controller.comparison.scores is not None)
    gene = compare.controller.comparison.gene
    before = pixels_of(picture_of(compare), um_of(table))
    path = save_session(session_of(dock.viewer, dock), tmp_path / "mine")
    for one in (compare, dock):
        one.shut_down()
    dock.viewer.layers.clear()

    again = explore(show=True)
    opening = open_session(again.viewer, path)
    wait(lambda: opening.is_done and again.state.mapper is not None)
    assert opening.notes == []
    compare = dock_of(again.viewer, "compare")
    wait(lambda: compare is not None and compare.controller.comparison.scores is not None)
    layer = picture_of(compare)
    assert isinstance(layer, Image)
    assert compare.controller.comparison.gene == gene
    assert layer.name.endswith(f": {gene} measured")
    values = compare.controller.comparison.values("measured")
    colors = spot_colors(values, compare.controller.comparison.limits("measured"), again.state.look.colormap)
    after = pixels_of(layer, um_of(table))
    np.testing.assert_allclose(after / 255, colors, atol=1 / 255)
    np.testing.assert_array_equal(after, before)
    compare.shut_down()
