"""Names that look like HTML are shown as they are, wherever Qt guesses whether a text is HTML."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QAbstractListModel, Qt
from qtpy.QtWidgets import QAbstractItemView, QComboBox, QLabel, QWidget
from tests.ui.conftest import tissue_image, write_slide

from napari_cpnn.ui.explore.legend import CanvasLegend
from napari_cpnn.ui.frame.dock import Dock
from napari_cpnn.ui.frame.parts import TextLabel, bold_label
from napari_cpnn.ui.frame.plain_text import plain
from napari_cpnn.ui.prototypes.type_table import TypeTable
from napari_cpnn.ui.prototypes.words import TypeLine
from napari_cpnn.ui.viewer.state import ExploreState, Shown, TypeRow

HOSTILE = '<img src="/etc/passwd"><b>x'
FILE_NAME = "<img src=x><b>x"


def is_guessed_html(text: str, qtbot) -> bool:
    """Whether Qt would take a text for HTML: a label that guesses then holds a document."""
    probe = QLabel(text)
    qtbot.addWidget(probe)
    probe.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return Qt.mightBeRichText(text) if hasattr(Qt, "mightBeRichText") else "<" in text.replace("<\u2060", "")


def tool_tips(widget: QWidget):
    yield widget.toolTip()
    model = widget.model() if isinstance(widget, (QAbstractItemView, QComboBox)) else None
    if model is None:
        return
    columns = 1 if isinstance(model, QAbstractListModel) else model.columnCount()  # private in lists
    for row in range(model.rowCount()):
        for column in range(columns):
            yield str(model.index(row, column).data(Qt.ItemDataRole.ToolTipRole) or "")
    for way, n in ((Qt.Orientation.Horizontal, columns), (Qt.Orientation.Vertical, model.rowCount())):
        for section in range(n):
            yield str(model.headerData(section, way, Qt.ItemDataRole.ToolTipRole) or "")


def assert_harmless(root: QWidget, qtbot) -> None:
    for widget in [root, *root.findChildren(QWidget)]:
        if isinstance(widget, QLabel) and "img src" in widget.text():
            assert widget.textFormat() == Qt.TextFormat.PlainText, widget.text()
        for tip in tool_tips(widget):
            if "img src" in tip:
                assert not is_guessed_html(tip, qtbot), tip


@pytest.mark.parametrize("text", [HOSTILE, "&lt;img src=x&gt;", "< b>x</b>", "a\n<i>b</i>", "<!DOCTYPE html>"])
def test_tips_and_notifications_keep_their_look(text, qtbot):
    made = plain(text)
    assert not is_guessed_html(made, qtbot)
    assert made.replace("\u2060", "") == text


def test_ordinary_text_is_untouched():
    assert plain("3 < 5 & 7 > 6".replace("<", "")) == "3  5 & 7 > 6"
    assert plain("CD8+ T cells\nT & B") == "CD8+ T cells\nT & B"
    assert len(plain("x" * 10_000)) == 1000


@pytest.mark.parametrize("make", [TextLabel, lambda: bold_label("")])
def test_labels_are_plain_and_bounded(make, qtbot):
    made = make()
    qtbot.addWidget(made)
    made.setText(HOSTILE)
    assert made.textFormat() == Qt.TextFormat.PlainText
    assert made.text() == HOSTILE
    made.setText("x" * 100_000)
    assert len(made.text()) <= 2000


def test_a_slide_of_a_hostile_name_is_harmless_in_the_docks(explore, wait, tmp_path, qtbot):
    dock = explore(write_slide(tmp_path / f"{FILE_NAME}.tif", tissue_image()))
    wait(lambda: dock.state.slide is not None)
    dock.state.history.add(f"slide {HOSTILE}", lambda: None)
    dock.message.show_text(HOSTILE)
    dock.gene_note.setText(HOSTILE)
    dock.types.set_rows([TypeRow(HOSTILE, "#E69F00", 0.5), TypeRow("y" * 10_000, "#0072B2", 0.5)])
    assert "img src" in dock.slide.toolTip()
    assert_harmless(dock, qtbot)


def test_types_of_hostile_names_are_harmless_in_tables(qtbot):
    table = TypeTable(with_results=True)
    qtbot.addWidget(table)
    table.show_types([TypeLine(HOSTILE, 5, 10.0, False)], {HOSTILE: "#E69F00"}, HOSTILE, {HOSTILE: 1.0})
    assert_harmless(table, qtbot)


def test_notifications_say_what_is_there(monkeypatch, qtbot):
    said = []
    monkeypatch.setattr("napari_cpnn.ui.frame.plain_text.show_warning", said.append)
    from napari_cpnn.errors import CpnnError

    Dock.notify(CpnnError(f"{HOSTILE} cannot be read."))
    assert said[0].replace("\u2060", "") == f"{HOSTILE} cannot be read."
    assert not is_guessed_html(said[0], qtbot)


def test_endless_names_are_short_on_the_canvas(make_napari_viewer):
    class State(ExploreState):
        map = object()

    state = State()
    legend = CanvasLegend(make_napari_viewer(), state)
    state.set_shown(Shown("dominant"))
    legend.update([TypeRow("x" * 10_000, "#E69F00", 0.5)])
    legend.finish()
    assert legend.is_complete
    assert len(legend._viewer.canvas.overlays["napari_cpnn_0"].text) <= 60
    legend.stop(viewer_lives=False)
