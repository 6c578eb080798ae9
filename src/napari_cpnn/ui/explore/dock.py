"""The Explore dock: live maps of cell types and genes over the tissue in view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QButtonGroup, QDockWidget, QFileDialog, QRadioButton

from napari_cpnn.painting import PALE
from napari_cpnn.settings import MappingSettings
from napari_cpnn.ui.canvas import CanvasTools
from napari_cpnn.ui.explore.banner import show_warning
from napari_cpnn.ui.explore.cell_type_list import CellTypeList
from napari_cpnn.ui.explore.color_choice import ask_color
from napari_cpnn.ui.explore.finer import Finer
from napari_cpnn.ui.explore.finer_box import FinerBox
from napari_cpnn.ui.explore.layout import lay_out
from napari_cpnn.ui.explore.look_box import LookBox, combo
from napari_cpnn.ui.explore.measure_box import MeasureBox
from napari_cpnn.ui.explore.model_card import show_model_card
from napari_cpnn.ui.explore.pixel_size_box import PixelSizeBox
from napari_cpnn.ui.explore.session import ExploreSession
from napari_cpnn.ui.explore.signature_box import SignatureBox
from napari_cpnn.ui.explore.signatures import Signatures
from napari_cpnn.ui.explore.similar import Similar
from napari_cpnn.ui.explore.similar_box import SimilarBox
from napari_cpnn.ui.explore.slide_list import fill_slides
from napari_cpnn.ui.explore.tour_steps import tour_steps
from napari_cpnn.ui.export import ExportButton
from napari_cpnn.ui.frame import (
    Dock,
    GeneBox,
    TextLabel,
    Tour,
    bold_label,
    button,
    genes_by_trust,
    given,
    is_opened_by_user,
    model_label,
    other_meaning,
    slim_combo,
    stack,
    unknown_gene_text,
)
from napari_cpnn.ui.layers import path_of
from napari_cpnn.ui.sessions import SessionButton
from napari_cpnn.ui.viewer import (
    OPEN,
    GetReady,
    ModelEntry,
    ModelPicker,
    keep_tour,
    names_of,
    read_preferences,
    recent_models,
    wants_tour,
)

if TYPE_CHECKING:
    import napari

_LEVELS = {"major": "major types", "minor": "minor types"}


class Explore(Dock):
    """napari widget with slide, model and progress, cell types, gene, colours, and a readout under the pointer.

    Live maps have the given settings, or by default the user's preferences when a map starts.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, settings: MappingSettings | None = None) -> None:
        super().__init__(napari_viewer, "explore")
        chosen = read_preferences(self.notify)
        self._settings = settings
        self.tour: Tour | None = None
        self._loading: Path | None = None
        self.is_quiet = False  # opened by a script or for a picture: the tour does not start by itself
        self.finer = Finer(self.state, self._base_settings, lambda: self.controller.remap())  # noqa: PLW0108 -- made below
        self.session = ExploreSession(
            napari_viewer, self.background, self.notify, self._mapping_settings, self._update, self._read_pointer
        )
        self.state.set_look(colormap=chosen.look.colormap, fade=chosen.look.fade, fade_from=chosen.look.fade_from)
        self.controller = self.session.controller
        self._get_ready = GetReady(napari_viewer, self.session.awaits_picture, self)
        self._build()
        self._connect()
        self.session.choose_newest()
        self._refresh_all()

    def make_nothing_ready(self) -> None:
        """Load nothing for later actions: there will be none."""
        self._get_ready.cancel()

    def is_settled(self) -> bool:
        """Return whether the present view is mapped."""
        return self.session.is_settled()

    def finish_drawing(self) -> None:
        """Update map, legend and texts now, all at once."""
        self._update()
        self.session.finish_drawing()

    def is_drawn(self) -> bool:
        """Return whether the canvas shows the present map and legend."""
        return self.session.is_drawn()

    def _mapping_settings(self) -> MappingSettings:
        return self.finer.settings()

    def _base_settings(self) -> MappingSettings:
        return read_preferences(self.notify).mapping if self._settings is None else self._settings

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._build_top()
        self._build_types()
        self.gene, self.gene_note, self.look = GeneBox(), TextLabel(), LookBox(self.state)
        self.by_trust = button(
            "by trust",
            "list the genes with the finest trusted scale, then the highest held-out PCC, first; off: by name",
            checkable=True,
        )
        self.measure, self.stride = MeasureBox(self.state, self.session.places), FinerBox(self.state, self.finer)
        self.detail = stack(self.measure, self.stride)
        self.signatures = Signatures(self.state, self.background, self.notify)
        self.signature = SignatureBox(self.state, self.signatures)
        self.similar = Similar(self.state, self.background, self.notify, self._mapping_settings)
        self.similar_box = SimilarBox(self.viewer, self.state, self.similar)
        self.tools = CanvasTools(
            self.viewer,
            self.state,
            self.background,
            hide_map=self.session.overlays.peek,
            is_map=self.session.overlays.is_layer_of_map,
            types=lambda: [type_row.name for type_row in self.controller.type_rows()],
            genes=self.gene.genes,
            toggle_live=self.live.toggle,
        )
        self.readout = TextLabel()
        self.folds = lay_out(self)

    def _build_top(self) -> None:
        self.slide = slim_combo("the slide to explore")
        self.mpp_row = PixelSizeBox(self.viewer, self.state, self.session.set_mpp)
        self.mpp, self.mpp_set = self.mpp_row.mpp, self.mpp_row.set
        self.model = ModelPicker(self.background, "the model that predicts", ModelEntry.why_no_map)
        self.info = button("info", "training data, genes and scores of the model")
        self.live = button("Live", "map what is in view; click to pause", checkable=True)
        self.live.setChecked(True)
        self.whole = button("Whole slide", "after the view, map the rest of the slide", checkable=True)
        self.progress = TextLabel()
        self.warning = TextLabel()
        self.warning.hide()
        self.export = ExportButton(self.viewer, self.background)
        self.keep = SessionButton(self.viewer, self)

    def _build_types(self) -> None:
        self.types = CellTypeList()
        self.one = QRadioButton("one type")
        self.dominant = QRadioButton("dominant type")
        self.blend = QRadioButton("blend of checked")
        self.show_group = QButtonGroup(self)
        for radio in (self.one, self.dominant, self.blend):
            self.show_group.addButton(radio)
        self.one.setToolTip("the share of one cell type: click it in the list")
        self.dominant.setToolTip(f"for each patch the type with the largest share, in its colour\n{PALE}")
        self.blend.setToolTip("the colours of the checked types, mixed by their shares")
        self.types_title = bold_label("Cell types, share of the tissue in view")
        self.level = combo(_LEVELS, "major types, or the minor types of the model below them; also in the Regions dock")

    # -- signals -------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        state, session = self.state, self.session
        layers = session.viewer.layers.events
        self.listen(self._layers_changed, layers.inserted, layers.removed, layers.renamed)
        self.slide.activated.connect(self._slide_chosen)
        self.model.activated.connect(self._model_chosen)
        self.info.clicked.connect(self._show_card)
        self.live.toggled.connect(self.controller.set_live)
        self.whole.toggled.connect(self.controller.map_whole_slide)
        self.types.chosen.connect(lambda name: self.controller.show_type(name, self.types.selected_level()))
        self.level.activated.connect(lambda i: self.controller.choose_level(self.level.itemData(i)))
        self.types.checked_changed.connect(self._checked_changed)
        self.types.color_wanted.connect(lambda name: ask_color(self, self.state, name))
        self.show_group.buttonClicked.connect(self._show_clicked)
        self.gene.chosen.connect(self._gene_chosen)
        self.by_trust.toggled.connect(self._fill_genes)
        session.view_changed.connect(self.tools.set_view)
        state.slide_changed.connect(self._slide_changed)
        state.model_changed.connect(self._model_changed)
        state.mapper_changed.connect(self._update)
        state.shown_changed.connect(self._shown_changed)
        state.look_changed.connect(session.update_legend)
        state.message_changed.connect(self._message_changed)

    # -- the tour ------------------------------------------------------------------------------------------

    def _opened(self, frame: QDockWidget) -> None:
        if is_opened_by_user(frame):
            self._get_ready()
            self.session.hold_later()
            if not self.is_quiet:
                self.offer_tour()

    def offer_tour(self) -> None:
        """Start the tour if the user has not seen it yet."""
        if wants_tour() and self.isVisible():
            self.start_tour()

    def start_tour(self) -> None:
        """Start the tour of this dock."""
        if self.tour is not None:
            self.tour.close()
        self.tour = Tour(given(self.window()), self.area, tour_steps(self), self._tour_ended)

    def _tour_ended(self) -> None:
        self.tour = None
        keep_tour(False)

    def _end(self, *, viewer_lives: bool) -> None:
        """Stop mapping and remove our layers."""
        if self.tour is not None and viewer_lives:
            self.tour.close()
        self._get_ready.cancel()
        self.export.end(viewer_lives=viewer_lives)
        self.tools.end(viewer_lives=viewer_lives)
        self.signatures.close()
        self.similar_box.end(viewer_lives=viewer_lives)
        if viewer_lives:
            self.mpp_row.stop()
        self.session.close(viewer_lives=viewer_lives)
        self.state.history.forget()  # no dock is left that could undo

    # -- slide and model -----------------------------------------------------------------------------------

    def _layers_changed(self, event: Any) -> None:
        self._fill_slides()
        if event.type == "inserted" and self.state.layer is None:
            self.session.choose_newest()

    def _fill_slides(self) -> None:
        fill_slides(self.slide, self.session.slide_layers(), self.state)

    def _slide_chosen(self, index: int) -> None:
        layer = self.slide.itemData(index)
        if layer is not None and layer != self.state.layer:
            self.session.choose(layer)

    def _slide_changed(self) -> None:
        self._fill_slides()
        slide = self.state.slide
        self._fill_models()
        self.mpp_row.ask(slide is not None and slide.mpp is None)
        layer = self.state.layer
        if layer is not None and slide is None and self.state.model is None and self.controller.loading is None:
            sample = recent_models.sample_model()
            if sample is not None and recent_models.belongs_to_sample(path_of(layer)):
                self.open_model(sample)

    def _fill_models(self) -> None:
        current, model, layer = self.controller.model_path, self.state.model, self.state.layer
        self._loading = loading = self.controller.loading
        # A model that has no file was handed over by a script.
        first = [] if current else [("choose a model" if model is None else model.title or model_label(model), None)]
        if loading is not None:
            first, current = [(f"loading {names_of([loading])[loading]} ...", None)], None
        self.model.show_models(
            recent_models.known_models(),
            None if layer is None else path_of(layer),
            None if current is None else current.resolve(),
            first,
            "" if model is None or current is None else model_label(model),
        )

    def _model_chosen(self, index: int) -> None:
        if (path := self.model.itemData(index)) is not None:
            self.open_model(path)
        elif self.model.itemText(index) == OPEN:
            if name := QFileDialog.getOpenFileName(self, "Open a model", "", "CPNN models (*.safetensors)")[0]:
                self.open_model(Path(name))
            else:
                self._fill_models()

    def open_model(self, path: Path) -> None:
        """Load a model and map with it."""
        self.controller.choose_model(path)

    def _model_changed(self) -> None:
        model = self.state.model
        if model is not None and self.controller.model_path is not None:
            recent_models.remember(self.controller.model_path)
        self._refresh_all()

    def _show_card(self) -> None:
        if self.state.model is not None:
            show_model_card(self, self.state.model, self.controller.model_path)

    # -- what is shown -------------------------------------------------------------------------------------

    def _show_clicked(self, radio: Any) -> None:
        if radio is self.dominant:
            self.controller.show_dominant()
        elif radio is self.blend:
            self._checked_changed()
        else:
            rows = self.controller.type_rows()
            if not self.types.selected() and rows:
                self.types.select(rows[0].name)
            if self.types.selected():
                self.controller.show_type(self.types.selected(), self.types.selected_level())

    def _checked_changed(self) -> None:
        self.controller.show_blend(self.types.checked(), self.types.checked_level())

    def _gene_chosen(self, text: str) -> None:
        genes = () if self.state.model is None else self.state.model.genes
        if not self.controller.show_gene(text):
            self.gene_note.show_text(unknown_gene_text(text, genes))
        else:  # the gene may be on screen already, and nobody then takes away what was said of another
            self.gene_note.show_text(other_meaning(text, genes) or self.controller.gene_note())

    def _shown_changed(self) -> None:
        shown = self.state.shown
        kind = "" if shown is None else shown.kind
        self.show_group.setExclusive(False)
        for radio, name in ((self.one, "type"), (self.dominant, "dominant"), (self.blend, "blend")):
            radio.setChecked(kind == name)
        self.show_group.setExclusive(kind not in ("gene", "contribution", "signature"))
        if shown is not None and kind == "type":
            self.types.select(shown.name, shown.level)
        else:
            self.types.select("")
        self.gene.show_gene("" if shown is None else shown.gene)
        self.level.setCurrentIndex(list(_LEVELS).index(self.state.level))
        self.gene_note.show_text(self.controller.gene_note())
        self.session.update_texts()

    # -- updates -------------------------------------------------------------------------------------------

    def _refresh_all(self) -> None:
        model = self.state.model
        self._fill_genes()
        has_types = model is not None and bool(model.cell_types)
        for widget in (self.types, self.one, self.dominant, self.blend):
            widget.setEnabled(has_types)
        self.level.setVisible(model is not None and bool(model.hierarchy))
        self.types_title.setText(
            "This model predicts genes only, no cell types"
            if model is not None and not has_types
            else "Cell types, share of the tissue in view"
        )
        self.info.setEnabled(model is not None)
        self._message_changed(self.state.message)
        self._slide_changed()
        self._shown_changed()

    def _fill_genes(self) -> None:
        model = self.state.model
        self.by_trust.setEnabled(model is not None and model.trust is not None)
        if model is not None and self.by_trust.isChecked():
            self.gene.set_genes(genes_by_trust(model), ordered=True)
        else:
            self.gene.set_genes([] if model is None else model.genes)

    def _message_changed(self, message: str) -> None:
        if self.controller.problem is not None or self.controller.loading != self._loading:
            self._fill_models()  # a file that is being loaded, or could not be, is not the model
        self.message.show_text(message)

    def _update(self) -> None:
        self.controller.check()
        self.session.places.update()
        self.similar.update()
        self.finer.update()
        self.progress.setText(self.controller.progress_text())
        self.types.set_rows(self.controller.type_rows())
        self.session.update_legend()
        self._update_warning()
        self._read_pointer()

    def _update_warning(self) -> None:
        """Say when the tissue in view is unlike that of the training; its numbers are then grey and struck out."""
        level = self.controller.domain_report().level
        show_warning(self.warning, self.controller.domain_warning(), level)
        self.types.set_faded(level == "foreign")
        font = self.gene_note.font()
        font.setStrikeOut(level == "foreign")
        self.gene_note.setFont(font)

    def _read_pointer(self) -> None:
        self.readout.setText(self.session.readout() or "move the mouse over the slide")
