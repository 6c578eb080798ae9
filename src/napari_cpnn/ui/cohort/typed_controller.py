"""Controller of the tab Cell types: scores, the typed model, its live map and the cohort's thumbnails. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cpnn.painting import Shown
from napari_cpnn.texts import shown as as_line
from napari_cpnn.ui.cohort.controller import CohortController
from napari_cpnn.ui.cohort.thumbnails import Gallery, SmallMap, unmapped
from napari_cpnn.ui.cohort.typed_files import TypedFiles, with_file
from napari_cpnn.ui.cohort.typed_maps import typed_map

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN
    from napari_cpnn.training.bags import BagReader
    from napari_cpnn.ui.viewer import ExploreState

#: Slides whose features are read before they are shown.
_AT_ONCE = 10


class TypedController:
    """Opens scores and models of typed expression, and shows a gene in a cell type on slides.

    Parameters
    ----------
    controller
        Of the dock, which shows thumbnails and runs tasks.
    state
        Of the viewer.
    show_explore
        Opens the Explore dock, if there is none.
    """

    changed = Signal()
    """Other files are open."""
    chosen_changed = Signal()
    """Another pair of gene and cell type is chosen, or what is known of its maps has changed."""

    def __init__(self, controller: CohortController, state: ExploreState, show_explore: Callable[[], None]) -> None:
        self._controller, self._state, self._show_explore = controller, state, show_explore
        self.files: TypedFiles | None = None
        self.chosen: tuple[str, str] | None = None
        self.model: CPNN | None = None
        #: Slides whose features are kept, and slides of the cohort; None while it is not known.
        self.n_kept: tuple[int, int] | None = None
        self._of_type, self._waits = "", False
        self._gallery: Gallery | None = None
        self._reader: BagReader | None = None
        controller.opened.connect(self._run_opened)
        controller.painted.connect(self._painted)

    @property
    def is_on(self) -> bool:
        """Whether slides show a gene in a cell type: the one that was chosen last."""
        shown = self._controller.shown
        return self.model is not None and shown is not None and shown.kind == "gene" and shown.name in self.model.genes

    def open(self, path: str | Path) -> None:
        """Open scores (``.csv``) or a model (``.safetensors``); what lies beside and belongs to it is opened, too."""
        path, before = Path(path), self.files

        def ready(found: TypedFiles) -> None:
            if before is None or found.model is not before.model:
                self._forget()
            self.files, self.chosen = found, None
            self.changed.emit()
            self.chosen_changed.emit()

        self._controller.tasks.run(
            "typed files", f"Reading {as_line(path.name, 60)} ...", lambda: with_file(before, path), ready
        )

    def choose(self, cell_type: str, gene: str) -> None:
        """Show a gene in a cell type on the open slide and in the gallery, if the model has it."""
        files = self.files
        if self.chosen == (cell_type, gene) and self._controller.tasks.is_running("typed model"):
            return
        self.chosen = (cell_type, gene)
        self.chosen_changed.emit()
        if files is None or files.model is None or not files.can_map(cell_type, gene):
            return
        if self.model is not None and self._of_type == cell_type:
            self._show()
            return
        ensemble = files.model

        def build() -> CPNN:
            from napari_cpnn.training.bags.typed import map_model

            return map_model(ensemble, cell_type)

        def ready(model: CPNN) -> None:
            self._stop_gallery()
            self.model, self._of_type = model, cell_type
            self._show()
            self._waits = True  # for the thumbnails of a run that is being read
            self._painted()

        text = f"Preparing maps of {as_line(cell_type, 40)} ..."
        self._controller.tasks.run("typed model", text, build, ready)

    def show_live(self) -> None:
        """Map the open slide with the typed model and show the chosen gene."""
        from napari_cpnn.training.bags.typed import typed_name

        if self.model is None or self.chosen is None:
            return
        self._show_explore()
        explore = self._state.docks.get("Explore")
        if explore is None:
            return
        name = typed_name(self.chosen[1], self.chosen[0])
        if self._state.model is not self.model:
            explore.controller.show_first(gene=None)
            explore.controller.use_model(self.model)
        self._state.choose_shown(Shown("gene", (name,)))

    # -- inside --------------------------------------------------------------------------------------------

    def _show(self) -> None:
        from napari_cpnn.training.bags.typed import typed_name

        if self.chosen is None:
            return
        cell_type, gene = self.chosen
        if cell_type != self._of_type:
            return  # another one was chosen meanwhile
        self._controller.show_typed(Shown("gene", (typed_name(gene, cell_type),)))
        if self._state.layer is not None:
            self.show_live()
        self.chosen_changed.emit()

    def _read_gallery(self, model: CPNN) -> None:
        """Make the thumbnails of slides whose features are kept, some at a time, so that the gallery fills."""
        slides = self._controller.slide_files()
        fingerprint = model.fingerprint
        gallery = Gallery(fingerprint)
        gallery.add({s.name: unmapped(s.picture) for s in slides if s.picture is not None}, model.decoder())
        self._gallery, left = gallery, list(slides)
        counts = [0, len(slides)]
        if not slides:
            return

        def read() -> dict[str, SmallMap]:
            from napari_cpnn.training.bags import BagReader

            if self._reader is None or self._reader.model is not model:
                self._reader = BagReader(model)
            part, left[:] = left[:_AT_ONCE], left[_AT_ONCE:]
            found = {slide.name: typed_map(slide, model, self._reader, fingerprint) for slide in part}
            return {name: small for name, small in found.items() if small is not None}

        def ready(found: dict[str, SmallMap]) -> None:
            if self._gallery is not gallery:
                return
            gallery.add(found, None)
            counts[0] += len(found)
            self.n_kept = (counts[0], counts[1])
            self._controller.set_typed(gallery)
            self.chosen_changed.emit()
            if left:
                start()

        def start() -> None:
            text = f"Reading kept features of the slides: {counts[1] - len(left)} of {counts[1]} ..."
            self._controller.tasks.run("typed maps", text, read, ready)

        start()

    def _run_opened(self) -> None:
        """Make the thumbnails of other slides, once their pictures are read."""
        self._stop_gallery()
        self._waits = self.model is not None

    def _painted(self) -> None:
        if self._waits and self.model is not None and not self._controller.tasks.is_running("read"):
            self._waits = False
            self._read_gallery(self.model)

    def _forget(self) -> None:
        self._controller.tasks.forget("typed model")
        self.model, self._of_type = None, ""
        self._stop_gallery()

    def _stop_gallery(self) -> None:
        self._controller.tasks.forget("typed maps")
        self._gallery, self.n_kept, self._waits = None, None, False
        self._controller.set_typed(None)
