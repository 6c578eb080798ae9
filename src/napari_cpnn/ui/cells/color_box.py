"""What the cells are coloured by: kind, and the gene, signature or cell type."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtWidgets import QWidget

from napari_cpnn.ui.cells.colored import CellShown
from napari_cpnn.ui.cells.controller import CellsController
from napari_cpnn.ui.frame import GeneBox, add, bold_label, choose_data, row, slim_combo, stack

_KINDS = {
    "type": "cell type",
    "class": "class",
    "gene": "a gene",
    "signature": "a signature",
    "share": "share of a type",
    "area": "nuclear area",
    "plain": "one colour",
}
#: Kinds that have a name from a list.
_NAMED = ("share", "signature")


class ColorBox(QWidget):
    """Combo box of the kinds that the cells have, and beside it what it is of.

    Parameters
    ----------
    controller
        The cells and what they are coloured by.

    Attributes
    ----------
    selected_type
        Returns the cell type whose share is shown first; empty: the first of the model.
    """

    def __init__(self, controller: CellsController) -> None:
        super().__init__()
        self.controller = controller
        self.selected_type: Callable[[], str] = str
        self.kind = slim_combo("what the cells are coloured by")
        self.name = slim_combo("the cell type whose share is shown, or the set of genes whose mean z-score is")
        self.gene = GeneBox()
        add(stack(inside=self), row(bold_label("Colour by"), self.kind), self.name, self.gene)
        self.kind.activated.connect(lambda index: self.choose(self.kind.itemData(index)))
        self.name.activated.connect(lambda index: self._name_chosen(self.name.itemText(index)))

    def choose(self, kind: str) -> None:
        """Colour by a kind: of genes and signatures the one on the map, if the cells have it, else the first."""
        controller, map_shown = self.controller, self.controller.state.shown
        cells = None if controller.content is None else controller.content.cells
        if kind == "signature":
            name = map_shown.name if map_shown is not None and map_shown.kind == kind else ""
            names = [one.name for one in controller.gene_sets]
            controller.show_signature(name if name in names else names[0])
        elif kind in ("gene", "share"):
            names = [] if cells is None else list(cells.genes if kind == "gene" else cells.cell_types)
            of_map = map_shown.gene if map_shown is not None else ""
            name = of_map if kind == "gene" else self.selected_type()
            controller.show(CellShown(kind, name if name in names else next(iter(names), "")))  # type: ignore[arg-type]
        else:
            controller.show(CellShown(kind))  # type: ignore[arg-type]

    def update_content(self) -> None:
        """Offer what the present cells can be coloured by."""
        content = self.controller.content
        self.kind.clear()
        for kind in [] if content is None else content.kinds:
            self.kind.addItem(_KINDS[kind], kind)
        self.gene.set_genes(() if content is None or content.cells is None else content.cells.genes)
        self.setEnabled(content is not None)
        self.update_shown()

    def update_shown(self) -> None:
        """Show what the cells are coloured by."""
        shown = self.controller.shown
        choose_data(self.kind, shown.kind)
        self.gene.setVisible(shown.kind == "gene")
        self.gene.show_gene(shown.name if shown.kind == "gene" else "")
        self.name.setVisible(shown.kind in _NAMED)
        if shown.kind in _NAMED:
            self._fill_names(shown.kind)
            self.name.setCurrentText(shown.name)

    def _fill_names(self, kind: str) -> None:
        """Offer the cell types or the sets of genes, unless they are there."""
        cells = None if self.controller.content is None else self.controller.content.cells
        names = [] if cells is None else list(cells.cell_types)
        if kind == "signature":
            names = [one.name for one in self.controller.gene_sets]
        if [self.name.itemText(i) for i in range(self.name.count())] != names:
            self.name.clear()
            self.name.addItems(names)

    def _name_chosen(self, name: str) -> None:
        if self.controller.shown.kind == "signature":
            self.controller.show_signature(name)
        else:
            self.controller.show(CellShown("share", name))
