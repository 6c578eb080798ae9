"""Table of scores on the whole slide, in its regions, and on other slides."""

from __future__ import annotations

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_cpnn.ui.frame import given, plain, prepare_table

_COLUMNS = (
    ("n_spots", "Spots", "spots whose centre is inside"),
    ("pcc", "PCC", "mean Pearson correlation over the genes that vary there"),
    ("scc", "SCC", "mean Spearman correlation over the same genes"),
    ("ceiling", "Ceiling", "mean of the largest correlations that the noise of these spots' counts allows"),
    ("n_genes", "Genes", "genes that vary there in both"),
    ("gene_pcc", "", "Pearson correlation of the gene on screen"),
)


class WhereTable(QTableWidget):
    """Table with one row per region or slide."""

    def __init__(self) -> None:
        super().__init__(0, 1 + len(_COLUMNS))
        prepare_table(self, 20)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        header = given(self.horizontalHeader())
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(30)

    def show_scores(self, scores: pd.DataFrame | None, gene: str) -> None:
        """Show a table of :func:`~napari_cpnn.evaluation.region_scores.score_summary`, with a column of one gene."""
        self.setHorizontalHeaderItem(0, _header("", "the slide, a region, or a slide that was compared before"))
        for column, (name, title, tip) in enumerate(_COLUMNS, start=1):
            self.setHorizontalHeaderItem(column, _header(title or gene, tip))
            self.setColumnHidden(column, name == "gene_pcc" and not gene)
        self.setRowCount(0 if scores is None else len(scores))
        if scores is None:
            return
        for row in range(self.rowCount()):
            where = str(scores.index[row])
            first = QTableWidgetItem(where)
            first.setToolTip(plain(where))
            self.setItem(row, 0, first)
            for column, (name, _, _) in enumerate(_COLUMNS, start=1):
                value = scores.iloc[row].get(name, np.nan)
                whole = name in ("n_spots", "n_genes")
                item = QTableWidgetItem("–" if np.isnan(value) else f"{value:,.0f}" if whole else f"{value:z.2f}")
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)


def _header(text: str, tip: str) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setToolTip(tip)
    return item
