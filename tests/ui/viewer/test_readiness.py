"""What is made ready for later actions does not delay a first picture."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QObject

from map_world import make_decoder
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.mapping import CompositionMap, Viewport
from napari_cpnn.ui.viewer import readiness
from napari_cpnn.ui.viewer.state import ExploreState

LEFT, ALL = Viewport(Rect(0, 0, 300, 150), 1.0), Viewport(Rect(0, 0, 300, 300), 1.0)


def mapper(*places, idle=False, running=True, failed=()):
    """Mapper of 3 x 3 patches, the last without tissue, some of which are done."""
    cmap = CompositionMap(Grid((3, 3), 100.0), make_decoder(), np.arange(9).reshape(3, 3) < 8)
    cmap.fill(np.array(places, int), np.full((len(places), 4), 0.25), np.zeros((len(places), 2)))
    cmap.fail(np.array(failed, int))
    return SimpleNamespace(map=cmap, progress=lambda: SimpleNamespace(idle=idle, running=running))


@pytest.mark.parametrize(
    ("waiting", "then"),
    [
        ({"model": "a model", "slide": "a slide"}, {"mapper": mapper(*range(8)), "view": ALL}),  # tissue is being found
        ({"mapper": mapper(), "view": ALL}, {"mapper": mapper(0, 3, 6, 1, 4, 7, 2, 5)}),
        ({"mapper": mapper(0, 3), "view": LEFT}, {"mapper": mapper(0, 3, 6, 1, 4, 7)}),  # the rest is not in view
        ({"mapper": mapper(), "view": ALL}, {"mapper": mapper(idle=True)}),  # no tissue in view
        ({"mapper": mapper(), "view": ALL}, {"mapper": mapper(running=False)}),
        ({"mapper": mapper(), "view": ALL}, {"mapper": mapper(failed=range(8))}),  # there will be no more
        ({"mapper": mapper(), "view": ALL}, {"view": None}),
    ],
)
def test_a_picture_is_awaited_until_all_tissue_in_view_has_a_colour(waiting, then):
    state = ExploreState()
    assert not state.awaits_picture
    vars(state).update(waiting)
    assert state.awaits_picture
    vars(state).update(then)
    assert not state.awaits_picture


def test_other_docks_are_loaded_after_the_first_picture(qtbot, monkeypatch):
    loaded, turns, awaited, owner = [], [], [True], QObject()
    monkeypatch.setattr(readiness, "_REST_MS", 1)
    monkeypatch.setattr(readiness, "ready_for_more", lambda: loaded.append(True))
    ready = readiness.GetReady(ViewerModel(), lambda: turns.append(True) or awaited[0], owner)
    ready()
    qtbot.waitUntil(lambda: len(turns) > 3, timeout=120_000)
    assert loaded == []
    awaited[0] = False
    qtbot.waitUntil(lambda: bool(loaded), timeout=120_000)


def test_it_does_not_wait_for_ever_and_can_be_called_off(qtbot, monkeypatch):
    loaded, turns, owner = [], [], QObject()
    monkeypatch.setattr(readiness, "_REST_MS", 1)
    monkeypatch.setattr(readiness, "ready_for_more", lambda: loaded.append(True))
    ready = readiness.GetReady(ViewerModel(), lambda: turns.append(True) or True, owner)
    ready()
    qtbot.waitUntil(lambda: bool(loaded), timeout=120_000)
    assert len(turns) == readiness._MOST_TURNS - 1
    ready()
    ready.cancel()
    ready._look_later.flush()  # would look now if it still wanted to
    assert len(turns) == readiness._MOST_TURNS - 1
