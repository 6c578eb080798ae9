"""Sessions keep the cells of the Cells dock and the panels."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ui.conftest import MPP, tissue_image, write_slide

from cell_maps import nuclei_at
from napari_cpnn.cells import CellMap
from napari_cpnn.painting import Shown
from napari_cpnn.slides import open_slide
from napari_cpnn.ui.cells import CellShown
from napari_cpnn.ui.frame import show_dock
from napari_cpnn.ui.layers import path_of, slide_layer
from napari_cpnn.ui.panels import PanelSpec, Source
from napari_cpnn.ui.sessions import actions
from napari_cpnn.ui.sessions.collect import dock_of, session_of
from napari_cpnn.ui.sessions.restore import open_session
from napari_cpnn.ui.sessions.session import CellsOnScreen
from napari_cpnn.ui.sessions.session_file import read_session, save_session


@pytest.fixture
def cells_path(model, tmp_path):
    rng = np.random.default_rng(0)
    centers = rng.uniform((140, 140), (620, 880), (200, 2))
    programs = rng.normal(size=(200, model.n_programs))
    facts = {"slide": "section.tif", "mpp": (MPP, MPP), "model": "made"}
    cells = CellMap(nuclei_at(centers), model.decoder(), rng.dirichlet(np.ones(3), 200), programs, facts)
    return cells.save(tmp_path / "cells.zarr")


def test_cells_and_panels_are_there_again(explore, wait, slide_path, model_path, cells_path, tmp_path, monkeypatch):
    other_path = write_slide(tmp_path / "other.tif", tissue_image()[:, ::-1].copy())
    dock = explore(slide_path, show=True)
    dock.open_model(model_path)
    wait(lambda: dock.state.mapper is not None)
    first = dock.state.layer
    data, keywords, _ = slide_layer(open_slide(other_path))
    layer = dock.viewer.add_image(data, **keywords)
    wait(lambda: dock.state.layer == layer and dock.state.slide is not None)  # what is opened is explored
    dock.state.want_slide(first)
    wait(lambda: dock.state.layer == first and dock.state.mapper is not None)
    cells = show_dock(dock.viewer, "Cells")
    cells.controller.sources.open(cells_path)
    wait(lambda: cells.controller.content is not None and cells.is_settled)
    cells.controller.show(CellShown("gene", "COL1A1"))
    cells.visible.click()
    panels = show_dock(dock.viewer, "Panels")
    key, gene = panels.controller.sources.register(layer), Shown("gene", ("ERBB2",))
    specs = (PanelSpec("tissue"), PanelSpec("map", gene), PanelSpec("map", gene, Source(slide=key)))
    panels.controller.set_panels(specs)
    wait(lambda: panels.is_settled)
    path = save_session(session_of(dock.viewer, dock), tmp_path / "mine")
    found = read_session(path)
    assert found.cells == CellsOnScreen(cells_path, CellShown("gene", "COL1A1"), visible=False)
    assert [(one.kind, one.shown) for one in found.panels] == [(one.kind, one.shown) for one in specs]
    assert found.panels[2].slide.path == other_path
    # Predicted or changed cells without a file are not in it, and this is said.
    told = []
    monkeypatch.setattr(actions, "warn", told.append)
    monkeypatch.setattr(actions, "save_file", lambda *_: None)
    cells.controller.sources.file = None
    actions.save(dock.viewer, dock)
    assert told == ["The cells are not in the session, since they have no file: Save ... them in the Cells dock first."]
    assert session_of(dock.viewer, dock).cells.missing
    for one in (panels, cells, dock):
        one.shut_down()
    dock.viewer.layers.clear()

    again = explore(show=True)
    opening = open_session(again.viewer, path)
    wait(lambda: opening.is_done and again.state.model is not None and again.state.mapper is not None)
    assert opening.notes == []
    cells, panels = dock_of(again.viewer, "cells"), dock_of(again.viewer, "panels")
    wait(lambda: cells.controller.colored is not None and cells.is_settled)
    assert len(cells.controller.content) == 200
    assert cells.controller.shown == CellShown("gene", "COL1A1")
    assert not cells.visible.isChecked()
    assert cells.canvas.layer is None
    assert [(one.kind, one.shown) for one in panels.controller.panels] == [(one.kind, one.shown) for one in specs]
    wait(lambda: panels.is_settled)
    assert panels.are_shown
    assert not any(job.missing for job, *_ in panels.controller.rows())
    third = panels.controller.panels[2].source.slide
    assert path_of(panels.controller.sources.layers[third]) == other_path
    assert path_of(again.state.layer) == slide_path  # the slide that is explored is that of the session
    for one in (panels, cells):
        one.shut_down()
