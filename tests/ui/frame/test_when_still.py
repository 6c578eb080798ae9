"""Work of the window's thread waits while somebody uses mouse or keyboard."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog, QMainWindow

from napari_cpnn.ui.frame import when_still
from napari_cpnn.ui.frame.when_still import WhenStill


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved on."""
    now = [100.0]
    monkeypatch.setattr(when_still, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))
    monkeypatch.setattr(when_still, "BETWEEN_MS", 1)
    return now


@pytest.fixture
def window(qtbot):
    window = QMainWindow()
    qtbot.addWidget(window)
    window.resize(200, 200)
    with qtbot.waitExposed(window):
        window.show()
    return window


def looks(qtbot, work, monkeypatch, n=4):
    """Let it look a few times whether the window is at rest."""
    seen, is_still = [], work._is_still
    monkeypatch.setattr(work, "_is_still", lambda: (seen.append(is_still()), seen[-1])[1])
    qtbot.waitUntil(lambda: len(seen) >= n, timeout=120_000)
    return seen


@pytest.mark.parametrize("how", ["mouse", "key", "wheel", "busy", "dialog"])
def test_nothing_is_done_until_the_window_has_been_still_for_a_while(qtbot, clock, window, monkeypatch, how):
    done, busy = [], []
    work = WhenStill(window, lambda: iter(map(done.append, range(3))), lambda: bool(busy))
    assert not any(looks(qtbot, work, monkeypatch))
    clock[0] += when_still.STILL_S - 0.1
    dialog = QDialog(window)
    if how == "mouse":
        QTest.mousePress(window.windowHandle(), Qt.MouseButton.LeftButton, pos=QPoint(100, 100))
        QTest.mouseRelease(window.windowHandle(), Qt.MouseButton.LeftButton, pos=QPoint(100, 100))
    elif how == "key":
        QTest.keyClick(window.windowHandle(), "N")
    elif how == "wheel":
        at, none = QPointF(100, 100), Qt.MouseButton.NoButton
        phase, plain = Qt.ScrollPhase.NoScrollPhase, Qt.KeyboardModifier.NoModifier
        turn = QWheelEvent(at, window.mapToGlobal(at), QPoint(0, 0), QPoint(0, 120), none, plain, phase, False)
        QApplication.sendEvent(window.windowHandle(), turn)
    elif how == "busy":
        busy.append(True)
    else:
        dialog.open()
        qtbot.waitUntil(dialog.isVisible, timeout=120_000)
    clock[0] += 0.2
    assert not any(looks(qtbot, work, monkeypatch))
    assert done == []
    busy.clear()
    dialog.close()
    clock[0] += when_still.STILL_S
    qtbot.waitUntil(lambda: work.is_done, timeout=120_000)
    assert done == [0, 1, 2]


def test_input_between_two_steps_postpones_the_rest(qtbot, clock, window, monkeypatch):
    done = []

    def steps():
        for k in range(3):
            done.append(k)
            if k == 1:
                QTest.keyClick(window.windowHandle(), "N")
            yield

    work = WhenStill(window, steps, lambda: False)
    clock[0] += when_still.STILL_S
    qtbot.waitUntil(lambda: len(done) == 2, timeout=120_000)
    assert not any(looks(qtbot, work, monkeypatch))
    clock[0] += when_still.STILL_S
    qtbot.waitUntil(lambda: work.is_done, timeout=120_000)
    assert done == [0, 1, 2]


@pytest.mark.parametrize("how", ["closed", "failed"])
def test_it_ends_with_its_window_and_when_a_step_fails(qtbot, clock, window, how):
    done, ended = [], []

    def steps():
        try:
            while True:
                done.append(True)
                yield
                if how == "failed":
                    raise RuntimeError("no")
        finally:
            ended.append(True)

    work = WhenStill(window, steps, lambda: False)
    clock[0] += when_still.STILL_S
    qtbot.waitUntil(lambda: bool(done), timeout=120_000)
    if how == "closed":
        window.close()
    qtbot.waitUntil(lambda: work.is_done, timeout=120_000)
    assert ended == [True]
    assert not work._timer.isActive()
