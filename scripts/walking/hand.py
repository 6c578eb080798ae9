"""A user's hand: mouse and keys that go to whatever lies under them, counted, with a picture after each step.

Events are sent to the window, not to a widget, so that a control which is covered, cut off or too far down is found
out: what cannot be seen cannot be clicked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QMainWindow,
    QMenu,
    QMenuBar,
    QPushButton,
    QScrollArea,
    QTabBar,
    QWidget,
)

_LEFT = Qt.MouseButton.LeftButton
_PAUSE_S = 0.15


@dataclass
class Step:
    """What a step took."""

    name: str
    clicks: int
    keys: int
    scrolls: int
    seconds: float


class Hand:
    """Mouse and keyboard of a user of a window.

    Parameters
    ----------
    window, canvas
        Main window, and the widget that the slide is drawn on.
    folder
        Where the pictures go.
    """

    def __init__(self, window: QMainWindow, canvas: QWidget, folder: Path) -> None:
        self.window, self.canvas, self.folder = window, canvas, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.steps: list[Step] = []
        self.problems: list[str] = []
        self._files: list[str] = []
        self._begin()
        for name in ("getOpenFileName", "getSaveFileName", "getExistingDirectory", "getOpenFileNames"):
            setattr(QFileDialog, name, staticmethod(self._answer(name)))

    # -- steps ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.clicks = self.keys = self.scrolls = 0
        self._since = time.monotonic()

    def step(self, name: str) -> None:
        """End a step: note what it took, and take a picture of the screen."""
        self.pump(0.5)
        seconds = time.monotonic() - self._since
        self.steps.append(Step(name, self.clicks, self.keys, self.scrolls, seconds))
        print(f"{name}: {self.clicks} clicks, {self.keys} keys, {self.scrolls} scrolls, {seconds:.1f} s", flush=True)
        self.picture(f"{len(self.steps):02d}-{name}")
        self._begin()

    def picture(self, name: str) -> None:
        """Save a picture of the whole screen, with menus and dialogs."""
        screen = QApplication.primaryScreen()
        if screen is not None:
            screen.grabWindow(0).save(str(self.folder / f"{name}.png"))

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 300) -> None:
        """Wait for a state; one that does not come is a problem of the walk, which goes on."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                self._problem(f"waited {timeout_s:.0f} s in vain: {what}")
                return
            self.pump(0.03)

    def pump(self, seconds: float = _PAUSE_S) -> None:
        """Let the window work."""
        end = time.monotonic() + seconds
        QApplication.processEvents()
        while time.monotonic() < end:
            time.sleep(0.01)
            QApplication.processEvents()

    def _problem(self, text: str) -> None:
        self.problems.append(f"after step {len(self.steps)}: {text}")
        print(f"PROBLEM {self.problems[-1]}", flush=True)

    # -- mouse ---------------------------------------------------------------------------------------------

    def click(self, widget: QWidget, at: QPoint | None = None, *, double: bool = False) -> None:
        """Click a widget, in its middle or elsewhere; scroll to it if needed."""
        place = self._reach(widget, at)
        if place is None:
            return
        self.clicks += 1 + double
        top, point = place
        QTest.mouseMove(top, point)
        self.pump(0.05)
        (QTest.mouseDClick if double else QTest.mouseClick)(top, _LEFT, Qt.KeyboardModifier.NoModifier, point)
        self.pump()

    def _reach(self, widget: QWidget, at: QPoint | None = None) -> tuple[Any, QPoint] | None:
        """Return the native window below a place of a widget, and the place in it."""
        if not widget.isVisible():
            self._problem(f"{_name(widget)} is not to be seen")
            return None
        if not widget.isEnabled():
            self._problem(f"{_name(widget)} is grey")
        place = widget.rect().center() if at is None else at
        self._scroll_to(widget)
        everywhere = widget.mapToGlobal(place)
        there = QApplication.widgetAt(everywhere)
        if there is None or not (there is widget or widget.isAncestorOf(there)):
            self._problem(f"{_name(widget)} is covered by {_name(there)}")
            return None
        top = there.window()
        handle = None if top is None else top.windowHandle()
        if top is None or handle is None:
            self._problem(f"{_name(widget)} is in no window")
            return None
        return handle, top.mapFromGlobal(everywhere)

    def _scroll_to(self, widget: QWidget) -> None:
        parent = widget.parentWidget()
        while parent is not None and not isinstance(parent, QScrollArea):
            parent = parent.parentWidget()
        if parent is None:
            return
        bar = parent.verticalScrollBar()
        before = bar.value() if bar is not None else 0
        parent.ensureWidgetVisible(widget, 0, 4)
        self.pump(0.05)
        if bar is not None and bar.value() != before:
            self.scrolls += 1

    def tab(self, bar: QTabBar, text: str) -> None:
        """Click a tab."""
        for index in range(bar.count()):
            if bar.tabText(index) == text:
                self.click(bar, bar.tabRect(index).center())
                return
        self._problem(f"no tab {text}")

    def dock(self, title: str) -> None:
        """Click the tab of a dock."""
        for bar in self.window.findChildren(QTabBar):
            if bar.isVisible() and title in [bar.tabText(i) for i in range(bar.count())]:
                self.tab(bar, title)
                return
        self._problem(f"no dock {title}")

    def choose(self, box: QComboBox, text: str, picture: str = "") -> None:
        """Open a combo box and click an entry; with ``picture``, take one of the open list."""
        self.click(box)
        if picture:
            self.pump(0.4)
            self.picture(f"{len(self.steps) + 1:02d}-{picture}")
        view = box.view()
        row = next((i for i in range(box.count()) if box.itemText(i).startswith(text)), -1)
        if row < 0 or view is None or not view.isVisible():
            self._problem(f"no entry {text} in {_name(box)}: {[box.itemText(i) for i in range(box.count())]}")
            self.press(Qt.Key.Key_Escape)
            return
        index = box.model().index(row, box.modelColumn())
        view.scrollTo(index)
        self.pump(0.5)  # Qt takes a click right after opening for the one that opened the list
        self.click(view.viewport(), view.visualRect(index).center())

    def menu(self, *texts: str) -> None:
        """Go through the menus of the window, such as *Plugins*, *CPNN*, *Regions*."""
        self.open_menu(self.window.menuBar(), *texts)

    def button_menu(self, button: QPushButton, *texts: str, picture: str = "") -> None:
        """Open the menu of a button, and click an entry."""
        place = self._reach(button)
        if place is None:
            return
        self.clicks += 1
        QTest.mousePress(place[0], _LEFT, Qt.KeyboardModifier.NoModifier, place[1])
        self.pump(0.3)
        if picture:
            self.picture(f"{len(self.steps) + 1:02d}-{picture}")
        menu = button.menu()
        if menu is not None:
            self.open_menu(menu, *texts)

    def open_menu(self, menu: QMenuBar | QMenu | None, *texts: str) -> None:
        """Click entries of a menu and its submenus."""
        for text in texts:
            if menu is None:
                self._problem(f"no menu for {text}")
                return
            entry = next((a for a in menu.actions() if a.text().replace("&", "").startswith(text)), None)
            if entry is None:
                self._problem(f"no {text} among {[a.text() for a in menu.actions()]}")
                return
            menu_below = entry.menu()
            self.click(menu, menu.actionGeometry(entry).center())
            self.pump(0.2)
            menu = menu_below

    # -- on the slide --------------------------------------------------------------------------------------

    def place(self, x: float, y: float) -> QPoint:
        """Return the pixel of the canvas at some fractions of its width and height."""
        return QPoint(round(x * self.canvas.width()), round(y * self.canvas.height()))

    def move(self, x: float, y: float) -> None:
        """Rest the mouse somewhere on the canvas."""
        place = self._reach(self.canvas, self.place(x, y))
        if place is not None:
            QTest.mouseMove(place[0], place[1])
        self.pump()

    def slide(self, x: float, y: float, *, double: bool = False) -> None:
        """Click the slide."""
        self.click(self.canvas, self.place(x, y), double=double)

    def wheel(self, x: float, y: float, notches: int, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
        """Turn the wheel over the canvas; forward is in."""
        at = QPointF(self.place(x, y))
        for _ in range(abs(notches)):
            self.scrolls += 1
            turned = QPoint(0, 120 if notches > 0 else -120)
            everywhere = QPointF(self.canvas.mapToGlobal(at.toPoint()))
            phase = Qt.ScrollPhase.NoScrollPhase
            event = QWheelEvent(at, everywhere, QPoint(), turned, Qt.MouseButton.NoButton, modifier, phase, False)
            QApplication.sendEvent(self.canvas, event)
            self.pump(0.05)

    # -- keyboard ------------------------------------------------------------------------------------------

    def press(self, key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier, widget: QWidget | None = None) -> None:
        """Press a key, and release it."""
        self.keys += 1
        target = widget or QApplication.activePopupWidget() or QApplication.focusWidget() or self.canvas
        QTest.keyClick(target, key, modifier)
        self.pump()

    def hold(self, key: Any) -> None:
        """Press a key on the canvas, and keep it."""
        self.keys += 1
        QTest.keyPress(self.canvas, key)
        self.pump(0.3)

    def release(self, key: Any) -> None:
        """Release it."""
        QTest.keyRelease(self.canvas, key)
        self.pump(0.3)

    def write(self, widget: QWidget, text: str, *, enter: bool = True) -> None:
        """Click a field and type over what is in it."""
        self.click(widget)
        widget.window().activateWindow()  # there may be no window manager that does it for a dialog
        self.pump(0.1)
        field = QApplication.focusWidget()
        if field is None or not (field is widget or widget.isAncestorOf(field)):
            self._problem(f"{_name(widget)} was clicked, and does not have the focus")
            field = widget
        self.press(Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier, field)
        for letter in text:
            self.keys += 1
            QTest.keyClick(field, letter)
        if enter:
            self.press(Qt.Key.Key_Return, widget=QApplication.activePopupWidget() or field)
        elif QApplication.activePopupWidget() is not None:
            self.press(Qt.Key.Key_Escape)  # the list of names lies over what comes next
        self.pump()

    # -- files ---------------------------------------------------------------------------------------------

    def files(self, *names: Path | str) -> None:
        """Answer the next file dialogs; each counts as two clicks (the file, and *Open*)."""
        self._files += [str(name) for name in names]

    def _answer(self, dialog: str) -> Callable[..., Any]:
        def answer(*_: Any, **__: Any) -> Any:
            self.clicks += 2
            if not self._files:
                self._problem(f"a file dialog ({dialog}) that the walk did not expect")
            name = self._files.pop(0) if self._files else ""
            if dialog == "getExistingDirectory":
                return name
            return ([name], "") if dialog == "getOpenFileNames" else (name, "")

        return answer


def _name(widget: QWidget | None) -> str:
    if widget is None:
        return "nothing"
    text = widget.text() if hasattr(widget, "text") else widget.accessibleName() or widget.toolTip()
    return f"{type(widget).__name__} {str(text)[:40]!r}"
