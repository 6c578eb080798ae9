"""Base class of the docks: a scrolling column, undo and help in its first row, and an orderly end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QSize
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QDockWidget, QHBoxLayout, QMainWindow, QWidget
from superqt.utils import qdebounced

from napari_cpnn.errors import CpnnError
from napari_cpnn.ui.frame.background import QtBackground
from napari_cpnn.ui.frame.guide import show_guide
from napari_cpnn.ui.frame.parts import ScrollColumn, TextLabel, bold_label, given, row, stack, tool_button
from napari_cpnn.ui.frame.plain_text import plain, warn
from napari_cpnn.ui.frame.room import fill_view, give_room, may_be_narrow, share_room
from napari_cpnn.ui.frame.single import OnePerViewer, frame_of, short_title, show_dock
from napari_cpnn.ui.viewer import state_of

if TYPE_CHECKING:
    import napari

_LAID_OUT_MS = 50
"""Until a window that was enlarged has its size, and its docks theirs."""


class Dock(QWidget, metaclass=OnePerViewer):
    """Base class of a dock with a ``page`` in the user guide; a subclass fills ``column`` and defines ``_end``.

    A viewer has one dock of each subclass: making another returns the one that is there. Opening it again by napari's
    menus or the command palette shows it in front; the buttons of its title bar hide and close it.
    """

    def __init__(self, viewer: napari.viewer.Viewer, page: str) -> None:
        super().__init__()
        self.viewer = viewer
        self.page = page
        self.state = state_of(viewer)
        self.background = QtBackground()
        self.message = TextLabel()
        self._frame: QDockWidget | None = None
        self._ended = self._closing = False
        self._connections: list[tuple[Any, Callable[..., Any]]] = []
        self._take_files: Callable[[list[Path]], None] | None = None
        self._join_tabs_later = qdebounced(self._join_tabs, timeout=0, parent=self)
        self._show_later = qdebounced(self._show_again, timeout=0, parent=self)
        self._fill_later = qdebounced(lambda: fill_view(self.viewer), timeout=_LAID_OUT_MS, parent=self)
        self._share_later = qdebounced(self._share_room, timeout=_LAID_OUT_MS, parent=self)
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

    @property
    def has_ended(self) -> bool:
        """Whether the dock was closed, or its viewer."""
        return self._ended

    def open_explore(self) -> None:
        """Show the Explore dock, where slide and model are chosen; open it if there is none."""
        show_dock(self.viewer, "Explore")

    def event(self, event: QEvent | None) -> bool:
        """Notice when the dock is opened or closed: napari puts this widget into a frame, or takes it out."""
        if given(event).type() == QEvent.Type.ParentChange:
            frame = frame_of(self)
            if frame is not None and frame is not self._frame:
                self._enter(frame)
            elif self.parentWidget() is None and self._frame is not None:
                self.shut_down()
        return super().event(event)

    def _enter(self, frame: QDockWidget) -> None:
        """Take note of the frame, and remove the one that this widget was taken out of."""
        before, self._frame = self._frame, frame
        frame.installEventFilter(self)
        if before is not None:
            before.removeEventFilter(self)
            self.viewer.window.remove_dock_widget(before)
        self._join_tabs_later()  # the window lists the dock only after this

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 (Qt's name)
        """Keep the dock in front when it is opened again: napari's menus would hide it, perhaps behind other tabs."""
        # Of a dock that Python is collecting, with the attributes gone, Qt may still send events.
        frame = vars(self).get("_frame")
        if frame is not None and watched is frame and not self._ended:
            kind = given(event).type()
            if kind == QEvent.Type.Close:  # a button of the title bar, not the menu
                self._closing = True
            elif kind == QEvent.Type.HideToParent and not self._closing:
                self._show_later()
            elif kind == QEvent.Type.ShowToParent:
                self._closing = False
                self._show_later()
        return super().eventFilter(watched, event)

    def _show_again(self) -> None:
        if self._frame is not None and not self._ended and not self._closing:
            self._frame.show()
            self._frame.raise_()

    def shut_down(self) -> None:
        """End the dock while its viewer stays open."""
        self.end(viewer_lives=True)

    def end(self, *, viewer_lives: bool) -> None:
        """Stop everything; when the viewer itself is gone, touch neither its layers nor any widget."""
        if self._ended:
            return
        self._ended = True
        self.state.history.changed.disconnect(self._history_changed)
        if not viewer_lives:  # what this dock gives back is no news for others, which may be about to end
            self.state.disconnect_all()
        self._join_tabs_later.cancel()
        self._show_later.cancel()
        self._share_later.cancel()
        self._fill_later.cancel()
        for signal, react in self._connections:
            signal.disconnect(react)
        self._end(viewer_lives=viewer_lives)
        # When the program is about to end, running tasks must finish before the interpreter exits.
        self.background.close(wait=not viewer_lives)

    def _end(self, *, viewer_lives: bool) -> None:
        """Release what the dock holds; called once."""

    def _opened(self, frame: QDockWidget) -> None:
        """React to being put into a window; called once for each window or frame."""

    def _join_tabs(self) -> None:
        """Share the place of our other docks as a tab: stacked, they would not fit on a small screen."""
        mine = frame_of(self)
        window = None if mine is None else mine.parentWidget()
        if mine is None or mine.isFloating() or not isinstance(window, QMainWindow):
            return
        mine.setWindowTitle(short_title(mine.windowTitle()))
        if window.isVisible():
            give_room(window)
            may_be_narrow(window, mine)
            self._share_later()
        self._opened(mine)
        area = window.dockWidgetArea(mine)
        for other in self._docks_of_viewer():
            frame = frame_of(other)
            if frame is None or frame is mine or frame.isFloating() or window.dockWidgetArea(frame) != area:
                continue
            window.tabifyDockWidget(frame, mine)
            mine.raise_()
            return

    def _share_room(self) -> None:
        mine = frame_of(self)
        window = None if mine is None else mine.parentWidget()
        if mine is not None and isinstance(window, QMainWindow):
            share_room(window, mine)
            self._fill_later()

    def _docks_of_viewer(self) -> list[Dock]:
        """Return our docks in the window of this one."""
        frame = frame_of(self)
        window = None if frame is None else frame.parentWidget()
        return [] if window is None else window.findChildren(Dock)

    def _history_changed(self) -> None:
        text = self.state.history.text
        self.undo.setEnabled(bool(text))
        self.undo.setToolTip(plain(f"undo: {text}") if text else "nothing to undo")
