"""Where the cells of the Cells dock are from: found on the slide, read from a file, or predicted. No Qt here."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from psygnal import Signal

from napari_cpnn.cells import CellMap, is_cell_map, predict_cells, require_cells
from napari_cpnn.errors import CellMapError
from napari_cpnn.nuclei import LiveNuclei, read_nuclei
from napari_cpnn.progress import CancelledError
from napari_cpnn.ui.cells.colored import CellContent

if TYPE_CHECKING:
    from napari_cpnn.mapping import Viewport
    from napari_cpnn.nuclei import Nuclei
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Tasks
    from napari_cpnn.ui.viewer import ExploreState

#: Zoom from which nuclei are found as one looks, in pixels of the screen per um: 5x, where they begin to be seen.
LIVE_PX_PER_UM = 0.5
FOUND = "found on this slide"
"""Source of cells that were found here."""

Where = Literal["view", "slide"]


class CellSources:
    """Finds, reads and predicts cells in the background.

    Parameters
    ----------
    state
        State of the viewer.
    tasks
        Runs the work and shows what it is.

    Attributes
    ----------
    view
        What is in view; ``None`` while it is not known.
    file
        The file of the cells on screen; ``None`` if they have none.
    live
        Nuclei that were found on this slide; ``None`` if none were looked for.
    progress
        What a search does and how much of it is done; ``None`` while none runs.
    """

    ready = Signal(object, str)
    """Emitted with the cells and what they are."""

    def __init__(self, state: ExploreState, tasks: Tasks) -> None:
        self.state = state
        self._tasks = tasks
        self.view: Viewport | None = None
        self.file: Path | None = None
        self.live: LiveNuclei | None = None
        self.progress: tuple[str, float] | None = None
        self.is_live = False
        self._stop = threading.Event()

    @property
    def slide(self) -> Slide | None:
        """The slide on screen, if its pixel size is known."""
        slide = self.state.slide
        return slide if slide is not None and slide.mpp is not None else None

    @property
    def is_busy(self) -> bool:
        """Whether something runs that :meth:`stop` stops."""
        return any(map(self._tasks.is_running, ("find", "predict")))

    def stop(self) -> None:
        """Stop looking for nuclei, or predicting; nuclei that were found until then are kept."""
        self._stop.set()

    def forget(self) -> None:
        """Stop, and forget what was found on another slide."""
        self.stop()
        self._tasks.forget("find", "open", "predict", "live")
        self.live, self.progress, self.file = None, None, None

    def recall(self) -> None:
        """Show the nuclei that were found on this slide before, and are kept in the user's cache."""
        slide = self._required("nuclei are found on it")
        if slide is not None:
            self._tasks.run("find", "Reading nuclei ...", lambda: self._nuclei_of(slide), self._recalled)

    def _recalled(self, live: LiveNuclei) -> None:
        if live.n_done:
            self._found(live)
        else:
            text = "The nuclei that were found on this slide are not kept on this computer; find them again."
            self._tasks.notify(CellMapError(text))

    def open(self, path: str | Path) -> None:
        """Read cells of a file: a map of cells, or nuclei of another program."""
        slide, path = self._required("cells are read in its pixels"), Path(path)
        if slide is None:
            return

        def read() -> CellContent:
            if not is_cell_map(path):
                return CellContent(read_nuclei(path, slide=slide))
            cells = CellMap.load(path)
            if len(cells) and not cells.nuclei.on_slide(slide).any():
                raise CellMapError(f"None of the cells in {path} lies on {slide.label}; open the slide of the map.")
            return CellContent(cells.nuclei, cells)

        def ready(found: CellContent) -> None:
            self.file = path.absolute()
            self.ready.emit(found, path.name)

        self._tasks.run("open", f"Reading {path.name} ...", read, ready)

    def find(self, where: Where) -> None:
        """Look for nuclei in the view, or on the whole slide."""
        slide, view = self._required("nuclei are found on it"), self.view
        if slide is None:
            return
        if where == "view" and view is None:
            self._tasks.notify(CellMapError("The view is not known in 3D; show the slide in 2D."))
            return
        rect = None if where == "slide" or view is None else view.rect

        def search() -> LiveNuclei | None:
            live = self._nuclei_of(slide)
            try:
                live.find(live.missing(rect), self._report)
            except CancelledError:
                if not live.n_done:
                    return None
            live.keep()
            return live

        self._begin("Finding the tissue")
        self._tasks.run("find", "Finding nuclei ...", search, self._found)

    def predict(self, path: str | Path, content: CellContent | None) -> None:
        """Predict cells by a model of single cells; without any, the nuclei of the whole slide are found first."""
        slide = self._required("its cells are predicted")
        if slide is None:
            return

        def work() -> CellContent | None:
            from napari_cpnn.models import load_model

            model = load_model(path)
            require_cells(model)
            try:
                nuclei = self._all_nuclei(slide) if content is None else content.nuclei
                nuclei = nuclei.subset(nuclei.on_slide(slide))
                cells = predict_cells(slide, model, nuclei, progress=self._report, keep=True)
            except CancelledError:
                return None
            return CellContent(cells.nuclei, cells)

        def ready(found: CellContent | None) -> None:
            self.progress = None
            if found is not None:
                self.file = None
                self.ready.emit(found, f"predicted by {Path(path).name}")

        self._begin("Loading the model")
        self._tasks.run("predict", "Predicting cells ...", work, ready)

    def set_live(self, on: bool) -> None:
        """Find nuclei of the view as one looks, or not."""
        self.is_live = on
        self._tasks.update()

    def look(self, content: CellContent | None, source: str) -> None:
        """Look for nuclei of the view that are not known yet, one tile at a time.

        Parameters
        ----------
        content, source
            The cells on screen and what they are: those of a file are not mixed with ours.
        """
        slide, view = self.slide, self.view
        if not self.is_live or slide is None or view is None or view.px_per_um < LIVE_PX_PER_UM:
            return
        if self.is_busy or any(map(self._tasks.is_running, ("live", "open"))):
            return
        if content is not None and source != FOUND:
            return
        if self.live is not None and not len(self.live.missing(view.rect)):
            return

        def search() -> LiveNuclei:
            live = self._nuclei_of(slide)
            live.find(live.missing(view.rect)[:1])
            if not len(live.missing(view.rect)):
                live.keep()
            return live

        self._tasks.run("live", "Finding nuclei of the view ...", search, self._found)

    def _nuclei_of(self, slide: Slide) -> LiveNuclei:
        live = self.live
        if live is None or live.slide is not slide:
            live = LiveNuclei(slide)
            self.live = live
        return live

    def _all_nuclei(self, slide: Slide) -> Nuclei:
        live = self._nuclei_of(slide)
        live.find(live.missing(), self._report)
        live.keep()
        return live.nuclei()

    def _found(self, live: LiveNuclei | None) -> None:
        self.progress = None
        if live is not None and self.live is live:
            self.file = None
            self.ready.emit(CellContent(live.nuclei()), FOUND)

    def _begin(self, text: str) -> None:
        self._stop.clear()
        self.progress = (text, 0.0)

    def _report(self, text: str, done: float) -> None:
        self.progress = (text, done)
        if self._stop.is_set():
            raise CancelledError("Stopped.")

    def _required(self, why: str) -> Slide | None:
        slide = self.slide
        if slide is None:
            self._tasks.notify(CellMapError(f"Open a slide first, and choose it in the Explore dock: {why}."))
        return slide
