"""Summaries of a map over regions: shares, genes, out-of-domain tissue and areas, with intervals.

Means over a region are taken over its computed area, each patch weighted by its area inside. Intervals are percentiles
of a spatial block bootstrap (Politis and Romano 1994; Lahiri 2003): since neighbouring patches are correlated, whole
blocks of tissue are drawn with replacement. They quantify sampling variation within the region, not the error of the
model.

Beside them stand the mean ends of the model's intervals for the single patches of the region: a *typical patch
interval*. It is not an interval of the mean: errors of neighbouring patches go together to a degree that a calibration
by single spots does not tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import RegionsError
from napari_cpnn.mapping import DONE, DomainReport, is_unlike, members_of
from napari_cpnn.palette import membership
from napari_cpnn.regions.outlines import Region
from napari_cpnn.settings import RegionSettings

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap

_LEAST_BLOCKS = 3


def summarise_regions(
    cmap: CompositionMap, regions: Sequence[Region], genes: Sequence[str] = (), settings: RegionSettings | None = None
) -> pd.DataFrame:
    """Summarise a map over regions.

    Parameters
    ----------
    genes
        Genes whose mean predicted expression is included.

    Returns
    -------
    DataFrame
        One row per region and quantity: ``region``, ``kind``, ``name``, ``value``, ``low``, ``high``, ``patch_low``,
        ``patch_high``, ``unit``. Kinds
        are ``area`` (the outline), ``tissue`` in it, ``mapped`` (the computed tissue), ``patches``, ``unlike``
        (share of tissue unlike that of the training), ``share`` (of each cell type of ``settings.level``)
        and ``expression``. ``low`` and
        ``high`` are NaN for areas, and if the region has fewer than three blocks. ``patch_low`` and ``patch_high`` are
        the mean ends of the 90 % intervals of the patches, in which nine of ten measured spots lie; NaN where the map
        knows none.

    Raises
    ------
    GenesError
        If the model does not predict a gene.
    RegionsError
        If there are no regions, or nothing is computed in one of them.

    Examples
    --------
    >>> from napari_cpnn.regions import Region, summarise_regions
    >>> region = Region.from_vertices("margin", [(1000, 1000), (1000, 1400), (1400, 1400), (1400, 1000)])
    >>> table = summarise_regions(cmap, [region], genes=["ERBB2"])
    >>> list(table["kind"].unique())
    ['area', 'tissue', 'mapped', 'patches', 'unlike', 'share', 'expression']
    """
    settings = settings or RegionSettings()
    if not regions:
        raise RegionsError("There are no regions: draw some, or read a GeoJSON file.")
    tables = []
    for region in regions:
        content = _Content.of(cmap, region, genes, settings)
        low, high = _interval(content.draws(settings), settings)
        patch_low, patch_high = _typical_interval(cmap, content, settings.level)
        table = content.names.assign(
            value=content.means(), low=low, high=high, patch_low=patch_low, patch_high=patch_high
        )
        sizes = pd.DataFrame(
            [
                ("area", "", "mm2", region.area_mm2),
                ("tissue", "", "mm2", content.tissue_um2 / 1e6),
                ("mapped", "", "mm2", content.areas.sum() / 1e6),
                ("patches", "", "", float(len(content.areas))),
            ],
            columns=["kind", "name", "unit", "value"],
        )
        tables.append(pd.concat([sizes, table], ignore_index=True).assign(region=region.name))
    result = pd.concat(tables, ignore_index=True)
    return result[["region", "kind", "name", "value", "low", "high", "patch_low", "patch_high", "unit"]]


def compare_regions(
    cmap: CompositionMap,
    first: Region,
    second: Region,
    genes: Sequence[str] = (),
    settings: RegionSettings | None = None,
) -> pd.DataFrame:
    """Compare two regions, first minus second, with intervals; blocks of each are drawn independently.

    Returns
    -------
    DataFrame
        One row per quantity: ``kind``, ``name``, ``first``, ``second``, ``difference``, ``low``, ``high``, ``unit``.

    Raises
    ------
    GenesError, RegionsError
        As :func:`summarise_regions`.

    Examples
    --------
    >>> from napari_cpnn.regions import Region, compare_regions
    >>> upper = Region.from_vertices("upper", [(1000, 1000), (1000, 1400), (1200, 1400), (1200, 1000)])
    >>> lower = Region.from_vertices("lower", [(1200, 1000), (1200, 1400), (1400, 1400), (1400, 1000)])
    >>> table = compare_regions(cmap, upper, lower, genes=["ERBB2"])
    >>> bool((table["difference"] == table["first"] - table["second"]).all())
    True
    """
    settings = settings or RegionSettings()
    contents = [_Content.of(cmap, region, genes, settings) for region in (first, second)]
    drawn = [content.draws(settings, seed) for seed, content in enumerate(contents)]
    low, high = _interval(drawn[0] - drawn[1], settings)
    means = [content.means() for content in contents]
    table = contents[0].names.assign(
        first=means[0], second=means[1], difference=means[0] - means[1], low=low, high=high
    )
    return table[["kind", "name", "first", "second", "difference", "low", "high", "unit"]]


def cells_of(cmap: CompositionMap, region: Region) -> tuple[IntArray, FloatArray]:
    """Computed patches of a region: ``(n, 2)`` row and column, and area inside, ``(n,)`` um^2.

    Raises
    ------
    RegionsError
        If there are none.
    """
    cells, areas, _ = _tissue(cmap, region)
    return cells, areas


def tissue_mm2(cmap: CompositionMap, region: Region) -> float:
    """Area of the tissue in a region in mm^2, computed or not."""
    cells, areas = region.cells(cmap.grid)
    return float(areas[cmap.tissue[cells[:, 0], cells[:, 1]]].sum()) / 1e6


def _tissue(cmap: CompositionMap, region: Region) -> tuple[IntArray, FloatArray, float]:
    """Computed patches of a region, their areas inside, and the area of all its tissue."""
    cells, areas = region.cells(cmap.grid)
    tissue = cmap.tissue[cells[:, 0], cells[:, 1]]
    if not tissue.any():
        raise RegionsError(f"There is no tissue in region {region.name!r}.")
    done = cmap.state[cells[:, 0], cells[:, 1]] == DONE
    if not done.any():
        raise RegionsError(
            f"Nothing is mapped in region {region.name!r} yet; look at it, or map the whole slide, and try again."
        )
    return cells[done], areas[done], float(areas[tissue].sum())


@dataclass(frozen=True, eq=False)
class _Content:
    """Quantities of the patches of a region: ``values (n, q)``, NaN where unknown, and their assignment to blocks."""

    names: pd.DataFrame
    values: FloatArray
    areas: FloatArray
    block_of: IntArray
    tissue_um2: float
    sums: FloatArray | None = None  # (n, genes + 1): on the count scale, what is averaged instead of expression

    @classmethod
    def of(cls, cmap: CompositionMap, region: Region, genes: Sequence[str], settings: RegionSettings) -> _Content:
        cells, areas, tissue_um2 = _tissue(cmap, region)
        low, high = cells.min(axis=0), cells.max(axis=0) + 1
        block = cmap.block((slice(low[0], high[0]), slice(low[1], high[1])))
        row, col = (cells - low).T
        weights, programs = block.weights[row, col].astype(np.float32), block.programs[row, col].astype(np.float32)
        score = block.out_of_domain[row, col].astype(np.float64)
        unlike = np.where(np.isnan(score), np.nan, is_unlike(score))
        shares = weights.astype(np.float64)
        if settings.level == "major":
            shares = shares @ membership(cmap.cell_types, cmap.hierarchy)
        columns, sums = [unlike[:, None], shares], None
        if genes:
            columns.append(cmap.decoder.expression(weights, programs, genes).astype(np.float64))
            if cmap.decoder.scale == "count":  # a region is one sample
                of_genes, totals = cmap.decoder.numerators(weights, programs, genes)
                sums = np.c_[of_genes, totals].astype(np.float64)
        names = pd.DataFrame(
            [("unlike", "", "share")]
            + [("share", name, "share") for name in cmap.types_at(settings.level)]
            + [("expression", gene, "log1p CP10k") for gene in genes],
            columns=["kind", "name", "unit"],
        )
        at = np.floor(cmap.grid.centers_um(cells) / settings.block_um).astype(np.intp)
        _, block_of = np.unique(at, axis=0, return_inverse=True)
        return cls(names, np.concatenate(columns, axis=1), areas, np.asarray(block_of).ravel(), tissue_um2, sums)

    def means(self) -> FloatArray:
        """Area-weighted means ``(q,)``; on the count scale, expression of the region as one sample."""
        means = np.asarray((self.areas @ self.values) / self.areas.sum())
        if self.sums is not None:
            sums = self.areas @ self.sums
            means[-(len(sums) - 1) :] = np.log1p(1e4 * sums[:-1] / sums[-1])
        return means

    def draws(self, settings: RegionSettings, seed: int = 0) -> FloatArray:
        """Bootstrap means ``(B, q)`` over blocks drawn with replacement; NaN for too few blocks."""
        n_blocks = int(self.block_of.max()) + 1
        if n_blocks < _LEAST_BLOCKS:
            return np.full((settings.bootstraps, len(self.names)), np.nan)
        # Sparse: a region as large as a slide has 10,000 blocks of 200,000 patches.
        member = csr_array((self.areas, (self.block_of, np.arange(len(self.areas)))), (n_blocks, len(self.areas)))
        counts = np.random.default_rng(seed).multinomial(
            n_blocks, np.full(n_blocks, 1 / n_blocks), size=settings.bootstraps
        )
        drawn: FloatArray = (counts @ (member @ self.values)) / (counts @ member.sum(axis=1))[:, None]
        if self.sums is not None:
            sums = counts @ (member @ self.sums)
            drawn[:, -(sums.shape[1] - 1) :] = np.log1p(1e4 * sums[:, :-1] / sums[:, -1:])
        return drawn


def _typical_interval(cmap: CompositionMap, content: _Content, level: str) -> tuple[FloatArray, FloatArray]:
    """Return the area-weighted means ``(q,)`` of the ends of the patches' intervals; NaN where they are not known."""
    low, high = np.full((2, len(content.names)), np.nan)
    trust = cmap.trust
    if trust is None:
        return low, high
    share = content.areas / content.areas.sum()
    for i, (kind, name) in enumerate(zip(content.names["kind"], content.names["name"], strict=True)):
        if kind == "unlike":
            continue
        members = members_of(cmap, name, level) if kind == "share" else []
        if len(members) > 1:  # nothing is known of a sum
            continue
        quantity = len(cmap.genes) + members[0] if members else cmap.genes.index(name)
        if trust.has_interval(quantity):
            ends = trust.interval(quantity, content.values[:, i])  # noqa: PD011 (an array)
            low[i], high[i] = (share @ end for end in ends)
    return low, high


def _interval(drawn: FloatArray, settings: RegionSettings) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    tail = (1 - settings.interval) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return low, high


def domain_report_of(cmap: CompositionMap, table: pd.DataFrame) -> DomainReport:
    """Return how far a region is unlike the training tissue, by its table of :func:`summarise_regions`."""
    values = table.set_index("kind")["value"]
    whole = cmap.domain_report()
    own = DomainReport(int(values["patches"]), float(values["unlike"]), whole.trained_on)
    return whole if own.level == "unknown" else own


def with_warning(table: pd.DataFrame, warnings: Sequence[str]) -> pd.DataFrame:
    """Return a table with a first column ``warning``, one for each line, if there are any."""
    if not any(warnings):
        return table
    return pd.concat([pd.Series(list(warnings), index=table.index, name="warning", dtype=object), table], axis=1)
