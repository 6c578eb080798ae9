"""Controller of the Explore dock: slide, model, live map and what is shown. No Qt here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cpnn.errors import CpnnError, GenesError, MappingError
from napari_cpnn.geometry import Mpp, as_mpp
from napari_cpnn.mapping import types_at
from napari_cpnn.painting import scale_text
from napari_cpnn.palette import LEVELS, Level
from napari_cpnn.settings import MappingSettings
from napari_cpnn.ui.explore.hint import what_next
from napari_cpnn.ui.explore.mappers import Mappers
from napari_cpnn.ui.explore.measure_box import with_measure
from napari_cpnn.ui.explore.still_shown import still_shown
from napari_cpnn.ui.explore.type_shares import TypeShares
from napari_cpnn.ui.explore.verdict import Verdict
from napari_cpnn.ui.frame import (
    Tasks,
    find_gene,
    gene_note,
    progress_text,
    readout_text,
    type_note,
)
from napari_cpnn.ui.layers import slide_of_layer
from napari_cpnn.ui.viewer import ExploreState, Memory, Shown, TypeRow, keep, recall

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_cpnn.mapping import DomainReport, LiveMapper, Viewport
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Background


class ExploreController:
    """Opens slides and models, maps, and chooses what is shown.

    Parameters
    ----------
    state
        State of the viewer, where the results go.
    background, notify
        As for :class:`~napari_cpnn.ui.frame.tasks.Tasks`.
    settings
        Returns the settings of each new map.
    """

    def __init__(
        self,
        state: ExploreState,
        background: Background,
        notify: Callable[[CpnnError], None],
        settings: Callable[[], MappingSettings] = MappingSettings,
    ) -> None:
        self.state = state
        self._settings = settings
        self._background = background
        self._tasks = Tasks(background, notify, self._hint)
        self._tasks.message_changed.connect(state.set_message)
        self._viewport: Viewport | None = None
        self._live, self._whole_slide = True, False
        self._first: tuple[str | None, str | None] = (None, None)
        self._shares = TypeShares(state)
        self._verdict = Verdict(state, background)
        self._mappers = Mappers(background)
        self._mapper: LiveMapper | None = None
        self._recalled: Memory | None = None  # what to show when its model is loaded
        self.model_path: Path | None = None
        self._wanted_model = Path()
        self.hierarchy: dict[str, str] = {}  # of the user's table, for each model that is loaded
        for changed in (state.shown_changed, state.look_changed):
            changed.connect(self._remember_view)
        state.mapper_changed.connect(self._stop_replaced_mapper)
        self._tasks.update()

    @property
    def problem(self) -> CpnnError | None:
        """The last problem."""
        return self._tasks.problem

    def be_quiet(self) -> None:
        """Show problems as the message only: somebody waits who raises them."""
        self._tasks.notify = lambda _: None

    # -- choosing ------------------------------------------------------------------------------------------

    def choose_layer(self, layer: Layer | None, mpp: Mpp | None = None) -> None:
        """Explore another slide layer; ``mpp`` overrides the pixel size of file and layer."""
        before = self.state.layer
        if before is not None and layer is not None and before is not layer:
            self.state.history.add(f"slide {layer.name}", lambda: self.choose_layer(before), owner=before)
        self._drop_mapper()
        self._tasks.set_problem(None)
        self.state.set_slide(layer, None)
        if layer is None:
            self._tasks.forget("slide")
            self._tasks.update()
            return

        def open_slide() -> tuple[Slide, Memory]:
            slide = slide_of_layer(layer, mpp)
            return slide, recall(slide)

        self._tasks.run("slide", f"Opening {layer.name} ...", open_slide, self._slide_ready)

    def prepare(self, text: str, work: Callable[[], Any], ready: Callable[[Any], None]) -> None:
        """Run something beside the event loop that makes a slide; ``text`` is the message meanwhile."""
        self._tasks.run("picture", text, work, ready)

    def choose_model(self, path: str | Path) -> None:
        """Load a model file, or a model by its name, and map with it; one that is being loaded is not loaded twice."""
        from napari_cpnn.models import model_file

        name, path = str(path), Path(path)
        if self.loading == path:
            return
        self._wanted_model = path

        def load() -> CPNN:
            self.state.before_loading()

            from napari_cpnn.models import load_model  # torch, seconds

            model = load_model(name)
            if self.hierarchy:
                model.set_hierarchy(self.hierarchy)
            return model

        self._tasks.run("model", f"Loading {path.name} ...", load, lambda m: self.use_model(m, model_file(name)))

    @property
    def loading(self) -> Path | None:
        """The model that is being loaded, by its file or its name."""
        return self._wanted_model if self._tasks.is_running("model") else None

    def restore(self, memory: Memory, model: str | Path) -> None:
        """Load a model and show what the memory says, when a slide is opened as a session had it."""
        self._recalled = memory
        self.choose_model(model)

    def use_model(self, model: CPNN, path: Path | None = None) -> None:
        """Map with a model in memory (from ``path``); one that is still being loaded is dropped."""
        before, path_before = self.state.model, self.model_path
        # A better model of a training run is not a choice.
        if before is not None and (path is None or path != path_before):
            self.state.history.add(
                "model" if path is None else f"model {path.stem}", lambda: self.use_model(before, path_before)
            )
        self._tasks.forget("model")
        self._drop_mapper()
        self.model_path = path
        self.state.set_model(model)
        recalled, self._recalled = self._recalled, None
        self.state.set_shown(still_shown(self.state, model, recalled))
        self._start_mapper()
        self._show_first(model)
        self.state.remember(model="" if path is None else str(path.resolve()))

    def set_mpp(self, value: float) -> None:
        """Set the pixel size of the slide."""
        if self.state.slide is None:
            return
        try:
            mpp = as_mpp(value)
        except CpnnError as error:
            self._tasks.fail(error)
            return
        self.use_slide(self.state.slide.with_mpp(mpp))
        self.state.remember(mpp=mpp)

    def use_slide(self, slide: Slide) -> None:
        """Replace the slide of the layer by another :class:`Slide`, such as one with another pixel size."""
        self._drop_mapper()
        self._tasks.set_problem(None)
        self.state.set_slide(self.state.layer, slide, self.state.memory)
        self.state.remember(mpp=None)
        self._start_mapper()

    # -- mapping -------------------------------------------------------------------------------------------

    def remap(self) -> None:
        """Map anew, with the settings of now; the view and what is shown stay."""
        self._drop_mapper()
        self._start_mapper()

    @property
    def live(self) -> bool:
        return self._live

    def set_live(self, on: bool) -> None:
        """Resume or pause mapping."""
        self._live = on
        if (mapper := self.state.mapper) is not None:
            (mapper.resume if on else mapper.pause)()
        self._tasks.update()

    def map_whole_slide(self, on: bool) -> None:
        """Set whether the rest of the slide is mapped after the view."""
        self._whole_slide = on
        if self.state.mapper is not None:
            self.state.mapper.map_whole_slide(on)

    def set_viewport(self, viewport: Viewport | None) -> None:
        """Map what is in view."""
        self._viewport = self.state.view = viewport
        if self.state.mapper is not None:
            self.state.mapper.set_viewport(viewport)

    def is_settled(self) -> bool:
        """Return whether the whole view is mapped."""
        return self._viewport is not None and self.state.mapper is not None and self.state.mapper.progress().idle

    def close(self) -> None:
        """Stop mapping and ignore the results of running tasks."""
        for changed in (self.state.shown_changed, self.state.look_changed):
            changed.disconnect(self._remember_view)
        self._save_memory()
        self._tasks.close()
        self._drop_mapper()
        self._mappers.close()
        self.state.mapper_changed.disconnect(self._stop_replaced_mapper, missing_ok=True)

    # -- what is shown -------------------------------------------------------------------------------------

    def show_type(self, name: str, level: Level = "minor") -> None:
        self.state.choose_shown(with_measure(self.state, Shown("type", (name,), level=level)))

    def show_dominant(self) -> None:
        self.state.choose_shown(Shown("dominant", level=self.state.level))

    def show_blend(self, names: Sequence[str], level: Level = "minor") -> None:
        self.state.choose_shown(Shown("blend", tuple(names), level=level))

    def choose_level(self, level: Level) -> None:
        """Use minor or major types: for the dominant type, and in the Regions dock."""
        self.state.wanted_level = level
        shown = self.state.shown
        if shown is not None and shown.kind == "dominant" and shown.measure == "value":
            self.show_dominant()
        else:
            self.state.shown_changed.emit()

    def show_gene(self, text: str) -> bool:
        """Show a gene, ignoring the case of its name; return ``False`` if the model does not predict it."""
        gene = None if self.state.model is None else find_gene(text, self.state.model.genes)
        if gene is None:
            return False
        self.state.choose_shown(with_measure(self.state, Shown("gene", (gene,))))
        return True

    def show_first(self, gene: str | None = None, cell_type: str | None = None) -> None:
        """Show a gene or a cell type as soon as a model is loaded; an unknown name is reported as a problem."""
        self._first = (gene, cell_type)
        if self.state.model is not None:
            self._show_first(self.state.model)

    def _show_first(self, model: CPNN) -> None:
        (gene, cell_type), self._first = self._first, (None, None)
        if gene is not None and not self.show_gene(gene):
            known = ", ".join(model.genes[:5])
            self._tasks.fail(GenesError(f"The model does not predict {gene}; it knows {known}, ..."))
        if cell_type is not None:
            levels = [level for level in LEVELS if cell_type in types_at(model, level)]
            if levels:
                self.show_type(cell_type, levels[0])
            else:
                known = ", ".join(model.cell_types) or "none"
                self._tasks.fail(MappingError(f"The model has no cell type {cell_type}; it knows: {known}."))

    # -- texts ---------------------------------------------------------------------------------------------

    def type_rows(self) -> list[TypeRow]:
        """Return all cell types, the largest mean share in view first."""
        return self._shares.rows(self._viewport)

    def domain_report(self) -> DomainReport:
        """Return how much of the tissue in view is unlike that of the training."""
        return self._verdict.report(self._viewport)

    def domain_warning(self) -> str:
        """Return the warning that the tissue in view is unlike that of the training, and why; empty if it is not."""
        return self._verdict.text(self._viewport)

    def legend_rows(self) -> list[TypeRow]:
        """Return the cell types to name in the legend."""
        return self._shares.legend(self._viewport)

    def progress_text(self) -> str:
        """Describe the progress, such as ``412 of 1,930 patches · 84/s · CPU bfloat16``."""
        return "" if self.state.mapper is None else progress_text(self.state.mapper)

    def check(self) -> None:
        """Update the message from the mapper and save the memory; called a few times a second."""
        self._tasks.update()
        self._save_memory()

    def readout(self, um: tuple[float, float] | None) -> str:
        """Describe a point (y, x): the three largest shares, the gene, and the position."""
        if um is None or self.state.slide is None:
            return ""
        trust = None if self.state.model is None else self.state.model.trust
        return readout_text(self.state.map, self.state.shown, um, trust, self.state.look.scale_um)

    def scale_text(self) -> str:
        """Return the scale at which the quantity on screen is shown; empty if there is no choice."""
        cmap, shown = self.state.map, self.state.shown
        return "" if cmap is None or shown is None else scale_text(cmap, shown, self.state.look.scale_um)

    def gene_note(self) -> str:
        """Return how well the gene or type on screen was predicted, as far as the checkpoint says it."""
        shown, model = self.state.shown, self.state.model
        if model is None or shown is None or shown.measure == "domain":
            return ""
        if shown.kind == "type":
            return type_note(model, shown.name)
        slide = "" if self.state.slide is None else self.state.slide.name
        return gene_note(model, shown.gene, slide) if shown.gene else ""

    # -- inside --------------------------------------------------------------------------------------------

    def _slide_ready(self, found: tuple[Slide, Memory]) -> None:
        slide, memory = found
        if slide.mpp is None and memory.mpp is not None:
            slide = slide.with_mpp(memory.mpp)
        self.state.set_slide(self.state.layer, slide, memory)
        model = memory.model_file()
        if model is not None and self.state.model is None and self.loading is None:
            self.restore(memory, model)
        self._start_mapper()

    def _remember_view(self) -> None:
        if self.state.shown is not None:
            self.state.remember(shown=self.state.shown, look=self.state.look)

    def _save_memory(self) -> None:
        slide, memory = self.state.slide, self.state.take_changed_memory()
        if slide is not None and memory is not None:
            self._background(lambda: keep(slide, memory), lambda _: None, _raise)

    def _start_mapper(self) -> None:
        slide, model = self.state.slide, self.state.model
        self._tasks.update()
        if slide is None or slide.mpp is None:
            return
        settings = self._settings()
        if model is None:
            if self.loading is not None:  # beside the import of torch
                self._mappers.find_tissue(slide, settings.tissue)
            return

        def make() -> LiveMapper:
            return self._mappers.make(slide, model, settings, (lambda: self._viewport) if self._live else None)

        self._tasks.run("mapper", f"Finding tissue on {slide.name} ...", make, self._mapper_ready, self._mappers.stop)

    def _mapper_ready(self, mapper: LiveMapper) -> None:
        if not self._live:
            mapper.pause()
        self._mapper = mapper
        self.state.set_mapper(mapper)
        mapper.set_viewport(self._viewport)
        if self._whole_slide:
            mapper.map_whole_slide(True)

    def _drop_mapper(self) -> None:
        self._tasks.forget("mapper")
        if self.state.mapper is not None:
            self.state.set_mapper(None)
        self._stop_replaced_mapper()

    def _stop_replaced_mapper(self) -> None:
        """Stop the mapper of this controller when the state has another one, perhaps of a second Explore dock."""
        mapper = self._mapper
        if mapper is not None and self.state.mapper is not mapper:
            self._mapper = None
            self._mappers.stop(mapper)

    def _hint(self) -> str:
        return what_next(self.state, live=self._live, has_view=self._viewport is not None)


def _raise(error: Exception) -> None:
    raise error
