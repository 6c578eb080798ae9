"""What is made ready for later actions does not delay a first picture."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QObject

from napari_cpnn.ui.viewer import readiness
from napari_cpnn.ui.viewer.state import ExploreState


def progress(done, *, idle=False, running=True):
    return SimpleNamespace(progress=lambda: SimpleNamespace(done=done, idle=idle, running=running))


@pytest.mark.parametrize(
    ("waiting", "then"),
    [
        ({"loading": True}, {"loading": False}),
        ({"model": "a model", "slide": "a slide"}, {"mapper": progress(64)}),  # while tissue is being found
        ({"mapper": progress(0)}, {"mapper": progress(1)}),
        ({"mapper": progress(0)}, {"mapper": progress(0, idle=True)}),  # no tissue in view
        ({"mapper": progress(0)}, {"mapper": progress(0, running=False)}),
    ],
)
def test_other_docks_are_loaded_after_the_first_picture(qtbot, monkeypatch, waiting, then):
    loaded, turns, state, owner = [], [], ExploreState(), QObject()
    monkeypatch.setattr(readiness, "_REST_MS", 1)
    monkeypatch.setattr(readiness, "ready_for_more", lambda: loaded.append(True))

    vars(state).update(waiting)
    ready = readiness.GetReady(ViewerModel(), state, lambda: bool(vars(state).get("loading")), owner)
    look = ready._awaits_picture
    monkeypatch.setattr(ready, "_awaits_picture", lambda: turns.append(look()) or turns[-1])
    ready()
    qtbot.waitUntil(lambda: len(turns) > 3)
    assert loaded == []
    assert all(turns)
    vars(state).update(then)
    qtbot.waitUntil(lambda: bool(loaded))


def test_it_does_not_wait_for_ever_and_can_be_called_off(qtbot, monkeypatch):
    loaded, turns, owner = [], [], QObject()
    monkeypatch.setattr(readiness, "_REST_MS", 1)
    monkeypatch.setattr(readiness, "ready_for_more", lambda: loaded.append(True))
    ready = readiness.GetReady(ViewerModel(), ExploreState(), lambda: turns.append(True) or True, owner)
    ready()
    qtbot.waitUntil(lambda: bool(loaded))
    assert len(turns) == readiness._MOST_TURNS - 1
    ready()
    ready.cancel()
    ready._look_later.flush()  # would look now if it still wanted to
    assert len(turns) == readiness._MOST_TURNS - 1
