"""A slide of a cohort in the viewer: with its kept map at once, and then with the live map of the run's model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cpnn.arrays import Float32Array
from napari_cpnn.cohort_run import SlideFolder
from napari_cpnn.errors import CohortError, MappingError, SlideError
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.painting import Look, Painter, Shown, auto_range, catch_up, paint
from napari_cpnn.slides import Slide, open_slide
from napari_cpnn.texts import shown as as_line
from napari_cpnn.ui.cohort.controller import CohortController
from napari_cpnn.ui.frame import Background, plain
from napari_cpnn.ui.layers import OVERLAY_KEY, grid_transform, is_slide_layer, path_of, slide_layer, slide_switch

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_cpnn.ui.cohort.typed_controller import TypedController
    from napari_cpnn.ui.viewer import ExploreState

#: Slides that this dock has opened and that stay open; the one opened longest ago goes first.
MOST_OPEN = 8


@dataclass(frozen=True, eq=False)
class Opened:
    """A slide with its kept map, both read, and a picture ``(rows, cols, 4)`` of it; None where it has none."""

    name: str
    slide: Slide
    map: CompositionMap | None
    rgba: Float32Array | None
    shown: Shown | None
    problem: str = ""


def read_slide(
    name: str, path: Path, mpp: float | None, files: SlideFolder | None, shown: Shown | None, look: Look
) -> Opened:
    """Open a slide, read its kept map and paint it.

    Raises
    ------
    CohortError
        If the file of the slide is not there.
    SlideError
        If it cannot be opened.
    """
    try:
        slide = open_slide(path, mpp)
    except SlideError as error:
        if path.exists():
            raise
        raise CohortError(
            f"{as_line(name, 60)}: there is no file {path} any more; put it back, or write its new place into the "
            "manifest and give the command of the run again, which keeps its map."
        ) from error
    if files is None or not files.map.is_dir():
        return Opened(name, slide, None, None, shown)
    try:
        cmap = CompositionMap.load(files.map)
    except MappingError as error:
        return Opened(name, slide, None, None, shown, str(error))
    quantity = shown or Shown("dominant")
    painter = Painter(cmap.tissue)
    catch_up(painter, cmap)
    paint(painter, cmap, quantity, look, auto_range(quantity))
    return Opened(name, slide, cmap, painter.rgba.copy(), quantity)


class SlideOpener:
    """Opens slides of a cohort in a viewer, one at a time.

    Parameters
    ----------
    viewer, state, background
        Of the dock.
    controller
        Knows the run.
    show_explore
        Opens the Explore dock, if there is none, behind this one.
    typed
        Maps the slide instead of the model of the run, while it shows a gene in a cell type.
    """

    def __init__(
        self,
        viewer: Any,
        state: ExploreState,
        background: Background,
        controller: CohortController,
        show_explore: Callable[[], None],
        typed: TypedController,
    ) -> None:
        self._typed = typed
        self._viewer, self._state, self._background = viewer, state, background
        self._controller, self._show_explore = controller, show_explore
        self.opened: Opened | None = None
        self.kept_layer: Layer | None = None
        self._layers: list[Layer] = []
        self._waits_for_model = False
        self._shown: Shown | None = None  # to be shown in Explore, too, when it maps with the model of the run

    def open(self, name: str) -> None:
        """Open a slide; what is wrong with it is said in the dock."""
        controller, look = self._controller, self._state.look
        if self.opened is not None and self.opened.name == name and self._layer_of(self.opened.slide) is not None:
            slide_switch(self._viewer).show_only(self._layer_of(self.opened.slide))
            return
        try:
            path, mpp = controller.slide_of(name)
        except CohortError as error:
            controller.tasks.fail(error)
            return
        folder = controller.folder
        files = None if folder is None else folder.slide(name)
        small = controller.gallery.maps.get(name)
        shown = controller.shown if small is not None and controller.gallery.of_run(small) else None
        shown = None if self._typed.is_on else shown  # the kept map is of the model of the run
        controller.tasks.run(
            "slide",
            f"Opening {as_line(name, 60)} ...",
            lambda: read_slide(name, path, mpp, files, shown, look),
            self._ready,
            lambda found: found.slide.close(),
        )

    def mapper_changed(self) -> None:
        """Give the live map what the kept map has, and remove the picture of the kept map."""
        mapper, opened = self._state.mapper, self.opened
        if mapper is None or opened is None or mapper.slide.path != opened.slide.path:
            return
        cmap = opened.map
        model = self._state.model
        facts = {} if cmap is None else cmap.provenance
        if cmap is None or model is None or model.fingerprint != facts.get("model_fingerprint"):
            if not self._waits_for_model or self._typed.is_on:
                self._remove_kept()
            return
        self._waits_for_model = False
        self._show_same()
        if mapper.map.grid != cmap.grid or mapper.slide.identity != facts.get("slide_identity"):
            self._remove_kept()
            return

        def restore() -> None:
            mapper.map.restore(cmap.block((slice(None), slice(None))), cmap.state)

        def ready(_: None) -> None:
            if self._state.mapper is mapper:
                mapper.set_viewport(self._state.view)  # what is left to map has changed
                self._remove_kept()

        self._background(restore, ready, self._controller.tasks.fail)

    def close(self, *, viewer_lives: bool) -> None:
        """Remove the picture of the kept map; slides stay open."""
        if viewer_lives:
            self._remove_kept()
        self.opened = None

    # -- inside --------------------------------------------------------------------------------------------

    def _ready(self, opened: Opened) -> None:
        self._remove_kept()
        self.opened, self._shown = opened, opened.shown
        layer = self._layer_of(opened.slide)
        if layer is None:
            data, keywords, _ = slide_layer(opened.slide, opened.name)
            layer = self._viewer.add_image(data, **keywords)
            self._layers.append(layer)
        slide_switch(self._viewer).show_only(layer)
        self._add_kept(layer, opened)
        self._show_explore()
        self._want_model()
        self._close_oldest()
        if opened.problem:
            self._controller.tasks.set_problem(CohortError(opened.problem))

    def _add_kept(self, layer: Layer, opened: Opened) -> None:
        if opened.rgba is None or opened.map is None or opened.slide.mpp is None or opened.shown is None:
            return
        self.kept_layer = self._viewer.add_image(
            opened.rgba,
            rgb=True,
            name=plain(f"Kept map: {opened.shown.label or 'dominant cell type'}"),
            opacity=self._state.look.opacity,
            blending="translucent_no_depth",
            metadata={OVERLAY_KEY: True},
            units=layer.units,
            **grid_transform(layer, opened.slide.mpp, opened.map.grid),
        )
        self._viewer.layers.selection.active = layer

    def _want_model(self) -> None:
        """Ask Explore for the model of the run, unless it has it."""
        tables, model = self._controller.tables, self._state.model
        run = {} if tables is None else tables.run
        self._waits_for_model = False
        if self._typed.is_on:
            self._shown = None
            self._typed.show_live()
            return
        if not run or (model is not None and model.fingerprint == run.get("fingerprint")):
            self._show_same()
            return
        file = str(run.get("model_file") or "")
        if file and (Path(file).is_file() or Path(file).name == file):
            self._waits_for_model = True
            self._state.want_model(Path(file))
        else:
            where = f" is not at {file} any more" if file else " is not known"
            text = f"The file of the model of this run, {as_line(run.get('model'), 60)},{where}: choose it in Explore "
            self._controller.tasks.set_problem(CohortError(f"{text}for a live map; the kept map is shown."))

    def _show_same(self) -> None:
        """Show in Explore what the gallery shows."""
        explore, shown = self._state.docks.get("Explore"), self._shown
        if explore is None or shown is None or self._state.model is None:
            return
        self._shown = None
        if shown.kind == "gene":
            explore.controller.show_gene(shown.gene)
        elif shown.kind == "type":
            explore.controller.show_type(shown.name)
        else:
            self._state.choose_shown(Shown("dominant", level=self._state.level))

    def _layer_of(self, slide: Slide) -> Layer | None:
        return next((one for one in self._viewer.layers if is_slide_layer(one) and path_of(one) == slide.path), None)

    def _close_oldest(self) -> None:
        self._layers = [layer for layer in self._layers if layer in self._viewer.layers]
        while len(self._layers) > MOST_OPEN:
            self._viewer.layers.remove(self._layers.pop(0))

    def _remove_kept(self) -> None:
        layer, self.kept_layer = self.kept_layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
