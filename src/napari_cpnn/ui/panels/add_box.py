"""What a new panel shows, chosen in the Panels dock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QStackedWidget, QWidget

from napari_cpnn.errors import CpnnError
from napari_cpnn.mapping import choose_genes, require_some, types_at
from napari_cpnn.painting import Shown
from napari_cpnn.ui.frame import GeneBox, add, bold_label, button, find_gene, plain, row, slim_combo, spacer, stack
from napari_cpnn.ui.layers import is_slide_layer
from napari_cpnn.ui.panels.panel import PanelSpec, Source
from napari_cpnn.ui.viewer import names_of, recent_models

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.counts import GeneSet
    from napari_cpnn.ui.panels.controller import PanelsController

_KINDS = ("gene predicted", "gene measured", "cell type", "dominant type", "signature", "H&E alone")
_GENES = ("gene predicted", "gene measured")
_NOTHING = 3


class AddBox(QWidget):
    """Kind of a panel, its gene, cell type or signature, its model and its slide; the button *Add panel* adds it."""

    def __init__(self, viewer: ViewerModel, controller: PanelsController) -> None:
        super().__init__()
        self._viewer, self._controller, self._state = viewer, controller, controller.state
        self._followed = ""
        self.kind = slim_combo("what the new panel shows")
        self.kind.addItems(_KINDS)
        self.gene, self.type = GeneBox(), slim_combo("the cell type whose share is shown")
        self.signature = slim_combo("the gene set whose mean z-score is shown: those of Explore, yours included")
        self.what = QStackedWidget()
        for widget in (self.gene, self.type, self.signature, QWidget()):
            self.what.addWidget(widget)
        for box in (self.kind, self.type, self.signature):
            box.setMinimumContentsLength(10)  # two of them side by side
        self.what.setMaximumHeight(self.gene.sizeHint().height() + 4)
        self.model = slim_combo("the model of the new panel; another one maps the slide, too")
        self.slide = slim_combo("the slide of the new panel")
        self.add = button("Add panel", "add a panel of this; up to nine")
        inside = stack(inside=self)
        add(inside, bold_label("Add a panel"), row(self.kind, self.what), self.model, self.slide)
        add(inside, row(spacer(), self.add))
        self.kind.currentTextChanged.connect(self._kind_changed)
        self.add.clicked.connect(self._add)
        self.gene.returnPressed.connect(self._add)

    # -- what can be chosen --------------------------------------------------------------------------------

    def fill(self) -> None:
        """List what there is now; what was chosen stays chosen."""
        model, level = self._state.model, self._state.level
        _refill(self.type, [] if model is None else list(types_at(model, level)))
        self._fill_genes()
        self.fill_signatures()
        self._fill_models()
        self._fill_slides()

    def _fill_slides(self) -> None:
        chosen = self.slide.currentData()
        self.slide.clear()
        self.slide.addItem("slide of Explore", None)
        for one in reversed(self._viewer.layers):
            if is_slide_layer(one) and one != self._state.layer:
                self.slide.addItem(plain(one.name), one)
                if chosen is not None and one == chosen:
                    self.slide.setCurrentIndex(self.slide.count() - 1)

    def _fill_models(self) -> None:
        chosen, own = self.model.currentData(), self._controller.sources.own_model()
        known = [path for path in recent_models.known_models() if own is None or path.resolve() != own]
        names = names_of([*known, *([] if own is None else [own])])
        self.model.clear()
        self.model.addItem("model of Explore", None)
        for path in known:
            self.model.addItem(plain(names[path]), path)
            self.model.setItemData(self.model.count() - 1, plain(path), Qt.ItemDataRole.ToolTipRole)
            if path == chosen:
                self.model.setCurrentIndex(self.model.count() - 1)

    def _fill_genes(self) -> None:
        spots = self._controller.spots if self.kind.currentText() == "gene measured" else None
        model = self._state.model
        genes = list(spots.var_names) if spots is not None else [] if model is None else list(model.genes)
        self.gene.set_genes(genes)

    def _sets(self) -> list[GeneSet]:
        """Return the gene sets of Explore."""
        explore = self._state.docks.get("Explore") if self._state.is_open("Explore") else None
        return [] if explore is None else list(explore.signatures.sets)

    def fill_signatures(self) -> None:
        """List the gene sets; one that Explore has begun to show is chosen."""
        shown, chosen = self._state.shown, self.signature.currentText()
        on_screen = shown.name if shown is not None and shown.kind == "signature" else ""
        if on_screen and on_screen != self._followed:
            chosen = on_screen
        self._followed = on_screen
        _refill(self.signature, [one.name for one in self._sets()], chosen)

    def _kind_changed(self, kind: str) -> None:
        pages = dict.fromkeys(_GENES, 0) | {"cell type": 1, "signature": 2}
        self.what.setCurrentIndex(pages.get(kind, _NOTHING))
        self._fill_genes()
        self.fill_signatures()

    # -- adding --------------------------------------------------------------------------------------------

    def chosen_model(self) -> Path | None:
        """Return the other model that is chosen, else the first one."""
        found: Path | None = self.model.currentData() or self.model.itemData(1)
        return found

    def chosen_slide(self) -> Layer | None:
        """Return the layer of the other slide that is chosen, else the first one."""
        found = self.slide.currentData()
        return self.slide.itemData(1) if found is None else found

    def _add(self) -> None:
        try:
            self._controller.add(self._spec())
        except CpnnError as error:
            self._controller.tasks.fail(error)

    def _source(self) -> Source:
        layer = self.slide.currentData()
        key = 0 if layer is None else self._controller.sources.register(layer)
        return Source(
            key, None if self.kind.currentText() in ("H&E alone", "gene measured") else self.model.currentData()
        )

    def _spec(self) -> PanelSpec:
        kind, typed, level = self.kind.currentText(), self.gene.text().strip(), self._state.level
        if kind in _GENES and not typed:
            raise CpnnError("Type the name of a gene first.")
        source = self._source()
        if kind == "gene measured":
            return PanelSpec("spots", Shown("gene", (self._measured_gene(typed),)))
        if kind == "gene predicted":
            gene = typed if source.model is not None else self._controller.gene(typed)
            return PanelSpec("map", Shown("gene", (gene,)), source)
        if kind == "cell type":
            if not self.type.currentText():
                raise CpnnError("There are no cell types: choose a model that has some in Explore.")
            return PanelSpec("map", Shown("type", (self.type.currentText(),), level=level), source)
        if kind == "dominant type":
            return PanelSpec("map", Shown("dominant", level=level), source)
        if kind == "signature":
            return PanelSpec("map", self._shown_signature(), source)
        return PanelSpec("tissue", None, source)

    def _measured_gene(self, typed: str) -> str:
        spots = self._controller.spots
        if spots is None:
            raise CpnnError("No measured spots are open: open some in the Compare dock.")
        found = find_gene(typed, list(spots.var_names))
        if found is None:
            raise CpnnError(f"{typed} was not measured in these spots.")
        return found

    def _shown_signature(self) -> Shown:
        """Return the signature with the genes that Explore would use: panels of other models use the same ones."""
        name, model, shown = self.signature.currentText(), self._state.model, self._state.shown
        one = next((found for found in self._sets() if found.name == name), None)
        if one is None or model is None:
            raise CpnnError("There are no signatures yet: choose a model in Explore.")
        if shown is not None and shown.kind == "signature" and shown.name == name:
            return shown
        explore = self._state.docks["Explore"]
        least = None if model.trust is None else explore.signatures.least_pcc
        used = require_some(one, choose_genes(one, model.genes, model.trust, least))
        return Shown("signature", (name, *(choice.gene for choice in used)))


def _refill(box: QComboBox, names: list[str], chosen: str = "") -> None:
    """List names; the one that was chosen, or else the first, is chosen."""
    chosen = chosen or box.currentText()
    box.clear()
    box.addItems(names)
    box.setCurrentIndex(max(0, box.findText(chosen)) if names else -1)
