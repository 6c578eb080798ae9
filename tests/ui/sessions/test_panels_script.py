"""A script draws the panels on screen as their *Export figure ...* does, without a screen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog
from shapely.geometry import box
from tests.ui.conftest import SETTINGS, tissue_image, write_slide
from tests.ui.test_panels import spots_table

from napari_cpnn.models import save_model
from napari_cpnn.painting import Shown
from napari_cpnn.regions import Region
from napari_cpnn.slides import open_slide
from napari_cpnn.ui.layers import slide_layer
from napari_cpnn.ui.panels.dock import Panels
from napari_cpnn.ui.panels.panel import PanelSpec, Source
from napari_cpnn.ui.regions import new_layer
from napari_cpnn.ui.sessions import python_code, session_of


@pytest.fixture
def dock(explore, wait, slide_path, model_path):
    found = explore(slide_path, show=True)
    found.open_model(model_path)
    wait(lambda: found.state.mapper is not None)
    wait(found.is_settled)
    return found


@pytest.mark.slow  # test_sessions runs a script, too
def test_its_figure_is_that_of_the_dock(dock, qtbot, wait, model, tmp_path, monkeypatch):
    """With another model, another slide, measured spots, a region, and contours."""
    state, viewer = dock.state, dock.viewer
    other = tmp_path / "other.safetensors"
    save_model(model, other)
    data, keywords, _ = slide_layer(open_slide(write_slide(tmp_path / "second.tif", tissue_image()[:, ::-1])))
    first = state.layer
    second = viewer.add_image(data, **keywords)
    wait(lambda: state.layer == second and state.slide is not None)  # what is opened is explored
    state.want_slide(first)
    wait(lambda: state.layer == first and state.mapper is not None)
    viewer.add_layer(new_layer(state.layer, [Region("Tumour", box(200, 200, 500, 500))], state.slide.mpp))
    state.measured = table = spots_table()
    state.choose_look(style="contours", colormap="magma", opacity=0.5)
    panels = Panels(viewer, SETTINGS)
    viewer.window.add_dock_widget(panels, name="Panels")
    gene = Shown("gene", ("ERBB2",))
    key = panels.controller.sources.register(second)
    panels.controller.set_panels(
        [
            PanelSpec("spots", gene),
            PanelSpec("map", gene, Source(model=other)),
            PanelSpec("map", Shown("dominant"), Source(slide=key)),
        ]
    )
    wait(lambda: panels.are_shown and panels.is_settled)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_a, **_k: (str(tmp_path / "dock.png"), ""))
    qtbot.mouseClick(panels.export, Qt.MouseButton.LeftButton)
    wait((tmp_path / "dock.png").exists)

    # The spots are a table without a file here; the script reads it as if it had one.
    session = session_of(viewer, dock)
    memory = dataclasses.replace(session.memory, spots=(str(tmp_path / "spots.h5ad"),))
    table.write_h5ad(tmp_path / "spots.h5ad")
    code = python_code(dataclasses.replace(session, memory=memory, has_spots=True))
    code = code[: code.index("# How well each gene")]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "script", "exec"), {"__name__": "__main__"})
    drawn, again = (
        np.asarray(Image.open(path).convert("RGB")).astype(int)
        for path in (tmp_path / "dock.png", tmp_path / "section_cpnn" / "section_panels.png")
    )
    assert drawn.shape == again.shape
    assert (np.abs(drawn - again).max(axis=-1) > 8).mean() < 0.002
    panels.shut_down()
