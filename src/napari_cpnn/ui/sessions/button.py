"""Button *Session* of the Explore dock."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QMenu, QPushButton

from napari_cpnn.ui.frame import given
from napari_cpnn.ui.sessions import actions


class SessionButton(QPushButton):
    """Button with a menu: code of what is on screen, and sessions saved and opened."""

    def __init__(self, viewer: Any, explore: Any) -> None:
        super().__init__("Session")
        self.setToolTip("what is on screen as a Python script, or as a file that opens the same window elsewhere")
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        self.entries = {
            "code": ("Copy as Python", "a script that maps and draws this without a screen", actions.copy_code),
            "script": ("Save script ...", "the same script as a file", actions.save_code),
            "save": ("Save session ...", "slide, model, view, colours, regions and spots (.cpnn.json)", actions.save),
        }
        for text, tip, action in self.entries.values():
            entry = given(menu.addAction(text))
            entry.setToolTip(tip)
            entry.triggered.connect(lambda _=False, action=action: action(viewer, explore))
        entry = given(menu.addAction("Open session ..."))
        entry.setToolTip("open a saved session in this window")
        entry.triggered.connect(lambda _=False: actions.open_(viewer, explore))
        self.setMenu(menu)
