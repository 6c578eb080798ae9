"""Dialogs that ask for a file or folder and pass its path on, unless the user cancels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QFileDialog, QWidget

Use = Callable[[str], Any]


def open_file(parent: QWidget, title: str, filters: str, use: Use) -> None:
    """Ask for a file to read."""
    if name := QFileDialog.getOpenFileName(parent, title, "", filters)[0]:
        use(name)


def open_folder(parent: QWidget, title: str, use: Use) -> None:
    """Ask for a folder to read."""
    if name := QFileDialog.getExistingDirectory(parent, title):
        use(name)


def save_file(parent: QWidget, title: str, suggested: str, filters: str, use: Use) -> None:
    """Ask for a file to write."""
    if name := QFileDialog.getSaveFileName(parent, title, suggested, filters)[0]:
        use(name)
