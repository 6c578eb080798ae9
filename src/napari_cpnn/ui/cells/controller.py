"""Controller of the Cells dock: where cells are from, what they are coloured by, and what is drawn. No Qt here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from psygnal import Signal

from napari_cpnn.arrays import IntArray
from napari_cpnn.cells import Neighbours, export_cells, neighbours_of, region_of, summarise_nuclei
from napari_cpnn.counts import builtin_gene_sets
from napari_cpnn.errors import CellMapError, CpnnError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import choose_genes, require_some
from napari_cpnn.nuclei import write_nuclei
from napari_cpnn.ui.cells.colored import (
    CellContent,
    CellShown,
    ColoredCells,
    best_shown,
    color_cells,
    grid_of,
    still_shown,
)
from napari_cpnn.ui.cells.counts import CountRow, count_rows, tissue_of
from napari_cpnn.ui.cells.gallery import Crops, read_crops
from napari_cpnn.ui.cells.in_view import Drawing, draw_view
from napari_cpnn.ui.cells.sources import FOUND, CellSources
from napari_cpnn.ui.cells.words import hint_of
from napari_cpnn.ui.frame import Tasks, find_gene, unknown_gene_text

if TYPE_CHECKING:
    from napari_cpnn.counts import GeneSet
    from napari_cpnn.mapping import Viewport
    from napari_cpnn.regions import Region
    from napari_cpnn.slides import Slide, TissueMask
    from napari_cpnn.ui.frame import Background
    from napari_cpnn.ui.viewer import ExploreState

#: Largest distance of neighbours in um, and how often types are shuffled.
WITHIN_UM, PERMUTATIONS = 30.0, 200
_KINDS = ("find", "open", "predict", "signature", "color", "draw", "count", "measure", "live", "gallery", "two genes")


@dataclass(frozen=True)
class _Coloring:
    """What the colours on screen were made of."""

    content: CellContent
    shown: CellShown
    colormap: str


class CellsController:
    """Finds, opens and predicts cells, colours them, and draws those of the view.

    Parameters
    ----------
    state
        State of the viewer.
    background, notify
        As for :class:`~napari_cpnn.ui.frame.tasks.Tasks`.

    Attributes
    ----------
    content
        The cells; ``None`` if there are none.
    shown
        What they are coloured by.
    colored
        The cells in these colours; ``None`` while they are being made.
    drawing
        The picture of the view; ``None`` while there is none.
    chosen
        Numbers of the cells that stand out; empty: all are alike.
    neighbours, morphology, crops
        The last results; ``None`` where there are none of these cells.
    """

    content_changed = Signal()
    shown_changed = Signal()
    colored_changed = Signal()
    drawn = Signal()
    counted = Signal()
    measured = Signal()
    crops_changed = Signal()
    chosen_changed = Signal()
    message_changed = Signal(str)

    def __init__(self, state: ExploreState, background: Background, notify: Callable[[CpnnError], None]) -> None:
        self.state = state
        self.content: CellContent | None = None
        self.tasks = Tasks(background, notify, lambda: hint_of(self.sources, self.content))
        self.tasks.message_changed.connect(self.message_changed)
        self.sources = CellSources(state, self.tasks)
        self.sources.ready.connect(self.set_content)
        self.source = ""
        self.shown = CellShown()
        self.colored: ColoredCells | None = None
        self.drawing: Drawing | None = None
        self.rows: list[CountRow] = []
        self.neighbours: Neighbours | None = None
        self.morphology: pd.DataFrame | None = None
        self.crops: Crops | None = None
        self.chosen: IntArray = np.empty(0, dtype=np.intp)
        self._chosen = False  # by the user
        self._tissue: TissueMask | None = None
        self._wanted: _Coloring | None = None
        self._counted: tuple[Any, ...] = ()

    def close(self) -> None:
        """Stop, keep what was found, and ignore results from now on."""
        self.sources.stop()
        self.tasks.close()
        self.state.set_cells(None)

    @property
    def is_settled(self) -> bool:
        """True when nothing is being found, coloured, drawn or counted."""
        return not any(map(self.tasks.is_running, _KINDS))

    @property
    def slide(self) -> Slide | None:
        """The slide on screen, if its pixel size is known."""
        return self.sources.slide

    # -- the cells -----------------------------------------------------------------------------------------

    def slide_changed(self) -> None:
        """Forget the cells of another slide."""
        self.sources.forget()
        self.tasks.forget("color", "draw", "count", "measure", "gallery")
        self._tissue = None
        self.tasks.set_problem(None)
        self.set_content(None)

    def predict(self, path: str | Path) -> None:
        """Predict the cells by a model of single cells; without any, the nuclei of the slide are found first."""
        self.sources.predict(path, self.content)

    def look(self) -> None:
        """Look for nuclei of the view that are not known yet; called a few times a second."""
        self.sources.look(self.content, self.source)

    def set_content(self, content: CellContent | None, source: str = "") -> None:
        """Show other cells, coloured as before if they can be."""
        grows = content is not None and source == self.source == FOUND
        self.content, self.source = content, source
        self._counted, self._wanted = (), None
        if not grows:  # else the cells on screen stay until there are more
            self.colored = self.drawing = None
            self.rows = []
        self.neighbours, self.morphology, self.crops = None, None, None
        self.chosen = np.empty(0, dtype=np.intp)
        if content is not None:
            self.shown = still_shown(self.shown, content) if self._chosen else best_shown(content)
        self.state.set_cells(content)
        self.content_changed.emit()
        self.shown_changed.emit()
        for signal in (self.measured, self.counted, self.crops_changed, self.chosen_changed, self.drawn):
            signal.emit()
        self.recolor()
        self.tasks.update()

    # -- what is shown -------------------------------------------------------------------------------------

    def show(self, shown: CellShown) -> None:
        """Colour the cells by something else, as a choice that the user can undo."""
        before, was_chosen = self.shown, self._chosen
        if shown != before:
            self.state.history.add(f"cells by {shown.title}", lambda: self.set_shown(before, chosen=was_chosen))
        self.set_shown(shown)

    def show_gene(self, text: str) -> str:
        """Colour by a gene; return a message if it is not predicted."""
        genes = () if self.content is None or self.content.cells is None else self.content.cells.genes
        gene = find_gene(text, genes)
        if gene is None:
            return unknown_gene_text(text, genes)
        self.show(CellShown("gene", gene))
        return ""

    @property
    def gene_sets(self) -> list[GeneSet]:
        """Sets of genes that can be shown, those that the user opened in Explore first."""
        markers = () if self.content is None else self.content.markers
        return [*self.state.gene_sets, *builtin_gene_sets(), *markers]

    def show_signature(self, name: str) -> None:
        """Colour by the mean z-score of a set of genes; which of them the model predicts is found in the background."""
        content, gene_set = self.content, next((one for one in self.gene_sets if one.name == name), None)
        genes = () if content is None or content.cells is None else content.cells.genes

        def ready(used: tuple[str, ...]) -> None:
            if self.content is content:
                self.show(CellShown("signature", name, used))

        def choose(wanted: GeneSet) -> tuple[str, ...]:
            return tuple(choice.gene for choice in require_some(wanted, choose_genes(wanted, genes, None)))

        if genes and gene_set is not None:
            self.tasks.run("signature", "", lambda: choose(gene_set), ready)

    def set_shown(self, shown: CellShown, *, chosen: bool = True) -> None:
        """Colour the cells by something else, also those that are opened next."""
        self._chosen = chosen
        self.shown = shown if self.content is None else still_shown(shown, self.content)
        self.shown_changed.emit()
        self.recolor()

    def recolor(self) -> None:
        """Make the colours of the cells, unless they are those on screen."""
        content, slide = self.content, self.slide
        if content is None or slide is None:
            return
        wanted = _Coloring(content, self.shown, self.state.look.colormap)
        if self._wanted == wanted:
            return
        self._wanted = wanted
        grid = self._grid(slide)

        def ready(colored: ColoredCells) -> None:
            self.colored, self.drawing = colored, None
            self.colored_changed.emit()
            self.draw()
            self.count()

        self.tasks.run("color", "", lambda: color_cells(content, wanted.shown, wanted.colormap, grid), ready)

    def _grid(self, slide: Slide) -> Grid:
        """Patches of the map on screen where they are coarse enough, so that both can be compared."""
        cmap = self.state.map
        own = grid_of(slide)
        if cmap is not None and own.stride_um <= cmap.grid.stride_um and cmap.grid.origin_um == (0.0, 0.0):
            return cmap.grid
        return own

    # -- the view ------------------------------------------------------------------------------------------

    def set_view(self, view: Viewport | None) -> None:
        """Draw the cells of another view."""
        self.sources.view = view
        self.draw()
        self.count()
        self.look()

    def draw(self) -> None:
        """Draw the cells of the view, unless the picture on screen serves."""
        colored, view, ratio, chosen = self.colored, self.sources.view, self.state.pixel_ratio, self.chosen
        if colored is None or view is None or self.tasks.is_running("draw"):
            return
        if self.drawing is not None and self.drawing.serves(view, ratio):
            return

        def ready(drawing: Drawing) -> None:
            if self.colored is colored and self.chosen is chosen:
                self.drawing = drawing
                self.drawn.emit()
            self.draw()  # the view may have moved on meanwhile

        def work() -> Drawing:
            if not len(chosen):
                return draw_view(colored, view, ratio)
            stands_out = np.zeros(len(colored.content), dtype=bool)
            stands_out[chosen] = True
            return draw_view(colored, view, ratio, stands_out)

        self.tasks.run("draw", "", work, ready)

    def choose(self, numbers: IntArray) -> None:
        """Let some cells stand out on the slide and in the gallery; none: all are alike."""
        self.chosen, self.drawing = np.asarray(numbers, dtype=np.intp), None
        self.chosen_changed.emit()
        self.draw()
        self.make_gallery()

    def choose_in(self, regions: Sequence[Region]) -> None:
        """Let the cells of regions stand out."""
        content = self.content
        if content is None or not regions:
            self.tasks.notify(CellMapError("There are no cells in regions: draw a region over cells first."))
            return
        self.choose(np.flatnonzero(region_of(content.nuclei.centers_um, regions) >= 0))

    def count(self) -> None:
        """Count cells by class or type, on the slide and in view."""
        content, slide, view = self.content, self.slide, self.sources.view
        if content is None or slide is None or self.tasks.is_running("count"):
            return
        rect = None if view is None else view.rect
        kind = self.shown.kind if self.shown.is_category else content.kinds[0]
        key = (id(content), kind, rect)
        if key == self._counted:
            return
        self._counted = key

        def work() -> tuple[list[CountRow], TissueMask | None]:
            tissue = self._tissue if content.nuclei.searched is not None else self._tissue or tissue_of(slide)
            return count_rows(content, kind, tissue, rect), tissue

        def ready(found: tuple[list[CountRow], TissueMask | None]) -> None:
            rows, self._tissue = found
            if self.content is content:
                self.rows = rows
                self.counted.emit()
            self.count()

        self.tasks.run("count", "", work, ready)

    # -- measurements --------------------------------------------------------------------------------------

    @property
    def category(self) -> str:
        """What cells are told apart by: their types, else their classes; empty if neither is known."""
        content = self.content
        kinds = [] if content is None else [kind for kind in content.kinds if kind in ("type", "class")]
        return self.shown.kind if self.shown.kind in kinds else "" if content is None else content.category

    def measure_neighbours(self, within_um: float = WITHIN_UM) -> None:
        """Count who is next to whom, against shuffled types."""
        content, kind = self.content, self.category
        if content is None or not kind:
            self.tasks.notify(CellMapError("Neighbours need cells that have a type or class."))
            return
        codes, names = content.codes(kind)
        centers = content.nuclei.centers_um

        def ready(found: Neighbours) -> None:
            self.neighbours = found
            self.measured.emit()

        work = lambda: neighbours_of(centers, codes, names, within_um, PERMUTATIONS)  # noqa: E731
        self.tasks.run("measure", "Counting neighbours ...", work, ready)

    def make_gallery(self, name: str = "") -> None:
        """Cut crops of the cells that are highest in what is shown, or of the type or class ``name``."""
        content, slide, shown, chosen = self.content, self.slide, self.shown, self.chosen
        if content is None or slide is None:
            self.tasks.notify(CellMapError("There are no cells to show: find or open some first."))
            return

        def ready(crops: Crops) -> None:
            self.crops = crops
            self.crops_changed.emit()

        self.tasks.run("gallery", "Cutting crops ...", lambda: read_crops(slide, content, shown, name, chosen), ready)

    def measure_nuclei(self) -> None:
        """Summarise size and stain of the nuclei by type or class."""
        content, slide, kind = self.content, self.slide, self.category
        if content is None or slide is None or not len(content):
            self.tasks.notify(CellMapError("There are no cells to measure: find or open some first."))
            return
        codes, names = content.codes(kind or "plain")

        def ready(found: pd.DataFrame) -> None:
            self.morphology = found
            self.measured.emit()

        self.tasks.run(
            "measure", "Measuring nuclei ...", lambda: summarise_nuclei(content.nuclei, codes, names, slide), ready
        )

    # -- files ---------------------------------------------------------------------------------------------

    def export(self, path: str | Path, genes: Sequence[str] | None = None, regions: Sequence[Any] = ()) -> None:
        """Write the cells, by the ending of the file; a file that is there is replaced."""
        content, slide, path = self.content, self.slide, Path(path)
        if content is None or slide is None:
            self.tasks.notify(CellMapError("There are no cells to export: find or open some first."))
            return
        spots = self.state.measured

        def work() -> Path:
            if content.cells is None:
                return write_nuclei(content.nuclei, path, slide.require_mappable(), overwrite=True)
            return export_cells(content.cells, path, genes, slide, regions, spots, overwrite=True)

        done = lambda written: self.tasks.show("exported", f"Written: {written.name}")  # noqa: E731
        self.tasks.run("export", f"Writing {path.name} ...", work, done)

    def save(self, path: str | Path) -> None:
        """Save the cells as a ``.zarr`` folder that this dock opens again."""
        content, path = self.content, Path(path)
        if content is None:
            self.tasks.notify(CellMapError("There are no cells to save: find or open some first."))
            return
        kept = content.cells or content.nuclei

        def done(written: Path) -> None:
            self.tasks.show("exported", f"Written: {written.name}")
            if self.content is content:
                self.sources.file = written.absolute()

        self.tasks.run("export", f"Writing {path.name} ...", lambda: kept.save(path, overwrite=True), done)
