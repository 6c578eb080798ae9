"""Combo boxes that are narrower than what they hold, and groups that come into view."""

from __future__ import annotations

from qtpy.QtCore import Qt

from napari_cpnn.ui.frame.parts import slim_combo


def test_a_text_that_does_not_fit_ends_with_dots_and_the_list_shows_all_of_it(qtbot):
    box = slim_combo("a slide")
    long = "a slide with a long name · 0.5 µm/px · 12000 x 12000 px"
    box.addItems([long, "short"])
    box.setStyleSheet("QComboBox { padding: 2px; }")  # Qt cuts the text of a box with a style sheet
    qtbot.addWidget(box)
    box.resize(150, 30)
    box.show()
    cut = box.grab().toImage()
    # The same picture as of a box that holds the beginning and dots, and not as of one with the beginning alone.
    letters = next(n for n in range(1, len(long)) if _picture(qtbot, f"{long[:n]}…") == cut)
    assert 5 < letters < 30
    assert _picture(qtbot, long[:letters]) != cut
    box.showPopup()
    assert box.view().width() > box.fontMetrics().horizontalAdvance(long)
    box.hidePopup()


def _picture(qtbot, text: str):
    other = slim_combo("")
    other.addItems([text, "short"])
    other.setStyleSheet("QComboBox { padding: 2px; }")
    qtbot.addWidget(other)
    other.resize(150, 30)
    other.show()
    return other.grab().toImage()


def test_a_group_that_is_opened_comes_into_view(explore, wait, qtbot, slide_path, monkeypatch):
    monkeypatch.setattr("napari_cpnn.ui.explore.layout.keep_groups", lambda _titles: None)
    dock = explore(slide_path, show=True)
    dock.window().resize(1000, 560)
    last, area = dock.folds[-1], dock.area
    for fold in dock.folds:  # more than there is room for
        fold.set_open(fold is not last)
    wait(lambda: area.verticalScrollBar().maximum() > 0)
    area.ensureWidgetVisible(last.button)
    qtbot.mouseClick(last.button, Qt.MouseButton.LeftButton)

    def is_in_view() -> bool:
        """All of it, or as much as there is room for."""
        port = area.viewport()
        bottom, top = (last.mapTo(port, point).y() for point in (last.rect().bottomLeft(), last.rect().topLeft()))
        return last.inside.isVisible() and (bottom <= port.height() or top <= 8)

    wait(is_in_view)
