"""Group of controls that can be folded away."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLayout, QSizePolicy, QToolButton, QWidget

from napari_cpnn.ui.frame.parts import add, stack


class Fold(QWidget):
    """Title that shows and hides what is below it.

    Parameters
    ----------
    title, tip
        The title, and what is in the group.
    parts
        Widgets and layouts of the group.
    is_open
        Whether they are shown.
    """

    toggled = Signal(bool)
    """Emitted when the user opens or closes the group."""

    def __init__(self, title: str, tip: str, *parts: QWidget | QLayout, is_open: bool = True) -> None:
        super().__init__()
        self.title = title
        self.button = QToolButton()
        self.button.setText(title)
        self.button.setToolTip(tip)
        self.button.setCheckable(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        font = self.button.font()
        font.setBold(True)
        self.button.setFont(font)
        self.inside = QWidget()
        add(stack(inside=self.inside, margins=(8, 0, 0, 4)), *parts)
        add(stack(inside=self, spacing=2), self.button, self.inside)
        self.button.toggled.connect(self._show)
        self.button.clicked.connect(self.toggled)
        self.set_open(is_open)
        self._show(is_open)

    @property
    def is_open(self) -> bool:
        """Whether the group is shown."""
        return self.button.isChecked()

    def set_open(self, on: bool) -> None:
        """Open or close the group."""
        self.button.setChecked(on)

    def _show(self, on: bool) -> None:
        self.button.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)
        self.inside.setVisible(on)
