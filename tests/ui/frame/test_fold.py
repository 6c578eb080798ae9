"""Groups of controls that fold away."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

from napari_cpnn.ui.frame.fold import Fold


def test_the_title_shows_and_hides_what_is_below_it(qtbot):
    label, said = QLabel("inside"), []
    fold = Fold("Colours", "how the map is drawn", label, is_open=False)
    qtbot.addWidget(fold)
    fold.toggled.connect(said.append)
    fold.show()
    assert not label.isVisible()
    qtbot.mouseClick(fold.button, Qt.MouseButton.LeftButton)
    assert label.isVisible()
    assert fold.button.arrowType() == Qt.ArrowType.DownArrow
    fold.button.setFocus()
    qtbot.keyClick(fold.button, Qt.Key.Key_Space)
    assert not label.isVisible()
    assert said == [True, False]
    fold.set_open(True)  # by the program: not the user's choice
    assert label.isVisible()
    assert said == [True, False]
