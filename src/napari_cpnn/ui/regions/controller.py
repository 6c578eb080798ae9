"""What the Regions dock does, without Qt: measure regions, compare two, explain a gene, and say how things stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from psygnal import Signal

from napari_cpnn.errors import CpnnError, RegionsError
from napari_cpnn.palette import type_colors
from napari_cpnn.regions import Region, read_regions, write_regions
from napari_cpnn.settings import RegionSettings
from napari_cpnn.storage import write_csv
from napari_cpnn.ui.frame import in_a_sentence, model_label
from napari_cpnn.ui.regions.rows import (
    Explanation,
    RegionMeter,
    RegionRow,
    bounds_of,
    compared,
    explained,
    full_table,
    key_of,
)
from napari_cpnn.ui.viewer import ExploreState, Shown

if TYPE_CHECKING:
    from napari_cpnn.ui.frame import Background

#: Of the tissue of a region; the rim of one that is drawn by hand is never mapped to the last square micrometre.
_ALL = 0.999


class RegionsController:
    """The tasks of the Regions dock.

    Parameters
    ----------
    state
        Slide, model, map and gene of the viewer.
    background
        How slow work is run.
    notify
        Called with a :class:`CpnnError` that the user must see.
    settings
        How regions are summarised.

    Attributes
    ----------
    rows
        What is known of each region, in the order of their layer.
    pair
        Names of the two regions that are compared, first minus second.
    comparison
        As from :func:`~napari_cpnn.regions.compare_regions`.
    place
        What is explained: a point ``(y, x)`` in slide um, or the name of a region.
    """

    rows_changed = Signal()
    comparison_changed = Signal()
    explanation_changed = Signal()

    def __init__(
        self,
        state: ExploreState,
        background: Background,
        notify: Callable[[CpnnError], None],
        settings: RegionSettings | None = None,
    ) -> None:
        self.state = state
        self.settings = settings or RegionSettings()
        self.rows: list[RegionRow] = []
        self.genes: tuple[str, ...] = ()
        self.pair: tuple[str, str] | None = None
        self.comparison: pd.DataFrame | None = None
        self.place: tuple[float, float] | str | None = None
        self.explanation: Explanation | None = None
        self._background, self._notify = background, notify
        self._regions: list[Region] = []
        self._meter = RegionMeter(self.settings)
        self._asked: dict[str, Any] = {}
        self._running: set[str] = set()
        self._closed = self._asked_to_map = False
        self._gene = ""

    def close(self) -> None:
        """Take no more answers."""
        self._closed = True

    # -- what is asked -------------------------------------------------------------------------------------

    @property
    def regions(self) -> list[Region]:
        return self._regions

    def set_regions(self, regions: Sequence[Region]) -> None:
        """Take the outlines as they are drawn now."""
        # One that has not changed stays the same object, so that it is not measured again.
        before = {(r.name, r.outline.wkb): r for r in self._regions}
        self._regions = [before.get((r.name, r.outline.wkb), r) for r in regions]
        names = [region.name for region in regions]
        if self.pair is None or not set(self.pair) <= set(names):
            self.pair = (names[0], names[1]) if len(names) > 1 else None
        if isinstance(self.place, str) and self.place not in names:
            self.place = None
        self.check()

    def set_genes(self, genes: Sequence[str]) -> None:
        """Measure these genes in each region."""
        self.genes = tuple(dict.fromkeys(genes))
        self.check()

    def add_gene(self, text: str) -> str:
        """Measure one gene more; a sentence when the model does not predict it."""
        gene = self.find_gene(text)
        if gene is None:
            return f"The model does not predict {text}; choose one from the list."
        self.set_genes([*self.genes, gene])
        return ""

    def find_gene(self, text: str) -> str | None:
        """The model's spelling of a gene name."""
        model, wanted = self.state.model, text.strip()
        if model is None or wanted in model.genes:
            return None if model is None else wanted
        return next((gene for gene in model.genes if gene.upper() == wanted.upper()), None)

    def compare(self, first: str, second: str) -> None:
        """Compare two regions by their names."""
        self.pair = (first, second)
        self.check()

    def explain(self, place: tuple[float, float] | str | None) -> None:
        """Explain the gene on screen at a point (slide um) or in a region."""
        self.place = place
        self.check()

    @property
    def gene(self) -> str:
        """The gene on screen, whole or in part; while something else is on screen, the last one."""
        shown = self.state.shown
        if shown is not None and shown.gene:
            self._gene = shown.gene
        return self._gene if self._gene and self.find_gene(self._gene) == self._gene else ""

    def show_gene(self, text: str) -> str:
        """Show a gene over the slide; a sentence when the model does not predict it."""
        gene = self.find_gene(text)
        if gene is None:
            return f"The model does not predict {text}; choose one from the list."
        self.state.choose_shown(Shown("gene", (gene,)))
        self.check()
        return ""

    def show_contribution(self, cell_type: str) -> None:
        """Show what a cell type contributes to the gene on screen; all of the gene when the name is empty."""
        if self.gene:
            self.state.choose_shown(
                Shown("contribution", (self.gene, cell_type)) if cell_type else Shown("gene", (self.gene,))
            )

    def map_regions(self) -> None:
        """Map what is missing in the regions, after the view."""
        if self.state.mapper is not None:
            self._asked_to_map = True
            self.state.mapper.map_areas([bounds_of(region) for region in self._regions])

    # -- measuring -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Begin to measure what has changed; called a few times a second."""
        cmap, genes, settings = self.state.map, self._measured_genes(), self.settings
        if cmap is None:
            self._meter = RegionMeter(settings)
            self._take("rows", tuple(self._regions), [RegionRow(region) for region in self._regions])
            self._take("comparison", None, None)
            self._take("explanation", None, None)
            return
        regions = list(self._regions)
        by_name = {region.name: region for region in regions}
        meter = self._meter
        self._run("rows", ([key_of(cmap, r) for r in regions], genes), lambda: meter.measure(cmap, regions, genes))
        first, second = (by_name.get(name) for name in self.pair or ("", ""))
        if first is None or second is None:
            self._take("comparison", None, None)
        else:
            key = (key_of(cmap, first), key_of(cmap, second), genes)
            self._run("comparison", key, lambda: compared(cmap, first, second, genes, settings))
        where = by_name.get(self.place) if isinstance(self.place, str) else self.place
        gene = self.gene
        if where is None or not gene:
            self._take("explanation", None, None)
        else:
            of = key_of(cmap, where) if isinstance(where, Region) else (cmap, cmap.revision, where)
            self._run("explanation", (of, gene), lambda: explained(cmap, gene, where))

    @property
    def is_settled(self) -> bool:
        """Whether nothing is being measured."""
        return not self._running

    def _measured_genes(self) -> tuple[str, ...]:
        """Those that were chosen, then the one on screen."""
        model = self.state.model
        wanted = dict.fromkeys([*self.genes, *([self.gene] if self.gene else [])])
        return () if model is None else tuple(gene for gene in wanted if self.find_gene(gene) == gene)

    def _run(self, kind: str, key: Any, work: Callable[[], Any]) -> None:
        """Ask once for each state of things, and one thing of a kind at a time."""
        if kind in self._running or self._asked.get(kind) == key:
            return
        self._asked[kind] = key
        self._running.add(kind)

        def done(result: Any) -> None:
            self._running.discard(kind)
            if not self._closed:
                self._set(kind, result)
                self.check()  # things may have changed meanwhile

        def failed(error: Exception) -> None:
            self._running.discard(kind)
            if not self._closed:
                self._fail(error)

        self._background(work, done, failed)

    def _take(self, kind: str, key: Any, result: Any) -> None:
        """What needs no work."""
        if kind not in self._running and self._asked.get(kind) != key:
            self._asked[kind] = key
            self._set(kind, result)

    def _set(self, kind: str, result: Any) -> None:
        old = getattr(self, kind)
        if kind == "rows" and len(old) == len(result) and all(a is b for a, b in zip(old, result, strict=True)):
            return
        setattr(self, kind, result)
        getattr(self, f"{kind}_changed").emit()

    def _fail(self, error: Exception) -> None:
        self._notify(in_a_sentence(error))

    # -- files ---------------------------------------------------------------------------------------------

    def read(self, path: str | Path, take: Callable[[list[Region]], None]) -> None:
        """Read a GeoJSON file and hand its regions over."""
        slide = self.state.slide
        if slide is None or slide.mpp is None:
            self._notify(RegionsError("Open a slide first: regions are read in its pixels."))
            return
        mpp = slide.mpp
        self.work(lambda: read_regions(path, mpp), take)

    def write(self, path: str | Path) -> None:
        """Write the regions as GeoJSON for QuPath."""
        slide = self.state.slide
        if slide is None or slide.mpp is None or not self._regions:
            self._notify(RegionsError("There are no regions to write: draw some first."))
            return
        regions, mpp = list(self._regions), slide.mpp
        self.work(lambda: write_regions(regions, path, mpp))

    def write_table(self, path: str | Path) -> None:
        """Write what is known of all regions as CSV, a line per region and quantity."""
        rows, cmap, source = list(self.rows), self.state.map, self.source()
        if cmap is None or all(row.table is None for row in rows):
            self._notify(RegionsError("Nothing is measured yet: draw regions on mapped tissue first."))
            return
        self.work(lambda: write_csv(full_table(cmap, rows).assign(**source), path, RegionsError, index=False))

    def write_comparison(self, path: str | Path) -> None:
        """Write the comparison as CSV."""
        table = self.comparison
        if table is None or self.pair is None:
            self._notify(RegionsError("Nothing is compared yet: choose two regions on mapped tissue first."))
            return
        named = table.assign(first_region=self.pair[0], second_region=self.pair[1], **self.source())
        self.work(lambda: write_csv(named, path, RegionsError, index=False))

    def source(self) -> dict[str, str]:
        """Names of slide and model, for tables and figures."""
        slide, model = self.state.slide, self.state.model
        return {"slide": "" if slide is None else slide.name, "model": "" if model is None else model_label(model)}

    def work(self, work: Callable[[], Any], done: Callable[[Any], None] | None = None) -> None:
        """Do something outside the GUI thread; a problem is said."""

        def ready(result: Any) -> None:
            if done is not None and not self._closed:
                done(result)

        self._background(work, ready, self._fail)

    # -- words ---------------------------------------------------------------------------------------------

    def colors(self) -> dict[str, str]:
        """``#RRGGBB`` per cell type of the model."""
        return {} if self.state.model is None else type_colors(self.state.model.cell_types)

    def message(self) -> str:
        """What to do next; empty when all is well."""
        state = self.state
        if state.layer is None:
            return "No slide yet: open one, and choose it in the Explore dock."
        if state.model is None:
            return "No model yet: choose one in the Explore dock."
        if state.slide is None or state.slide.mpp is None or state.map is None:
            return "The map is not ready yet; the Explore dock says why."
        if not self._regions:
            return "No region yet: press Draw and click around some tissue, or import a GeoJSON file."
        part = [row for row in self.rows if row.mapped < _ALL]
        if part:
            n = f"{len(part)} of {len(self.rows)} regions are" if len(self.rows) > 1 else "The region is"
            return f"{n} not mapped in full, and numbers are of the mapped part. {self._mapping_words()}"
        return ""

    def _mapping_words(self) -> str:
        """What becomes of tissue that is not mapped."""
        mapper = self.state.mapper
        if mapper is None or not self._asked_to_map:
            return "Press Map regions."
        progress = mapper.progress()
        if not progress.running:
            return "Mapping is paused: press Live in the Explore dock."
        if not progress.idle:
            return f"Mapping: {progress.done:,} of {progress.wanted:,} patches."
        return f"{progress.failed:,} patches are unreadable." if progress.failed else "Press Map regions."

    def needs_mapping(self) -> bool:
        """Whether some tissue of a region is not mapped."""
        return any(row.mapped < _ALL for row in self.rows)
