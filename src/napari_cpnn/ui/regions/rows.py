"""What the Regions dock knows of regions: measured outside the GUI thread, and only where something is new."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_cpnn.errors import RegionsError
from napari_cpnn.geometry import Rect
from napari_cpnn.regions import Region, compare_regions, explain_gene, summarise_regions, tissue_mm2
from napari_cpnn.settings import RegionSettings

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap


@dataclass(frozen=True, eq=False)
class RegionRow:
    """What is known of a region.

    Parameters
    ----------
    region
        Its outline.
    tissue_mm2
        Area of the tissue in it; NaN without a map.
    table
        As from :func:`~napari_cpnn.regions.summarise_regions`; ``None`` where nothing is mapped.
    """

    region: Region
    tissue_mm2: float = np.nan
    table: pd.DataFrame | None = None

    def value(self, kind: str, name: str = "") -> float:
        """One number of the table; NaN where it has none."""
        if self.table is None:
            return float("nan")
        found = self.table.loc[(self.table["kind"] == kind) & (self.table["name"] == name), "value"]
        return float(found.iloc[0]) if len(found) else float("nan")

    @property
    def no_interval(self) -> bool:
        """Whether it is too small for intervals."""
        if self.table is None:
            return True
        return not self.table.loc[self.table["kind"].isin(("share", "expression")), "low"].notna().any()

    @property
    def mapped(self) -> float:
        """Share of its tissue that is mapped; NaN where there is none."""
        if not self.tissue_mm2 > 0:
            return float("nan")
        return 0.0 if self.table is None else self.value("mapped") / self.tissue_mm2


@dataclass(frozen=True)
class Explanation:
    """The parts of a gene, or why there are none.

    Parameters
    ----------
    where
        The place in words.
    table
        As from :func:`~napari_cpnn.regions.explain_gene`; ``None`` when ``problem`` says why not.
    """

    where: str
    table: pd.DataFrame | None = None
    problem: str = ""


def key_of(cmap: CompositionMap, region: Region) -> Hashable:
    """What the numbers of a region hang on; a computed patch keeps its value."""
    return cmap, region, cmap.state[cmap.grid.window(bounds_of(region))].tobytes()


class RegionMeter:
    """Measures regions, each again only when patches of it are new.

    Parameters
    ----------
    settings
        How regions are summarised.
    """

    def __init__(self, settings: RegionSettings) -> None:
        self.settings = settings
        self._known: dict[Hashable, RegionRow] = {}

    def measure(self, cmap: CompositionMap, regions: Sequence[Region], genes: tuple[str, ...]) -> list[RegionRow]:
        """A row per region; the same object while nothing of it has changed."""
        keys = [(key_of(cmap, region), genes) for region in regions]
        known = self._known
        self._known = {k: known.get(k) or self._row(cmap, r, genes) for k, r in zip(keys, regions, strict=True)}
        return [self._known[key] for key in keys]

    def _row(self, cmap: CompositionMap, region: Region, genes: tuple[str, ...]) -> RegionRow:
        tissue = tissue_mm2(cmap, region)
        try:
            return RegionRow(region, tissue, summarise_regions(cmap, [region], genes, self.settings))
        except RegionsError:  # no tissue, or nothing of it mapped yet; the row says so
            return RegionRow(region, tissue)


def full_table(cmap: CompositionMap, rows: Sequence[RegionRow]) -> pd.DataFrame:
    """The tables of all rows as one, and for each gene the parts that sum to it (kind ``part``)."""
    tables = []
    for row in rows:
        if row.table is None:
            continue
        tables.append(row.table)
        for gene in row.table.loc[row.table["kind"] == "expression", "name"]:
            parts = explain_gene(cmap, gene, row.region)
            named = {"kind": "part", "name": [f"{gene} from {part}" for part in parts.index], "value": parts["value"]}
            empty = {"low": np.nan, "high": np.nan, "unit": "log1p CP10k"}
            tables.append(pd.DataFrame({"region": row.region.name, **named, **empty}))
    return pd.concat(tables, ignore_index=True)


def bounds_of(region: Region) -> Rect:
    """The rectangle around a region, slide um."""
    x0, y0, x1, y1 = region.outline.bounds
    return Rect(y0, x0, y1, x1)


def compared(
    cmap: CompositionMap, first: Region, second: Region, genes: Sequence[str], settings: RegionSettings
) -> pd.DataFrame | None:
    """The comparison of two regions; ``None`` while nothing is mapped in one of them."""
    try:
        return compare_regions(cmap, first, second, genes, settings)
    except RegionsError:  # nothing is mapped in one of them; their rows say so
        return None


def explained(cmap: CompositionMap, gene: str, where: Region | tuple[float, float]) -> Explanation:
    """The parts of a gene at a point (slide um) or in a region."""
    place: Region | tuple[int, int]
    if isinstance(where, Region):
        name, place = f"mean of {where.name}", where
    else:
        name = f"x {where[1]:,.0f}  y {where[0]:,.0f} µm"
        cell = cmap.grid.cell_at(*where)
        if cell is None or not cmap.tissue[cell]:
            return Explanation(name, problem="There is no tissue at this place: click on tissue.")
        place = cell
    try:
        return Explanation(name, explain_gene(cmap, gene, place))
    except RegionsError as error:
        return Explanation(name, problem=str(error))
