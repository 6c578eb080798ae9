"""The place of the panels: the middle of the window, where the single view is otherwise."""

from __future__ import annotations

from contextlib import suppress

from qtpy.QtWidgets import QMainWindow, QWidget


class Centre:
    """Shows a widget in the middle of a main window instead of what is there, which is hidden and stays as it is."""

    def __init__(self, window: QMainWindow, widget: QWidget) -> None:
        self._widget = widget
        self._hidden: list[QWidget] = []
        middle = window.centralWidget()
        layout = None if middle is None else middle.layout()
        if layout is None:
            return
        items = [layout.itemAt(i) for i in range(layout.count())]
        found = [item.widget() for item in items if item is not None]
        self._hidden = [one for one in found if one is not None and not one.isHidden()]
        for one in self._hidden:
            one.hide()
        layout.addWidget(widget)
        widget.show()

    def leave(self) -> None:
        """Take the widget away and show what was there before."""
        with suppress(RuntimeError):  # the window is being deleted
            self._widget.hide()
            self._widget.setParent(None)
            for one in self._hidden:
                one.show()
        self._hidden = []
