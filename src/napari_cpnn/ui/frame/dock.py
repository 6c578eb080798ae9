"""Base class of the docks: a scrolling column, undo and help in its first row, and an orderly end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QDockWidget, QHBoxLayout, QMainWindow, QWidget
from superqt.utils import qdebounced

from napari_cpnn.errors import CpnnError
from napari_cpnn.ui.frame.background import QtBackground
from napari_cpnn.ui.frame.guide import show_guide
from napari_cpnn.ui.frame.parts import ScrollColumn, TextLabel, bold_label, given, row, stack, tool_button
from napari_cpnn.ui.frame.plain_text import plain, warn
from napari_cpnn.ui.viewer import state_of

if TYPE_CHECKING:
    import napari


class Dock(QWidget):
    """Base class of a dock with a ``page`` in the user guide; a subclass fills ``column`` and defines ``_end``."""

    def __init__(self, viewer: napari.viewer.Viewer, page: str) -> None:
        super().__init__()
        self.viewer = viewer
        self.page = page
        self.state = state_of(viewer)
        self.background = QtBackground()
        self.message = TextLabel()
        self._docked = self._ended = False
        self._connections: list[tuple[Any, Callable[..., Any]]] = []
        self._take_files: Callable[[list[Path]], None] | None = None
        self._join_tabs_later = qdebounced(self._join_tabs, timeout=0, parent=self)
        inside = QWidget()
        self.column = stack(inside=inside, margins=(8, 6, 8, 6))
        self.area = ScrollColumn()
        self.area.setWidget(inside)
        self.area.setWidgetResizable(True)
        stack(self.area, inside=self)
        self.undo = tool_button("↶", "")
        self.undo.clicked.connect(lambda: self.state.history.undo())  # noqa: PLW0108 -- clicked passes whether it is checked
        self.help = tool_button("?", "what this dock does: its page of the user guide")
        self.help.clicked.connect(lambda: show_guide(page, self))
        self.state.history.changed.connect(self._history_changed)
        self._history_changed()
        self.destroyed.connect(lambda: self.end(viewer_lives=False))

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        return QSize(380, 720)

    def first_row(self, title: str, *widgets: QWidget) -> QHBoxLayout:
        """Create the first row of the dock: a title, some widgets, and at the right undo and help."""
        return row(bold_label(title), *widgets, self.undo, self.help)

    def listen(self, react: Callable[..., Any], *signals: Any) -> None:
        """Connect to signals of the viewer or its state until the dock ends."""
        for signal in signals:
            signal.connect(react)
            self._connections.append((signal, react))

    def accept_drops(self, take_files: Callable[[list[Path]], None]) -> None:
        """Call ``take_files`` with files that are dropped on the dock."""
        self._take_files = take_files
        self.setAcceptDrops(True)

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:  # noqa: N802 (Qt's name)
        if given(given(event).mimeData()).hasUrls():
            given(event).acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:  # noqa: N802 (Qt's name)
        urls = given(given(event).mimeData()).urls()
        if self._take_files is not None:
            self._take_files([Path(url.toLocalFile()) for url in urls if url.isLocalFile()])
        given(event).acceptProposedAction()

    @staticmethod
    def notify(error: CpnnError) -> None:
        """Show a problem as a notification of napari."""
        warn(str(error))

    def open_explore(self) -> None:
        """Show the Explore dock, where slide and model are chosen; open it if there is none."""
        explore = next((dock for dock in self._docks_of_viewer() if dock.page == "explore"), None)
        frame = None if explore is None else _frame_of(explore)
        if frame is None:
            frame, _ = self.viewer.window.add_plugin_dock_widget("napari-cpnn", "Explore")
        frame.show()
        frame.raise_()

    def event(self, event: QEvent | None) -> bool:
        """Notice when the dock is closed: napari then takes this widget out of it."""
        if given(event).type() == QEvent.Type.ParentChange:
            if self.parentWidget() is not None:
                if not self._docked:
                    self._join_tabs_later()  # the window lists the dock only after this
                self._docked = True
            elif self._docked:
                self.shut_down()
        return super().event(event)

    def shut_down(self) -> None:
        """End the dock while its viewer stays open."""
        self.end(viewer_lives=True)

    def end(self, *, viewer_lives: bool) -> None:
        """Stop everything; when the viewer itself is gone, touch neither its layers nor any widget."""
        if self._ended:
            return
        self._ended = True
        self.state.history.changed.disconnect(self._history_changed)
        self._join_tabs_later.cancel()
        for signal, react in self._connections:
            signal.disconnect(react)
        self._end(viewer_lives=viewer_lives)
        # When the program is about to end, running tasks must finish before the interpreter exits.
        self.background.close(wait=not viewer_lives)

    def _end(self, *, viewer_lives: bool) -> None:
        """Release what the dock holds; called once."""

    def _join_tabs(self) -> None:
        """Share the place of our other docks as a tab: stacked, they would not fit on a small screen."""
        mine = _frame_of(self)
        window = None if mine is None else mine.parentWidget()
        if mine is None or mine.isFloating() or not isinstance(window, QMainWindow):
            return
        mine.setWindowTitle(mine.windowTitle().removesuffix(" (napari-cpnn)"))  # five tabs side by side
        area = window.dockWidgetArea(mine)
        for other in self._docks_of_viewer():
            frame = _frame_of(other)
            if frame is None or frame is mine or frame.isFloating() or window.dockWidgetArea(frame) != area:
                continue
            window.tabifyDockWidget(frame, mine)
            mine.raise_()
            return

    def _docks_of_viewer(self) -> list[Dock]:
        """Return our docks in the window of this one."""
        frame = _frame_of(self)
        window = None if frame is None else frame.parentWidget()
        return [] if window is None else window.findChildren(Dock)

    def _history_changed(self) -> None:
        text = self.state.history.text
        self.undo.setEnabled(bool(text))
        self.undo.setToolTip(plain(f"undo: {text}") if text else "nothing to undo")


def _frame_of(widget: QWidget) -> QDockWidget | None:
    """Return the dock widget that contains a widget."""
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent
