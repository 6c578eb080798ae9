"""Cells as a table: AnnData for squidpy and scanpy, with what is known of each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, FloatArray, IntArray
from napari_cpnn.errors import CellMapError
from napari_cpnn.export import (
    Rows,
    add_place,
    categories_of,
    column_names,
    meaning_of,
    picture,
    require_memory,
    storable,
    table_of,
)
from napari_cpnn.geometry import Mpp, um_to_spatial
from napari_cpnn.models import Decoder
from napari_cpnn.nuclei import Nuclei
from napari_cpnn.settings import ExportSettings

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.regions import Region
    from napari_cpnn.slides import Slide

#: Diameter of a cell of which only the centre is known, in um.
CELL_UM = 10.0


class PredictedCells(Protocol):
    """What exports ask of a :class:`~napari_cpnn.cells.CellMap`."""

    @property
    def nuclei(self) -> Nuclei: ...
    @property
    def decoder(self) -> Decoder: ...
    @property
    def weights(self) -> npt.NDArray[np.float16]: ...
    @property
    def programs(self) -> npt.NDArray[np.float16]: ...
    @property
    def out_of_domain(self) -> npt.NDArray[np.float16] | None: ...
    @property
    def provenance(self) -> dict[str, Any]: ...
    @property
    def hierarchy(self) -> dict[str, str]: ...
    @property
    def known(self) -> BoolArray: ...
    @property
    def mpp(self) -> Mpp: ...
    @property
    def between_types(self) -> dict[str, float]: ...


def cells_to_anndata(
    cells: PredictedCells,
    genes: Sequence[str] | None = None,
    slide: Slide | None = None,
    regions: Sequence[Region] = (),
    spots: AnnData | None = None,
    settings: ExportSettings | None = None,
) -> AnnData:
    """Convert a map of cells to a table, as read by squidpy, scanpy and napari-spatialdata.

    Parameters
    ----------
    cells
        The map; cells that could not be predicted are omitted.
    genes
        Names of genes; ``None`` for all that the model predicts.
    slide
        Slide whose picture is stored in the table.
    regions
        Regions of which each cell is told the first that contains its centre.
    spots
        Measured spots, of which each cell is told the one that it lies under.
    settings
        Maximum table size, and size of the picture.

    Returns
    -------
    AnnData
        One row per cell, named by its number in ``cells.nuclei``, with

        - ``X``: predicted expression, log1p of counts per 10,000, float32;
        - ``obs``: ``area_um2`` where the nuclei have outlines, ``class`` where they have classes, ``type`` (the largest
          share; colours in ``uns["type_colors"]``), ``share``, ``margin``, ``out_of_domain``, and ``region`` and
          ``spot`` where they are given, missing for cells in none;
        - ``obsm["spatial"]``: centres in level-0 pixels (x, y);
        - ``var["between_types"]``: the share of a gene's variance over cells between types, where it is known;
        - ``obsm["cell_type_weights"]``, ``obsm["programs"]``, ``varm``, ``var``, ``uns["spatial"]`` and
          ``uns["napari_cpnn"]`` as in :func:`napari_cpnn.to_anndata`; the spot diameter is that of a mean nucleus.

        Neighbours within 30 um: ``squidpy.gr.spatial_neighbors(adata, coord_type="generic", radius=30 / mpp)``.

    Raises
    ------
    ExportError
        If the table is larger than ``settings.memory_mb``.
    CellMapError
        If no cell is predicted, or the spots have no diameter.
    GenesError
        If the model does not predict a gene.
    PixelSizeError
        If the pixel size of the slide is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.cells import CellMap
    >>> shares = np.eye(len(model.cell_types))[[2, 0]]
    >>> nuclei = nc.Nuclei([[10.0, 20.0], [30.0, 45.0]])
    >>> cells = CellMap(nuclei, model.decoder(), shares, np.zeros((2, model.n_programs)), {"mpp": (0.5, 0.5)})
    >>> table = cells.to_anndata(genes=["ERBB2"])
    >>> table.obsm["spatial"].tolist(), list(table.obs["type"]) == [model.cell_types[2], model.cell_types[0]]
    ([[40.0, 20.0], [90.0, 60.0]], True)
    """
    settings = settings or ExportSettings()
    rows = CellRows.of(cells, slide)
    chosen = rows.genes(genes)
    require_memory(rows, chosen, settings, "cells")
    return build_table(rows, rows.expression(chosen), chosen, slide, regions, spots, settings)


@dataclass(frozen=True, eq=False, kw_only=True)
class CellRows(Rows):
    """The predicted cells of a map.

    Parameters
    ----------
    nuclei
        The N cells.
    numbers
        Their numbers in the map, ``(N,)``.
    mpp
        Pixel size of the slide, (y, x) um.
    between_types
        Share of the variance of genes over cells that lies between types, as far as known.
    """

    nuclei: Nuclei
    numbers: IntArray
    mpp: Mpp
    between_types: dict[str, float]

    @classmethod
    def of(cls, cells: PredictedCells, slide: Slide | None = None) -> CellRows:
        """Return the predicted cells of a map; ``slide`` has the pixel size if the map does not.

        Raises
        ------
        CellMapError
            If no cell was predicted.
        PixelSizeError
            If the pixel size is not known.
        """
        numbers = np.flatnonzero(cells.known)
        if not len(numbers):
            raise CellMapError("No cell of the map was predicted, so there is nothing to export.")
        scores = cells.out_of_domain
        unknown = np.full(len(numbers), np.nan, dtype=np.float32)
        has_mpp = cells.provenance.get("mpp") is not None or slide is None
        return cls(
            decoder=cells.decoder,
            provenance=storable(
                {name: value for name, value in cells.provenance.items() if name not in ("hierarchy", "between_types")}
            ),
            weights=cells.weights[numbers],
            programs=cells.programs[numbers],
            out_of_domain=unknown if scores is None else scores[numbers].astype(np.float32),
            hierarchy=cells.hierarchy,
            nuclei=cells.nuclei.subset(numbers),
            numbers=numbers,
            mpp=cells.mpp if has_mpp or slide is None else slide.require_mappable(),
            between_types=cells.between_types,
        )

    def frame(self) -> Any:
        """Return what is known of each cell as a DataFrame, a row per cell, named by its number."""
        import pandas as pd

        nuclei = self.nuclei
        obs = pd.DataFrame(index=pd.Index([str(number) for number in self.numbers.tolist()], dtype=object))
        if nuclei.outlines is not None:
            obs["area_um2"] = nuclei.areas_um2().astype(np.float32)
        if nuclei.classes is not None:
            obs["class"] = _named(nuclei.classes.astype(np.intp), nuclei.class_names)
        if self.cell_types:
            obs["type"] = categories_of(self.dominant, self.cell_types)
            obs["share"] = self.weights.max(axis=1).astype(np.float32)
            obs["margin"] = self.margin
        obs["out_of_domain"] = self.out_of_domain
        return obs


def build_table(
    rows: CellRows,
    expression: Any,
    genes: Sequence[str],
    slide: Slide | None,
    regions: Sequence[Region],
    spots: AnnData | None,
    settings: ExportSettings,
) -> AnnData:
    """Return the AnnData of cells; ``expression`` is a numpy or dask array ``(N, genes)``."""
    obs, centers = rows.frame(), rows.nuclei.centers_um.astype(np.float64)
    if regions:
        obs["region"] = _named(region_of(centers, regions), [region.name for region in regions])
    if spots is not None:
        obs["spot"] = _named(spot_of(centers, spots, rows.mpp), list(spots.obs_names))
    table = table_of(rows, obs, expression, genes, "type")
    if rows.between_types:
        table.var["between_types"] = np.array([rows.between_types.get(gene, np.nan) for gene in genes])
    add_place(table, rows, centers, rows.mpp, diameter_um(rows.nuclei), picture(slide, settings))
    table.uns["napari_cpnn"] = {**meaning_of(rows, rows.mpp), **storable(searched_of(rows.nuclei))}
    return table


def region_of(centers_um: npt.NDArray[np.floating[Any]], regions: Sequence[Region]) -> IntArray:
    """Return the first region that contains each centre ``(N, 2)`` (y, x) in um; ``(N,)``, -1 for none."""
    import shapely

    found = np.full(len(centers_um), -1, dtype=np.intp)
    for number in range(len(regions) - 1, -1, -1):
        outline = regions[number].outline
        shapely.prepare(outline)
        found[shapely.contains_xy(outline, centers_um[:, 1], centers_um[:, 0])] = number
    return found


def spot_of(centers_um: npt.NDArray[np.floating[Any]], spots: AnnData, mpp: Mpp) -> IntArray:
    """Return the spot that each centre ``(N, 2)`` (y, x) in um lies under; ``(N,)``, -1 for none.

    Raises
    ------
    CellMapError
        If the spots have no positions or no diameter.
    """
    from scipy.spatial import cKDTree

    entries = spots.uns.get("spatial")
    entry: Any = next(iter(entries.values()), {}) if isinstance(entries, dict) else {}
    diameter = entry.get("scalefactors", {}).get("spot_diameter_fullres") if isinstance(entry, dict) else None
    if "spatial" not in spots.obsm or diameter is None or not float(diameter) > 0:
        raise CellMapError("The spots have no positions or no diameter; which cells lie under them is not known.")
    places = np.asarray(spots.obsm["spatial"], dtype=np.float64)[:, :2]
    distance, nearest = cKDTree(places).query(um_to_spatial(centers_um, mpp))
    under: IntArray = np.where(distance <= float(diameter) / 2, nearest, -1)
    return under


def searched_of(nuclei: Nuclei) -> dict[str, Any]:
    """Return where nuclei are from, and how much tissue was searched where that is known, for the facts of a file."""
    searched = nuclei.searched
    facts: dict[str, Any] = {"nuclei": nuclei.source}
    if searched is not None:
        facts |= {"nuclei_searched_mm2": searched.area_mm2, "nuclei_searched_share_of_tissue": searched.share}
    return facts


def diameter_um(nuclei: Nuclei) -> float:
    """Return the diameter of a circle as large as a mean nucleus, in um."""
    if nuclei.outlines is None or not len(nuclei):
        return CELL_UM
    areas: FloatArray = nuclei.areas_um2()
    return float(2 * np.sqrt(areas.mean() / np.pi)) or CELL_UM


def _named(codes: IntArray, names: Sequence[str]) -> Any:
    """Return names by code as categories, those that occur; -1 is missing."""
    import pandas as pd

    present = np.unique(codes[codes >= 0])
    places = np.full(len(names) + 1, -1, dtype=np.intp)
    places[present] = np.arange(len(present))
    written = column_names(names)
    unique = list(dict.fromkeys(written[k] for k in present))
    if len(unique) < len(present):  # names that differ only in what a file cannot hold
        unique = [f"{written[k]} ({k + 1})" for k in present]
    return pd.Categorical.from_codes(places[codes], categories=pd.Index(unique, dtype=object))
