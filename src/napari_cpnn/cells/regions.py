"""Cells in regions: how many, how dense, and of which types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.cells.tables import region_of
from napari_cpnn.errors import CellMapError
from napari_cpnn.nuclei import Nuclei

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.regions import Region


ENOUGH = 0.95
"""Share of the tissue from which a region, or a slide, counts as searched for nuclei."""


@dataclass(frozen=True)
class RegionCells:
    """Cells whose centre lies in a region.

    Attributes
    ----------
    n
        Their number.
    area_mm2
        Area that their density is of.
    counts
        Number of each type or class, in the order of the names; those without are left out.
    searched
        Share of the tissue in the region that was searched for nuclei; 1 where they were looked for everywhere.
    """

    n: int
    area_mm2: float
    counts: dict[str, int]
    searched: float = 1.0

    @property
    def is_searched(self) -> bool:
        """False where nothing of the region was searched: that there are no cells is then not known."""
        return self.searched > 0 or self.n > 0

    @property
    def note(self) -> str:
        """How much was searched, where that is less than nearly all; else empty."""
        if not self.is_searched:
            return "not searched for nuclei"
        return "" if self.searched >= ENOUGH else f"{percent_words(self.searched)} searched"

    @property
    def per_mm2(self) -> float:
        """Cells per mm2; NaN without area."""
        return self.n / self.area_mm2 if self.area_mm2 > 0 else float("nan")

    @property
    def shares(self) -> dict[str, float]:
        """Share of each type or class among the cells that have one, the largest first."""
        total = sum(self.counts.values())
        ordered = sorted(self.counts.items(), key=lambda item: -item[1])
        return {name: n / total for name, n in ordered if n}


def percent_words(share: float) -> str:
    """Return a share of tissue as whole per cent, rounded down, so that all but a bit is not all."""
    return "less than 1 %" if 0 < share < 0.01 else f"{int(100 * share)} %"


def cells_in_regions(
    nuclei: Nuclei,
    regions: Sequence[Region],
    codes: npt.ArrayLike | None = None,
    names: Sequence[str] = (),
    areas_mm2: Sequence[float] | None = None,
) -> list[RegionCells]:
    """Count the cells of each region; regions may overlap, and a cell then counts in each.

    Parameters
    ----------
    nuclei
        The cells.
    codes, names
        Type or class of each cell, ``(N,)`` numbers of ``names``, -1 for none.
    areas_mm2
        Area of each region that holds tissue; by default that of its outline. Where ``nuclei.searched`` is known, the
        searched tissue of the region is taken in its place.

    Returns
    -------
    list of RegionCells
        One per region.

    Raises
    ------
    CellMapError
        If there is no code for each cell, or no area for each region.

    Examples
    --------
    >>> from napari_cpnn.cells import cells_in_regions
    >>> from napari_cpnn.regions import Region
    >>> region = Region.from_vertices("margin", [(0, 0), (0, 100), (100, 100), (100, 0)])
    >>> nuclei = nc.Nuclei([[10.0, 20.0], [30.0, 45.0], [500.0, 5.0]])
    >>> (found,) = cells_in_regions(nuclei, [region], [0, 1, 1], ["a", "b"])
    >>> found.n, round(found.per_mm2), found.shares
    (2, 200, {'a': 0.5, 'b': 0.5})
    """
    kinds = np.full(len(nuclei), -1, dtype=np.intp) if codes is None else np.asarray(codes, dtype=np.intp)
    areas = [region.area_mm2 for region in regions] if areas_mm2 is None else list(areas_mm2)
    if len(kinds) != len(nuclei) or len(areas) != len(regions):
        raise CellMapError("There must be a type for each cell, and an area for each region.")
    found = []
    for region, area in zip(regions, areas, strict=True):
        x0, y0, x1, y1 = region.outline.bounds
        near = nuclei.query((y0, x0, np.nextafter(y1, np.inf), np.nextafter(x1, np.inf)))
        inside = near[region_of(nuclei.centers_um[near], [region]) == 0]
        mine = kinds[inside]
        counts = np.bincount(mine[mine >= 0], minlength=len(names)).tolist()
        mm2, share = float(area), 1.0
        if nuclei.searched is not None:
            tissue, mm2 = nuclei.searched.areas_in(region.outline)
            share = mm2 / tissue if tissue > 0 else 0.0
        found.append(RegionCells(len(inside), mm2, dict(zip(names, counts, strict=True)), share))
    return found


def cells_table(regions: Sequence[Region], found: Sequence[RegionCells]) -> pd.DataFrame:
    """Return the rows that :func:`napari_cpnn.regions.summarise_regions` would have for cells.

    Kinds are ``cells`` (their number, NaN where nothing was searched), ``cells_per_mm2`` (of searched tissue),
    ``cells_searched`` (share of the tissue) and ``cell_share`` (share of the cells found of a type, not of RNA).
    """
    import pandas as pd

    rows: list[tuple[str, str, str, float, str]] = []
    for region, cells in zip(regions, found, strict=True):
        unit = f"share of cells, {cells.note}" if cells.note else "share of cells"
        rows += [
            (region.name, "cells", "", float(cells.n) if cells.is_searched else float("nan"), ""),
            (region.name, "cells_per_mm2", "", cells.per_mm2, "per mm2"),
            (region.name, "cells_searched", "", cells.searched, "share of tissue"),
            *((region.name, "cell_share", name, share, unit) for name, share in cells.shares.items()),
        ]
    return pd.DataFrame(rows, columns=["region", "kind", "name", "value", "unit"])
