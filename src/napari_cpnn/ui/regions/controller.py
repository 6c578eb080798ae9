"""Controller of the Regions dock: measures regions, compares two and explains a gene. No Qt here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from psygnal import Signal

from napari_cpnn.cells import RegionCells, cells_in_regions
from napari_cpnn.errors import CpnnError, RegionsError
from napari_cpnn.mapping import DomainReport
from napari_cpnn.models import model_words
from napari_cpnn.painting import colors_of
from napari_cpnn.regions import Region, read_regions, with_warning, write_regions
from napari_cpnn.settings import RegionSettings
from napari_cpnn.storage import write_csv
from napari_cpnn.ui.frame import Tasks, find_gene, model_label, unknown_gene_text
from napari_cpnn.ui.regions.rows import (
    Explanation,
    RegionMeter,
    RegionRow,
    bounds_of,
    compared,
    explained,
    full_table,
    key_of,
    worst_report,
)
from napari_cpnn.ui.viewer import ExploreState, Shown

if TYPE_CHECKING:
    from napari_cpnn.ui.frame import Background

#: Share of its tissue from which a region counts as mapped; the rim of a drawn region is never mapped completely.
_ALL = 0.999


class RegionsController:
    """Measures, compares and explains regions.

    Parameters
    ----------
    state
        State of the viewer.
    background, notify
        As for :class:`~napari_cpnn.ui.frame.tasks.Tasks`.
    settings
        Settings of the measurements.

    Attributes
    ----------
    rows
        Measurements of each region, in the order of the layer.
    cells
        Cells of each region by its name; empty where the Cells dock has none.
    pair
        Names of the two regions that are compared, first minus second.
    comparison
        Result of :func:`~napari_cpnn.regions.compare_regions`.
    place
        Where a gene is explained: a point ``(y, x)`` in slide um, or the name of a region.
    """

    rows_changed = Signal()
    comparison_changed = Signal()
    explanation_changed = Signal()
    place_changed = Signal()

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
        self.cells: dict[str, RegionCells] = {}
        self.genes: tuple[str, ...] = ()
        self.pair: tuple[str, str] | None = None
        self.comparison: pd.DataFrame | None = None
        self.place: tuple[float, float] | str | None = None
        self.explanation: Explanation | None = None
        self._tasks = Tasks(background, notify)
        self._regions: list[Region] = []
        self._meter = RegionMeter(self.settings)
        self._measured: dict[str, Any] = {}
        self._asked_to_map = False
        self._gene = ""

    def close(self) -> None:
        """Ignore results from now on."""
        self._tasks.close()

    # -- requests ------------------------------------------------------------------------------------------

    @property
    def regions(self) -> list[Region]:
        return self._regions

    def set_regions(self, regions: Sequence[Region]) -> None:
        """Set the regions."""
        # An unchanged region stays the same object, so that it is not measured again.
        before = {(r.name, r.outline.wkb): r for r in self._regions}
        self._regions = [before.get((r.name, r.outline.wkb), r) for r in regions]
        names = [region.name for region in regions]
        if self.pair is None or not set(self.pair) <= set(names):
            self.pair = (names[0], names[1]) if len(names) > 1 else None
        if isinstance(self.place, str) and self.place not in names:
            self.place = None
            self.place_changed.emit()
        self.check()

    def set_genes(self, genes: Sequence[str]) -> None:
        """Measure these genes in each region."""
        self.genes = tuple(dict.fromkeys(genes))
        self.check()

    def add_gene(self, text: str) -> str:
        """Measure one more gene; return a message if the model does not predict it."""
        gene = self._find_gene(text)
        if gene is None:
            return unknown_gene_text(text, () if self.state.model is None else self.state.model.genes)
        self.set_genes([*self.genes, gene])
        return ""

    def _find_gene(self, text: str) -> str | None:
        return None if self.state.model is None else find_gene(text, self.state.model.genes)

    def compare(self, first: str, second: str) -> None:
        """Compare two regions by their names."""
        self.pair = (first, second)
        self.check()

    def explain(self, place: tuple[float, float] | str | None) -> None:
        """Explain the gene on screen at a point (slide um) or in a region."""
        self.place = place
        self.place_changed.emit()
        self.check()

    @property
    def gene(self) -> str:
        """The gene on screen, or the last one if something else is shown."""
        shown = self.state.shown
        if shown is not None and shown.gene:
            self._gene = shown.gene
        return self._gene if self._gene and self._find_gene(self._gene) == self._gene else ""

    def show_gene(self, text: str) -> str:
        """Show a gene over the slide; return a message if the model does not predict it."""
        gene = self._find_gene(text)
        if gene is None:
            return unknown_gene_text(text, () if self.state.model is None else self.state.model.genes)
        self.state.choose_shown(Shown("gene", (gene,)))
        self.check()
        return ""

    def show_contribution(self, cell_type: str) -> None:
        """Show the contribution of a cell type to the gene on screen; the whole gene for an empty name."""
        if self.gene:
            self.state.choose_shown(
                Shown("contribution", (self.gene, cell_type), level=self.state.level)
                if cell_type
                else Shown("gene", (self.gene,))
            )

    def map_regions(self) -> None:
        """Map the rest of the regions, after the view."""
        if self.state.mapper is not None:
            self._asked_to_map = True
            self.state.mapper.map_areas([bounds_of(region) for region in self._regions])

    # -- measuring -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Measure what has changed; called a few times a second."""
        self._count_cells()
        cmap, genes, level = self.state.map, self._measured_genes(), self.state.level
        settings = self.settings.replace(level=level)
        if cmap is None:
            self._meter = RegionMeter(settings)
            self._set("rows", tuple(self._regions), [RegionRow(region) for region in self._regions])
            self._set("comparison", None, None)
            self._set("explanation", None, None)
            return
        regions = list(self._regions)
        by_name = {region.name: region for region in regions}
        if self._meter.settings != settings:
            self._meter = RegionMeter(settings)
        meter, keys = self._meter, [key_of(cmap, region) for region in regions]
        self._measure("rows", (keys, genes, level), lambda: meter.measure(cmap, regions, genes))
        first, second = (by_name.get(name) for name in self.pair or ("", ""))
        if first is None or second is None:
            self._set("comparison", None, None)
        else:
            key = (key_of(cmap, first), key_of(cmap, second), genes, level)
            self._measure("comparison", key, lambda: compared(cmap, first, second, genes, settings))
        where = by_name.get(self.place) if isinstance(self.place, str) else self.place
        gene = self.gene
        if where is None or not gene:
            self._set("explanation", None, None)
        else:
            of = key_of(cmap, where) if isinstance(where, Region) else (cmap, cmap.revision, where)
            self._measure("explanation", (of, gene, level), lambda: explained(cmap, gene, where, level))

    def _count_cells(self) -> None:
        """Count the cells of the Cells dock in each region."""
        content, regions = self.state.cells, tuple(self._regions)
        if content is None or not regions:
            self._set("cells", None, {})
            return
        known = {row.region.name: row.tissue_mm2 for row in self.rows}
        tissue = [known.get(region.name, 0.0) for region in regions]
        areas = [mm2 if mm2 > 0 else region.area_mm2 for mm2, region in zip(tissue, regions, strict=True)]

        def work() -> dict[str, RegionCells]:
            codes, names = content.codes(content.category)
            found = cells_in_regions(content.nuclei, regions, codes, names, areas)
            return {region.name: cells for region, cells in zip(regions, found, strict=True)}

        self._measure("cells", (content, regions, tuple(areas)), work)

    @property
    def is_settled(self) -> bool:
        """True when nothing is being measured."""
        return not any(map(self._tasks.is_running, ("rows", "cells", "comparison", "explanation")))

    def _measured_genes(self) -> tuple[str, ...]:
        """Return the chosen genes, then the one on screen."""
        model = self.state.model
        wanted = dict.fromkeys([*self.genes, *([self.gene] if self.gene else [])])
        return () if model is None else tuple(gene for gene in wanted if self._find_gene(gene) == gene)

    def _is_new(self, kind: str, key: Any) -> bool:
        """Return whether a measurement has other inputs than the last one, which must have ended."""
        if self._tasks.is_running(kind) or self._measured.get(kind) == key:
            return False
        self._measured[kind] = key
        return True

    def _measure(self, kind: str, key: Any, work: Callable[[], Any]) -> None:
        """Measure in the background, once for each ``key``."""

        def ready(result: Any) -> None:
            self._store(kind, result)
            self.check()  # something may have changed meanwhile

        if self._is_new(kind, key):
            self._tasks.run(kind, "", work, ready)

    def _set(self, kind: str, key: Any, result: Any) -> None:
        if self._is_new(kind, key):
            self._store(kind, result)

    def _store(self, kind: str, result: Any) -> None:
        old = getattr(self, kind)
        if kind == "rows" and len(old) == len(result) and all(a is b for a, b in zip(old, result, strict=True)):
            return
        setattr(self, kind, result)
        getattr(self, f"{'rows' if kind == 'cells' else kind}_changed").emit()

    # -- files ---------------------------------------------------------------------------------------------

    def read(self, path: str | Path, take: Callable[[list[Region]], None]) -> None:
        """Read a GeoJSON file and pass its regions to ``take``."""
        slide = self.state.slide
        if slide is None or slide.mpp is None:
            self._tasks.notify(RegionsError("Open a slide first: regions are read in its pixels."))
            return
        mpp = slide.mpp
        self.work(lambda: read_regions(path, mpp), take)

    def write(self, path: str | Path) -> None:
        """Write the regions as GeoJSON for QuPath."""
        slide = self.state.slide
        if slide is None or slide.mpp is None or not self._regions:
            self._tasks.notify(RegionsError("There are no regions to write: draw some first."))
            return
        regions, mpp = list(self._regions), slide.mpp
        self.work(lambda: write_regions(regions, path, mpp))

    def write_table(self, path: str | Path) -> None:
        """Write the measurements of all regions as CSV, a row per region and quantity."""
        rows, cmap, source, level = list(self.rows), self.state.map, self.source(), self.state.level
        cells = dict(self.cells)
        if not cells and (cmap is None or all(row.table is None for row in rows)):
            self._tasks.notify(RegionsError("Nothing is measured yet: draw regions on mapped tissue first."))
            return

        def work() -> None:
            write_csv(full_table(cmap, rows, level, cells).assign(**source), path, RegionsError, index=False)

        self.work(work)

    def write_comparison(self, path: str | Path) -> None:
        """Write the comparison as CSV."""
        table = self.comparison
        if table is None or self.pair is None:
            self._tasks.notify(RegionsError("Nothing is compared yet: choose two regions on mapped tissue first."))
            return
        named = table.assign(first_region=self.pair[0], second_region=self.pair[1], **self.source())
        named = with_warning(named, [self.report(self.pair).warning] * len(named))
        self.work(lambda: write_csv(named, path, RegionsError, index=False))

    def report(self, names: Sequence[str]) -> DomainReport:
        """Return the report of that of some regions which is most unlike the training; of none, that of the map."""
        if not names and self.state.map is not None:
            return self.state.map.domain_report()
        return worst_report(row for row in self.rows if row.region.name in names)

    def source(self) -> dict[str, str]:
        """Return the names of slide and model, for tables and figures."""
        slide, model = self.state.slide, self.state.model
        facts = {} if self.state.map is None else self.state.map.provenance
        named = model_words(facts.get("model"), facts.get("model_fingerprint")).removeprefix("model ")
        label = "" if model is None else model_label(model)
        return {"slide": "" if slide is None else slide.name, "model": named if facts.get("model") else label}

    def work(self, work: Callable[[], Any], done: Callable[[Any], None] = lambda _: None) -> None:
        """Run something in the background, beside all other work; notify the user of a problem."""
        self._tasks.run(object(), "", work, done)

    # -- texts ---------------------------------------------------------------------------------------------

    def colors(self) -> dict[str, str]:
        """Return ``#RRGGBB`` for each cell type of the model."""
        content = self.state.cells
        of_cells = {} if content is None else content.colors_of(content.category)
        return of_cells if self.state.model is None else {**of_cells, **colors_of(self.state.model)}

    def message(self) -> str:
        """Tell the user what to do next; empty when there is nothing to do."""
        state = self.state
        if state.layer is None:
            return "No slide yet: open one, and choose it in the Explore dock."
        if state.model is None:
            return "No model yet: choose one in the Explore dock."
        if state.slide is None or state.slide.mpp is None or state.map is None:
            return "The map is not ready yet; the Explore dock tells why."
        if not self._regions:
            return "No region yet: press Draw and click around some tissue, or import a GeoJSON file."
        part = [row for row in self.rows if row.mapped < _ALL]
        if part:
            n = f"{len(part)} of {len(self.rows)} regions are" if len(self.rows) > 1 else "The region is"
            return f"{n} not mapped in full; the numbers are for the mapped part. {self._mapping_text()}"
        return ""

    def _mapping_text(self) -> str:
        """Describe the progress of mapping the regions."""
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
        """Return whether some tissue of a region is not mapped."""
        return any(row.mapped < _ALL for row in self.rows)
