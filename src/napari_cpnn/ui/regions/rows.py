"""Measurements of regions for the Regions dock, repeated only where the map has changed. No Qt here."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_cpnn.cells import RegionCells, cells_table
from napari_cpnn.errors import RegionsError
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import DomainReport
from napari_cpnn.regions import (
    Region,
    compare_regions,
    domain_report_of,
    explain_gene,
    parts_of_genes,
    summarise_regions,
    tissue_mm2,
    with_warning,
)
from napari_cpnn.settings import RegionSettings

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap


#: Levels of reports, the worst last.
_LEVELS = ("unknown", "familiar", "caution", "foreign")
_NO_REPORT = DomainReport(0, np.nan)


@dataclass(frozen=True, eq=False)
class RegionRow:
    """Measurements of a region.

    Parameters
    ----------
    region
        The region.
    tissue_mm2
        Area of its tissue; NaN without a map.
    table
        Result of :func:`~napari_cpnn.regions.summarise_regions`; ``None`` if nothing is mapped.
    report
        How much of it is unlike the training tissue; of the whole map, if the region has too few patches for a verdict.
    """

    region: Region
    tissue_mm2: float = np.nan
    table: pd.DataFrame | None = None
    report: DomainReport = _NO_REPORT

    def value(self, kind: str, name: str = "") -> float:
        """Return a number of the table; NaN if it is missing."""
        if self.table is None:
            return float("nan")
        found = self.table.loc[(self.table["kind"] == kind) & (self.table["name"] == name), "value"]
        return float(found.iloc[0]) if len(found) else float("nan")

    @property
    def no_interval(self) -> bool:
        """True when the region is too small for intervals."""
        if self.table is None:
            return True
        return not self.table.loc[self.table["kind"].isin(("share", "expression")), "low"].notna().any()

    @property
    def mapped(self) -> float:
        """Share of its tissue that is mapped; NaN without tissue."""
        if not self.tissue_mm2 > 0:
            return float("nan")
        return 0.0 if self.table is None else self.value("mapped") / self.tissue_mm2


@dataclass(frozen=True)
class Explanation:
    """Contributions to the predicted expression of a gene, or the reason why there are none.

    Parameters
    ----------
    where
        Description of the place.
    table
        Result of :func:`~napari_cpnn.regions.explain_gene`; ``None`` if there is a ``problem``.
    """

    where: str
    table: pd.DataFrame | None = None
    problem: str = ""


def key_of(cmap: CompositionMap, region: Region) -> Hashable:
    """Return a key of everything that the measurements of a region depend on; computed patches never change."""
    return cmap, region, cmap.state[cmap.grid.window(bounds_of(region))].tobytes()


class RegionMeter:
    """Measures regions, each again only when some of its patches are new."""

    def __init__(self, settings: RegionSettings) -> None:
        self.settings = settings
        self._known: dict[Hashable, RegionRow] = {}

    def measure(self, cmap: CompositionMap, regions: Sequence[Region], genes: tuple[str, ...]) -> list[RegionRow]:
        """Return a row per region, the same object while it has not changed."""
        keys = [(key_of(cmap, region), genes) for region in regions]
        known = self._known
        self._known = {k: known.get(k) or self._row(cmap, r, genes) for k, r in zip(keys, regions, strict=True)}
        return [self._known[key] for key in keys]

    def _row(self, cmap: CompositionMap, region: Region, genes: tuple[str, ...]) -> RegionRow:
        tissue = tissue_mm2(cmap, region)
        try:
            table = summarise_regions(cmap, [region], genes, self.settings)
            return RegionRow(region, tissue, table, domain_report_of(cmap, table))
        except RegionsError:  # no tissue, or nothing is mapped yet; the row shows it
            return RegionRow(region, tissue)


def worst_report(rows: Iterable[RegionRow]) -> DomainReport:
    """Return the report of the region that is most unlike the training tissue."""
    return max((row.report for row in rows), key=lambda report: _LEVELS.index(report.level), default=_NO_REPORT)


def full_table(
    cmap: CompositionMap | None,
    rows: Sequence[RegionRow],
    level: str = "minor",
    cells: Mapping[str, RegionCells] | None = None,
) -> pd.DataFrame:
    """Concatenate the tables of all rows, with the contributions to each gene (kind ``part``), and of their cells.

    Where a region is unlike the training tissue, the first column is a ``warning``.
    """
    tables = []
    for row in rows:
        if cells and row.region.name in cells:
            tables.append(cells_table([row.region], [cells[row.region.name]]))
        if row.table is None or cmap is None:
            continue
        tables.append(row.table)
        genes = row.table.loc[row.table["kind"] == "expression", "name"]
        if len(genes):
            tables.append(parts_of_genes(cmap, row.region, list(genes), level))
    table = pd.concat(tables, ignore_index=True)
    warnings = {row.region.name: row.report.warning for row in rows}
    return with_warning(table, [warnings[name] for name in table["region"]])


def bounds_of(region: Region) -> Rect:
    """Return the bounding rectangle of a region in slide um."""
    x0, y0, x1, y1 = region.outline.bounds
    return Rect(y0, x0, y1, x1)


def compared(
    cmap: CompositionMap, first: Region, second: Region, genes: Sequence[str], settings: RegionSettings
) -> pd.DataFrame | None:
    """Compare two regions; ``None`` while nothing is mapped in one of them."""
    try:
        return compare_regions(cmap, first, second, genes, settings)
    except RegionsError:  # nothing is mapped in one of them; its row shows it
        return None


def explained(
    cmap: CompositionMap, gene: str, where: Region | tuple[float, float], level: str = "minor"
) -> Explanation:
    """Explain a gene at a point (slide um) or in a region."""
    place: Region | tuple[int, int]
    if isinstance(where, Region):
        name, place = f"mean of {where.name}", where
    else:
        name = f"x {where[1]:,.0f}  y {where[0]:,.0f} µm"
        patch = cmap.grid.cell_at(*where)
        if patch is None or not cmap.tissue[patch]:
            return Explanation(name, problem="There is no tissue at this place: click on tissue.")
        place = patch
    try:
        return Explanation(name, explain_gene(cmap, gene, place, level))
    except RegionsError as error:
        return Explanation(name, problem=str(error))
