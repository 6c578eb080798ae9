"""The three tabs of the Regions dock: what is in a region, two regions compared, and a gene explained."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_cpnn.ui.frame import Background, ChartView, GeneBox, bold_label, row, slim_combo, spacer, text_label
from napari_cpnn.ui.regions.charts import comparison_chart, composition_chart, explanation_chart
from napari_cpnn.ui.regions.controller import RegionsController
from napari_cpnn.ui.regions.rows import RegionRow

_PICTURES = "Picture (*.png);;Vector graphics (*.svg)"

#: From this share of unlike tissue on, a region gets a warning; 5 % of held-out training tissue is called unlike, too.
_MUCH = 0.2


class _Tab(QWidget):
    """A chart with what belongs to it, and buttons that save it."""

    def __init__(self, controller: RegionsController, background: Background) -> None:
        super().__init__()
        self.controller = controller
        self.chart = ChartView(background)
        self.note = text_label()
        self.save_figure = QPushButton("Save figure ...")
        self.save_figure.setToolTip("the chart as PNG or SVG, on white, with the names of slide and model")
        self.save_figure.clicked.connect(self._save_figure)
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(4, 6, 4, 4)
        self.column.setSpacing(6)

    def say(self, text: str) -> None:
        """One line above the chart; none when empty."""
        self.note.setText(text)
        self.note.setVisible(bool(text))

    def write_figure(self, path: Path) -> None:
        """Draw the chart into a file; a problem is said and the dock goes on."""
        source = " · ".join(text for text in self.controller.source().values() if text)
        path = path if path.suffix.lower() in (".png", ".svg") else path.with_name(f"{path.name}.png")
        self.controller.work(lambda: self.chart.save(path, source))

    def _save_figure(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save figure", "", _PICTURES)
        if name:
            self.write_figure(Path(name))


class CompositionTab(_Tab):
    """Shares and genes of the selected regions."""

    def __init__(self, controller: RegionsController, background: Background) -> None:
        super().__init__(controller, background)
        self.gene = GeneBox()
        self.gene.setToolTip("measure this gene in each region, beside the one on screen; Enter adds it")
        self.genes = QLabel()
        self.genes.setWordWrap(True)
        self.genes.setTextFormat(Qt.TextFormat.RichText)
        self.genes.setToolTip("genes that are measured in each region; click one to leave it out")
        self.save_table = QPushButton("Save table ...")
        self.save_table.setToolTip("all numbers of all regions as CSV: areas, shares and genes with intervals")
        self.column.addLayout(row(bold_label("Genes"), self.gene))
        self.column.addWidget(self.genes)
        self.column.addWidget(self.note)
        self.column.addWidget(self.chart)
        self.column.addLayout(row(self.save_table, self.save_figure, spacer()))
        self.column.addStretch(1)
        self.gene.chosen.connect(self._add)
        self.genes.linkActivated.connect(self._leave_out)
        self.save_table.clicked.connect(self._save_table)
        self.show_genes()

    def show_rows(self, rows: Sequence[RegionRow]) -> None:
        """Draw these regions."""
        measured = [r for r in rows if r.table is not None]
        colors = self.controller.colors()
        self.chart.show_chart((lambda paper: composition_chart(measured, colors, paper)) if measured else None)
        self.save_figure.setEnabled(bool(measured))
        self.save_table.setEnabled(any(r.table is not None for r in self.controller.rows))
        few = any(r.no_interval for r in measured)
        if rows and not measured:
            self.say("Nothing is mapped in it yet." if rows[0].tissue_mm2 else "There is no tissue in it.")
        else:
            unlike = any(r.value("unlike") > _MUCH for r in measured)
            texts = ["Much of it is unlike the training tissue: do not rely on these numbers."] if unlike else []
            self.say(" ".join([*texts, *(["No interval: it is smaller than three blocks of 0.5 mm."] if few else [])]))

    def show_genes(self) -> None:
        """List the chosen genes."""
        links = [f'<a href="{escape(g)}" style="color: #4c9be8">{escape(g)} ✕</a>' for g in self.controller.genes]
        self.genes.setText(" &nbsp; ".join(links))
        self.genes.setVisible(bool(links))

    def _add(self, text: str) -> None:
        problem = self.controller.add_gene(text)
        self.say(problem)
        if not problem:
            self.gene.clear()
        self.show_genes()

    def _leave_out(self, gene: str) -> None:
        self.controller.set_genes([g for g in self.controller.genes if g != gene])
        self.show_genes()

    def _save_table(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save table", "regions.csv", "Table (*.csv)")
        if name:
            self.controller.write_table(name)


class ComparisonTab(_Tab):
    """One region minus another."""

    def __init__(self, controller: RegionsController, background: Background) -> None:
        super().__init__(controller, background)
        self.first = slim_combo("the region from which the other is subtracted")
        self.second = slim_combo("the region that is subtracted")
        for combo in (self.first, self.second):
            combo.setMinimumContentsLength(7)
        self.save_table = QPushButton("Save table ...")
        self.save_table.setToolTip("all differences as CSV, with intervals")
        self.column.addLayout(row(self.first, QLabel("minus"), self.second))
        self.column.addWidget(self.note)
        self.column.addWidget(self.chart)
        self.column.addLayout(row(self.save_table, self.save_figure, spacer()))
        self.column.addStretch(1)
        self.first.activated.connect(self._chosen)
        self.second.activated.connect(self._chosen)
        self.save_table.clicked.connect(self._save_table)

    def show_names(self) -> None:
        """Offer the regions."""
        pair = self.controller.pair or ("", "")
        for combo, name in zip((self.first, self.second), pair, strict=True):
            combo.clear()
            combo.addItems([region.name for region in self.controller.regions])
            combo.setCurrentText(name)
            combo.setEnabled(bool(name))

    def show_comparison(self) -> None:
        """Draw the comparison, or say why there is none."""
        table, pair, colors = self.controller.comparison, self.controller.pair, self.controller.colors()
        if table is None or pair is None:
            self.chart.show_chart(None)
            if len(self.controller.regions) < 2:
                self.say("Draw a second region to compare two.")
            elif pair is not None and pair[0] == pair[1]:
                self.say("Choose two different regions.")
            else:
                self.say("Nothing is mapped in one of the two regions yet: press Map regions.")
        else:
            self.chart.show_chart(lambda paper: comparison_chart(table, pair, colors, paper))
            known = table["low"].notna().any()
            self.say(
                "Bold: the 95 % interval excludes 0."
                if known
                else "No intervals: a region is smaller than three blocks of 0.5 mm."
            )
        for button in (self.save_table, self.save_figure):
            button.setEnabled(table is not None)

    def _chosen(self) -> None:
        self.controller.compare(self.first.currentText(), self.second.currentText())

    def _save_table(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save table", "comparison.csv", "Table (*.csv)")
        if name:
            self.controller.write_comparison(name)


class ExplanationTab(_Tab):
    """The parts of the gene on screen, at a click or in a region."""

    _CLICK = "a click on the slide"

    def __init__(self, controller: RegionsController, background: Background) -> None:
        super().__init__(controller, background)
        self.gene = GeneBox()
        self.where = slim_combo("what is explained: the place where you click on the slide, or a region")
        self.part = slim_combo("show over the slide all of the gene, or only what one cell type contributes to it")
        self.column.addLayout(row(bold_label("Gene"), self.gene))
        self.column.addLayout(row(bold_label("Where"), self.where))
        self.column.addWidget(self.note)
        self.column.addWidget(self.chart)
        self.column.addLayout(row(bold_label("On the slide"), self.part))
        self.column.addLayout(row(self.save_figure, spacer()))
        self.column.addStretch(1)
        self.gene.chosen.connect(self._gene_chosen)
        self.where.activated.connect(self._where_chosen)
        self.part.activated.connect(self._part_chosen)

    def show_names(self) -> None:
        """Offer the regions as places."""
        place = self.controller.place
        self.where.clear()
        self.where.addItems([self._CLICK, *(region.name for region in self.controller.regions)])
        self.where.setCurrentText(place if isinstance(place, str) else self._CLICK)

    def show_gene(self) -> None:
        """Take the gene on screen."""
        if self.controller.gene:
            self.gene.setText(self.controller.gene)
        self._show_parts()

    def show_explanation(self) -> None:
        """Draw the explanation, or say why there is none."""
        explanation, colors, place = self.controller.explanation, self.controller.colors(), self.controller.place
        self.where.setCurrentText(place if isinstance(place, str) else self._CLICK)
        drawn = explanation if explanation is not None and explanation.table is not None else None
        self.chart.show_chart(None if drawn is None else lambda paper: explanation_chart(drawn, colors, paper))
        self.save_figure.setEnabled(drawn is not None)
        if explanation is not None:
            self.say(explanation.problem)
        elif not self.controller.gene:
            self.say("Which gene? Type its name above.")
        else:
            self.say("Click on the tissue, or choose a region, to see which cell types make this gene there.")
        self._show_parts()

    def _show_parts(self) -> None:
        gene, shown = self.controller.gene, self.controller.state.shown
        explanation = self.controller.explanation
        table = None if explanation is None else explanation.table
        values = {} if table is None else table["value"].to_dict()
        names = list(values)[:-2] if values else list(self.controller.colors())
        self.part.clear()
        self.part.setEnabled(bool(gene))
        if not gene:
            return
        self.part.addItem(f"all of {gene}", "")
        for name in names:
            self.part.addItem(f"{gene} from {name}", name)
        if shown is not None and shown.kind == "contribution":
            self.part.setCurrentIndex(max(self.part.findData(shown.names[1]), 0))

    def _gene_chosen(self, text: str) -> None:
        problem = self.controller.show_gene(text)
        if problem:
            self.say(problem)

    def _where_chosen(self, index: int) -> None:
        self.controller.explain(self.where.itemText(index) if index else None)

    def _part_chosen(self, index: int) -> None:
        self.controller.show_contribution(self.part.itemData(index))
