"""The tables of the docks: a selection stays with what was selected, and no row moves under the pointer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QEnterEvent
from qtpy.QtWidgets import QApplication, QTableView, QWidget

from napari_cpnn.regions import Region
from napari_cpnn.ui.compare.gene_table import GeneTable
from napari_cpnn.ui.compare.where_table import WhereTable
from napari_cpnn.ui.prototypes.type_table import TypeTable
from napari_cpnn.ui.prototypes.words import TypeLine
from napari_cpnn.ui.regions.rows import RegionRow
from napari_cpnn.ui.regions.table import RegionTable

GENES = [f"G{i}" for i in range(40)]


def enter(widget: QWidget) -> None:
    """The mouse comes over a widget, as Qt tells it and all that it lies in."""
    at = QPointF(widget.rect().center())
    QApplication.sendEvent(widget, QEnterEvent(at, at, at))


def leave(widget: QWidget) -> None:
    QApplication.sendEvent(widget, QEvent(QEvent.Type.Leave))


def click_row(qtbot, view: QTableView, row: int, column: int = 0) -> None:
    place = view.visualRect(view.model().index(row, column)).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=place)


def click_header(qtbot, view: QTableView, column: int) -> None:
    header = view.horizontalHeader()
    place = header.rect().center()
    place.setX(header.sectionViewportPosition(column) + header.sectionSize(column) // 2)
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=place)


def highlighted(view: QTableView) -> list[str]:
    return [index.data() for index in view.selectionModel().selectedRows()]


def shown(view: QTableView) -> list[str]:
    model = view.model()
    return [model.index(row, 0).data() for row in range(model.rowCount())]


@pytest.fixture
def genes(qtbot) -> GeneTable:
    table = GeneTable()
    table.resize(420, 400)
    qtbot.addWidget(table)
    table.show()
    rng = np.random.default_rng(1)
    table.set_scores(pd.DataFrame({"mean_expression": rng.random(40), "detected": rng.random(40)}, index=GENES))
    return table


def scores(genes: list[str]) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    return pd.DataFrame({"pcc": rng.random(len(genes)), "mean_expression": rng.random(len(genes))}, index=genes)


def test_the_highlight_follows_the_gene_when_it_is_sorted(genes, qtbot):
    chosen: list[str] = []
    genes.chosen.connect(chosen.append)
    click_row(qtbot, genes.view, 3)
    gene = chosen[0]
    before = shown(genes.view)
    for column in (0, 2, 2, 1):
        click_header(qtbot, genes.view, column)
        assert highlighted(genes.view) == [gene]
        assert genes.view.currentIndex().data() == gene
        genes.select(gene)  # as the dock does
        assert highlighted(genes.view) == [gene]
    assert shown(genes.view) != sorted(before)
    click_header(qtbot, genes.view, 0)
    click_header(qtbot, genes.view, 0)
    assert shown(genes.view) in (sorted(GENES), sorted(GENES, reverse=True))
    assert chosen == [gene]
    qtbot.keyClick(genes.view, Qt.Key.Key_Down)  # goes on from where the gene is now
    after = shown(genes.view)
    assert chosen[-1] == after[min(after.index(gene) + 1, 39)]


def test_the_highlight_survives_a_search(genes, qtbot):
    click_row(qtbot, genes.view, 3)
    gene = highlighted(genes.view)[0]
    qtbot.keyClicks(genes.search, gene[:2])
    assert highlighted(genes.view) == [gene]
    genes.search.clear()
    assert highlighted(genes.view) == [gene]


def test_predictions_do_not_move_rows_under_the_pointer(genes, qtbot):
    chosen: list[str] = []
    genes.chosen.connect(chosen.append)
    click_row(qtbot, genes.view, 5)
    before = shown(genes.view)
    genes.view.verticalScrollBar().setValue(4)
    enter(genes.view)
    known = [gene for gene in GENES if gene != before[6]]
    genes.set_scores(scores([*known, "NEW"]))
    assert shown(genes.view) == [*before, "NEW"]
    assert genes.view.verticalScrollBar().value() == 4
    assert highlighted(genes.view) == [before[5]]
    assert genes.view.model().index(5, 1).data() == f"{scores([*known, 'NEW'])['pcc'][before[5]]:.2f}"
    click_row(qtbot, genes.view, 6)  # the model does not predict it
    assert chosen == [before[5]]
    click_row(qtbot, genes.view, 7)
    assert chosen == [before[5], before[7]]
    assert genes.sort_again.isVisible()
    qtbot.mouseClick(genes.sort_again, Qt.MouseButton.LeftButton)
    assert not genes.sort_again.isVisible()
    assert shown(genes.view) == list(
        scores([*known, "NEW"])["mean_expression"].sort_values(ascending=False).index
    )  # the column by which it was sorted
    assert highlighted(genes.view) == [before[7]]
    leave(genes.view)
    genes.set_scores(scores(GENES))
    assert shown(genes.view) == list(scores(GENES)["pcc"].sort_values(ascending=False).index)
    assert highlighted(genes.view) == [before[7]]


def test_the_column_that_the_user_chose_is_kept(genes, qtbot):
    click_header(qtbot, genes.view, 0)
    by_name = shown(genes.view)
    genes.set_scores(scores(GENES))
    assert shown(genes.view) == by_name


def lines(**n_cells: int) -> list[TypeLine]:
    return [TypeLine(name, n) for name, n in n_cells.items()]


def test_cell_types_keep_their_place_and_their_highlight(qtbot):
    table = TypeTable(with_results=True)
    qtbot.addWidget(table)
    table.resize(400, 300)
    table.show()
    table.show_types(lines(A=10, B=30, C=20), {}, "ERBB2", {"A": 3.0, "B": 1.0, "C": 2.0})
    click_header(qtbot, table, 3)
    if shown(table) == ["B", "C", "A"]:
        click_header(qtbot, table, 3)
    assert shown(table) == ["A", "C", "B"]
    click_row(qtbot, table, 1)
    enter(table)
    table.show_types(lines(A=10, B=30, C=20), {}, "CD3E", {"A": 0.0, "B": 9.0, "C": 2.0})
    assert shown(table) == ["A", "C", "B"]
    assert highlighted(table) == ["C"]
    leave(table)
    table.show_types(lines(A=10, B=30, C=20), {}, "CD3E", {"A": 0.0, "B": 9.0, "C": 2.0})
    assert shown(table) == ["B", "C", "A"]
    assert highlighted(table) == ["C"]
    table.show_types(lines(A=10, C=20, D=40), {}, "CD3E", {"A": 0.0, "D": 9.0, "C": 2.0})
    assert highlighted(table) == ["C"]


def regions(*names: str) -> list[RegionRow]:
    return [RegionRow(Region.from_vertices(name, [(0, 0), (0, 90), (90, 90), (90, 0)])) for name in names]


def test_regions_stay_selected_when_others_come_and_go(qtbot):
    table = RegionTable()
    qtbot.addWidget(table)
    table.resize(400, 300)
    table.show()
    table.set_rows(regions("a", "b", "c", "d"))
    click_row(qtbot, table, 2)
    assert highlighted(table) == ["c"]
    table.set_rows(regions("b", "c", "d"))  # a was removed in the layer
    assert highlighted(table) == ["c"]
    table.set_rows(regions("a", "b", "c", "d"))  # and came back by undo
    assert highlighted(table) == ["c"]
    table.set_rows(regions("a", "b", "tumour", "d"))  # renamed
    assert highlighted(table) == ["tumour"]
    table.set_rows(regions("a", "b", "d"))  # removed itself: the next one
    assert highlighted(table) == ["d"]


def test_rows_of_slides_stay_where_they_are_scrolled_to(qtbot):
    table = WhereTable()
    qtbot.addWidget(table)
    table.resize(400, 90)
    table.show()
    values = dict.fromkeys(("n_spots", "pcc", "scc", "ceiling", "n_genes", "gene_pcc"), 1.0)
    frame = pd.DataFrame([values] * 20, index=[f"region {i}" for i in range(20)])
    table.show_scores(frame, "ERBB2")
    qtbot.waitUntil(lambda: table.verticalScrollBar().maximum() > 7, timeout=120_000)
    table.verticalScrollBar().setValue(7)
    table.show_scores(frame.assign(gene_pcc=0.5), "CD3E")
    assert table.verticalScrollBar().value() == 7
    assert shown(table) == list(frame.index)
