"""Button *Session* of the Explore dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QMenu, QPushButton

from napari_cpnn.ui.frame import given


class SessionButton(QPushButton):
    """Button with a menu: code of what is on screen, and sessions saved and opened."""

    def __init__(self, viewer: Any, explore: Any) -> None:
        super().__init__("Session")
        self.setToolTip("what is on screen as a Python script, or as a file that opens the same window elsewhere")
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        for text, tip, name in (
            ("Copy as Python", "a script that maps and draws this without a screen", "copy_code"),
            ("Save script ...", "the same script as a file", "save_code"),
            ("Save session ...", "slide, model, view, colours, regions and spots (.cpnn.json)", "save"),
            ("Open session ...", "open a saved session in this window", "open_"),
        ):
            entry = given(menu.addAction(text))
            entry.setToolTip(tip)
            entry.triggered.connect(lambda _=False, name=name: _action(name)(viewer, explore))
        self.setMenu(menu)


def _action(name: str) -> Callable[[Any, Any], None]:
    """Load what an entry of the menu does: it needs spots, cells and exports, for which no window should wait."""
    from napari_cpnn.ui.sessions import actions

    act: Callable[[Any, Any], None] = getattr(actions, name)
    return act
