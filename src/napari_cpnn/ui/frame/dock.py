"""What every dock has: a column that scrolls, undo and help in its first row, and an end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QSize, QTimer
from qtpy.QtWidgets import QDockWidget, QHBoxLayout, QMainWindow, QVBoxLayout, QWidget

from napari_cpnn.errors import CpnnError
from napari_cpnn.ui.frame.background import QtBackground
from napari_cpnn.ui.frame.guide import show_guide
from napari_cpnn.ui.frame.parts import Column, bold_label, given, row, stop_timer, text_label, tool_button
from napari_cpnn.ui.frame.plain_text import plain, warn
from napari_cpnn.ui.viewer import state_of

if TYPE_CHECKING:
    import napari


class Dock(QWidget):
    """A dock on the state of its viewer; a subclass fills ``column``, and says in ``_end`` what it lets go of.

    Parameters
    ----------
    viewer
        napari's viewer, or the proxy that plugins get.
    page
        Its page in the user guide, such as ``"explore"``.
    """

    def __init__(self, viewer: napari.viewer.Viewer, page: str) -> None:
        super().__init__()
        self.viewer = viewer
        self.state = state_of(viewer)
        self.background = QtBackground()
        self.message = text_label()
        self._docked = self._ended = False
        self._joining = QTimer(self)
        self._joining.setSingleShot(True)
        self._joining.timeout.connect(self._join_tabs)
        inside = QWidget()
        self.column = QVBoxLayout(inside)
        self.column.setContentsMargins(8, 6, 8, 6)
        self.column.setSpacing(6)
        area = Column()
        area.setWidget(inside)
        area.setWidgetResizable(True)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.undo = tool_button("↶", "")
        self.undo.clicked.connect(lambda: self.state.history.undo())  # noqa: PLW0108 -- clicked says whether checked
        self.help = tool_button("?", "what this dock does: its page of the user guide")
        self.help.clicked.connect(lambda: show_guide(page, self))
        self.state.history.changed.connect(self._history_changed)
        self._history_changed()
        self.destroyed.connect(lambda: self.end(viewer_lives=False))

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        return QSize(380, 720)

    def first_row(self, title: str, *widgets: QWidget) -> QHBoxLayout:
        """The first row of the dock: a title, what belongs to it, and at the right undo and help."""
        return row(bold_label(title), *widgets, self.undo, self.help)

    def say(self, text: str) -> None:
        """The one line that says what is going on, or what to do next."""
        self.message.setText(text)
        self.message.setVisible(bool(text))

    @staticmethod
    def notify(error: CpnnError) -> None:
        """Show a problem as napari shows them."""
        warn(str(error))

    def open_explore(self) -> None:
        """Open the Explore dock, where slide and model are chosen, or show the one that is there."""
        frame, _ = self.viewer.window.add_plugin_dock_widget("napari-cpnn", "Explore")
        frame.raise_()

    def event(self, event: QEvent | None) -> bool:
        """Notice that the dock is closed: napari then takes this widget out of it."""
        if given(event).type() == QEvent.Type.ParentChange:
            if self.parentWidget() is not None:
                if not self._docked:
                    self._joining.start(0)  # the window knows of the dock only after this
                self._docked = True
            elif self._docked:
                self.shut_down()
        return super().event(event)

    def shut_down(self) -> None:
        """The dock is closed, and the viewer lives on."""
        self.end(viewer_lives=True)

    def end(self, *, viewer_lives: bool) -> None:
        """Stop everything; with the viewer itself gone, touch neither its layers nor any widget."""
        if self._ended:
            return
        self._ended = True
        self.state.history.changed.disconnect(self._history_changed)
        stop_timer(self._joining)
        self._end(viewer_lives=viewer_lives)
        # When the program is about to end, what is under way must end before the interpreter goes.
        self.background.close(wait=not viewer_lives)

    def _end(self, *, viewer_lives: bool) -> None:
        """What a dock lets go of; called once."""

    def _join_tabs(self) -> None:
        """Lie over our other docks as a tab: one below the other, none would have room on a small screen."""
        mine = _frame_of(self)
        window = None if mine is None else mine.parentWidget()
        if mine is None or mine.isFloating() or not isinstance(window, QMainWindow):
            return
        mine.setWindowTitle(mine.windowTitle().removesuffix(" (napari-cpnn)"))  # five tabs side by side
        area = window.dockWidgetArea(mine)
        for other in window.findChildren(Dock):
            frame = _frame_of(other)
            if frame is None or frame is mine or frame.isFloating() or window.dockWidgetArea(frame) != area:
                continue
            window.tabifyDockWidget(frame, mine)
            mine.raise_()
            return

    def _history_changed(self) -> None:
        text = self.state.history.text
        self.undo.setEnabled(bool(text))
        self.undo.setToolTip(plain(f"undo: {text}") if text else "nothing to undo")


def _frame_of(widget: QWidget) -> QDockWidget | None:
    """The dock that a widget is in."""
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent
