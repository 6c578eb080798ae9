"""Tabs of the Regions dock: composition of regions, comparison of two, and explanation of a gene."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_cpnn.painting import WARNING_COLORS
from napari_cpnn.ui.frame import (
    Background,
    ChartView,
    GeneBox,
    Paper,
    TextLabel,
    add,
    bold_label,
    button,
    row,
    save_file,
    slim_combo,
    spacer,
    stack,
)
from napari_cpnn.ui.regions.charts import comparison_chart, composition_chart, explanation_chart
from napari_cpnn.ui.regions.controller import RegionsController
from napari_cpnn.ui.regions.rows import RegionRow, worst_report

_TABLE = "Table (*.csv)"
_PICTURES = "Picture (*.png);;Vector graphics (*.svg)"

#: Share of unlike tissue from which a region gets a warning; 5 % of held-out training tissue is unlike, too.
_MUCH_UNLIKE = 0.2


class _Tab(QWidget):
    """Tab with a chart, a note above it, and buttons that save it."""

    def __init__(self, controller: RegionsController, background: Background) -> None:
        super().__init__()
        self.controller = controller
        self.chart = ChartView(background)
        self.note = TextLabel()
        tip = "the chart as PNG or SVG, on white, with the names of slide and model"
        self.save_figure = button("Save figure ...", tip)
        self.save_figure.clicked.connect(lambda: save_file(self, "Save figure", "", _PICTURES, self.write_figure))
        self.column = stack(inside=self, margins=(4, 6, 4, 4))

    def names(self) -> Sequence[str]:
        """Return the names of the regions in the chart; none for a place."""
        return ()

    def write_figure(self, name: str | Path) -> None:
        """Draw the chart into a file in the background."""
        path = Path(name)
        source = " · ".join(text for text in self.controller.source().values() if text)
        path = path if path.suffix.lower() in (".png", ".svg") else path.with_name(f"{path.name}.png")
        report = self.controller.report(self.names())
        paper = Paper()
        if report.level in WARNING_COLORS:
            paper = Paper(warning=report.warning, warning_colors=WARNING_COLORS[report.level])
        self.controller.work(lambda: self.chart.save(path, source, paper))


class CompositionTab(_Tab):
    """Shares and genes of the selected regions."""

    def __init__(self, controller: RegionsController, background: Background) -> None:
        super().__init__(controller, background)
        self._names: tuple[str, ...] = ()
        self.gene = GeneBox()
        self.gene.setToolTip("measure this gene in each region, in addition to the one on screen; Enter adds it")
        self.genes = QLabel()
        self.genes.setWordWrap(True)
        self.genes.setTextFormat(Qt.TextFormat.RichText)
        self.genes.setToolTip("genes that are measured in each region; click one to remove it")
        tip = "all numbers of all regions as CSV: areas, shares and genes with intervals"
        self.save_table = button("Save table ...", tip)
        saving = row(self.save_table, self.save_figure, spacer())
        add(self.column, row(bold_label("Genes"), self.gene), self.genes, self.note, self.chart, saving)
        self.column.addStretch(1)
        self.gene.chosen.connect(self._add)
        self.genes.linkActivated.connect(self._remove)
        self.save_table.clicked.connect(
            lambda: save_file(self, "Save table", "regions.csv", _TABLE, controller.write_table)
        )
        self.show_genes()

    def names(self) -> Sequence[str]:
        return self._names

    def show_rows(self, rows: Sequence[RegionRow]) -> None:
        """Show the composition of some regions."""
        cells = dict(self.controller.cells)
        measured = [r for r in rows if r.table is not None]
        drawn = [r for r in rows if r.table is not None or r.region.name in cells]
        self._names = tuple(r.region.name for r in measured)
        colors = self.controller.colors()
        self.chart.show_chart((lambda paper: composition_chart(drawn, colors, paper, cells)) if drawn else None)
        self.save_figure.setEnabled(bool(drawn))
        self.save_table.setEnabled(bool(cells) or any(r.table is not None for r in self.controller.rows))
        self.chart.setToolTip(
            "lines: 95 % intervals of the mean, from drawing blocks of the region; nothing of the model's error\n"
            "pale bands: mean ends of the 90 % intervals of the single patches, for a measured spot, not for the mean"
        )
        few = any(r.no_interval for r in measured)
        if rows and not measured and not drawn:
            text = "Nothing is mapped in this region yet." if rows[0].tissue_mm2 else "This region has no tissue."
            self.note.show_text(text)
        else:
            warning = worst_report(measured).warning
            unlike = any(r.value("unlike") > _MUCH_UNLIKE for r in measured)
            texts = ["Much of it is unlike the training tissue: do not rely on these numbers."] if unlike else []
            texts = [warning] if warning else texts
            texts += ["No intervals: a region is smaller than three blocks of 0.5 mm."] if few else []
            self.note.show_text(" ".join(texts))

    def show_genes(self) -> None:
        """Show the list of chosen genes."""
        links = [f'<a href="{escape(g)}" style="color: #4c9be8">{escape(g)} ✕</a>' for g in self.controller.genes]
        self.genes.setText(" &nbsp; ".join(links))
        self.genes.setVisible(bool(links))

    def _add(self, text: str) -> None:
        problem = self.controller.add_gene(text)
        self.note.show_text(problem)
        if not problem:
            self.gene.clear()
        self.show_genes()

    def _remove(self, gene: str) -> None:
        self.controller.set_genes([g for g in self.controller.genes if g != gene])
        self.show_genes()


class ComparisonTab(_Tab):
    """Difference of two regions."""

    def __init__(self, controller: RegionsController, background: Background) -> None:
        super().__init__(controller, background)
        self.first = slim_combo("the region from which the other is subtracted")
        self.second = slim_combo("the region that is subtracted")
        for combo in (self.first, self.second):
            combo.setMinimumContentsLength(7)
        self.save_table = button("Save table ...", "all differences as CSV, with intervals")
        saving = row(self.save_table, self.save_figure, spacer())
        add(self.column, row(self.first, QLabel("minus"), self.second), self.note, self.chart, saving)
        self.column.addStretch(1)
        self.first.activated.connect(self._chosen)
        self.second.activated.connect(self._chosen)
        self.save_table.clicked.connect(
            lambda: save_file(self, "Save table", "comparison.csv", _TABLE, controller.write_comparison)
        )

    def names(self) -> Sequence[str]:
        return self.controller.pair or ()

    def show_names(self) -> None:
        """Offer the names of all regions."""
        pair = self.controller.pair or ("", "")
        for combo, name in zip((self.first, self.second), pair, strict=True):
            combo.clear()
            combo.addItems([region.name for region in self.controller.regions])
            combo.setCurrentText(name)
            combo.setEnabled(bool(name))

    def show_comparison(self) -> None:
        """Show the comparison, or a note why there is none."""
        table, pair, colors = self.controller.comparison, self.controller.pair, self.controller.colors()
        if table is None or pair is None:
            self.chart.show_chart(None)
            if len(self.controller.regions) < 2:
                self.note.show_text("Draw a second region to compare two.")
            elif pair is not None and pair[0] == pair[1]:
                self.note.show_text("Choose two different regions.")
            else:
                self.note.show_text("Nothing is mapped in one of the two regions yet: press Map regions.")
        else:
            self.chart.show_chart(lambda paper: comparison_chart(table, pair, colors, paper))
            self.note.show_text(
                "Bold: the 95 % interval excludes 0."
                if table["low"].notna().any()
                else "No intervals: a region is smaller than three blocks of 0.5 mm."
            )
        for save in (self.save_table, self.save_figure):
            save.setEnabled(table is not None)

    def _chosen(self) -> None:
        self.controller.compare(self.first.currentText(), self.second.currentText())


class ExplanationTab(_Tab):
    """Contributions to the gene on screen, at a clicked place or in a region."""

    _CLICK = "a click on the slide"

    def __init__(self, controller: RegionsController, background: Background) -> None:
        super().__init__(controller, background)
        self.gene = GeneBox()
        self.where = slim_combo("the place to explain: where you click on the slide, or a region")
        self.part = slim_combo("show the whole gene over the slide, or the contribution of one cell type")
        add(self.column, row(bold_label("Gene"), self.gene), row(bold_label("Where"), self.where), self.note)
        add(self.column, self.chart, row(bold_label("On the slide"), self.part), row(self.save_figure, spacer()))
        self.column.addStretch(1)
        self.gene.chosen.connect(self._gene_chosen)
        self.where.activated.connect(self._where_chosen)
        self.part.activated.connect(self._part_chosen)

    def names(self) -> Sequence[str]:
        place = self.controller.place
        return (place,) if isinstance(place, str) else ()

    def show_names(self) -> None:
        """Offer a click and all regions as places."""
        place = self.controller.place
        self.where.clear()
        self.where.addItems([self._CLICK, *(region.name for region in self.controller.regions)])
        self.where.setCurrentText(place if isinstance(place, str) else self._CLICK)

    def show_gene(self) -> None:
        """Show the name of the gene on screen."""
        if self.controller.gene:
            self.gene.show_gene(self.controller.gene)
        self._show_parts()

    def show_explanation(self) -> None:
        """Show the explanation, or a note why there is none."""
        explanation, colors, place = self.controller.explanation, self.controller.colors(), self.controller.place
        self.where.setCurrentText(place if isinstance(place, str) else self._CLICK)
        drawn = explanation if explanation is not None and explanation.table is not None else None
        self.chart.show_chart(None if drawn is None else lambda paper: explanation_chart(drawn, colors, paper))
        self.save_figure.setEnabled(drawn is not None)
        if explanation is not None:
            self.note.show_text(explanation.problem)
        elif not self.controller.gene:
            self.note.show_text("Type the name of a gene above.")
        else:
            self.note.show_text(
                "Click on the tissue, or choose a region, to see how cell types contribute to this gene there."
            )
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
        if problem := self.controller.show_gene(text):
            self.note.show_text(problem)

    def _where_chosen(self, index: int) -> None:
        self.controller.explain(self.where.itemText(index) if index else None)

    def _part_chosen(self, index: int) -> None:
        self.controller.show_contribution(self.part.itemData(index))
