"""Maps of cells for other programs: AnnData, SpatialData, QuPath detections, CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.cells.cell_map import CellMap
from napari_cpnn.cells.tables import CellRows, build_table, diameter_um, region_of
from napari_cpnn.errors import ExportError
from napari_cpnn.export import picture_of, replacing, reporter, reporting, slide_name, spatialdata_library
from napari_cpnn.export import spatialdata_of as as_spatialdata
from napari_cpnn.geometry import um_to_spatial
from napari_cpnn.nuclei import Nuclei, write_geojson
from napari_cpnn.palette import type_colors
from napari_cpnn.settings import ExportSettings
from napari_cpnn.storage import creating_hdf5, require_separate, write_table
from napari_cpnn.texts import csv_texts

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

    from napari_cpnn.regions import Region
    from napari_cpnn.slides import Slide

#: Endings of the files that a map of cells can be exported to.
FORMATS = (".h5ad", ".zarr", ".geojson", ".csv")


def export_cells(
    cells: CellMap,
    path: str | Path,
    genes: Sequence[str] | None = None,
    slide: Slide | None = None,
    regions: Sequence[Region] = (),
    spots: AnnData | None = None,
    settings: ExportSettings | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a map of cells for another program, by the ending of the file.

    ============  ======================================================================================
    ``.h5ad``     the table of :func:`cells_to_anndata`, for squidpy and scanpy
    ``.zarr``     SpatialData: outlines of the cells (circles where only centres are known) and the table
    ``.geojson``  QuPath detections in pixels of the slide: outline, type as class, shares and genes as
                  measurements
    ``.csv``      a row per cell: number, place, area, class, type, shares, genes
    ============  ======================================================================================

    Cells that could not be predicted are omitted. Expression is decoded while it is written, so that memory does not
    grow with the number of genes.

    Parameters
    ----------
    cells
        The map.
    path
        The file or folder, which appears when it is complete.
    genes
        Names of genes. ``None`` means all in AnnData and SpatialData, and none elsewhere.
    slide
        The slide, for its picture, and its pixel size if the map has none.
    regions, spots
        As in :func:`cells_to_anndata`; GeoJSON and CSV have no spots, GeoJSON no regions.
    settings
        Block size, compression, and sizes of pictures.
    overwrite
        Whether to replace an existing file.

    Raises
    ------
    ExportError
        If the file exists or cannot be written, or its ending is another.
    CellMapError, GenesError, PixelSizeError
        As :func:`cells_to_anndata`.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.cells import CellMap, export_cells
    >>> shares = np.eye(len(model.cell_types))[[2, 0]]
    >>> nuclei = nc.Nuclei([[10.0, 20.0], [30.0, 45.0]])
    >>> cells = CellMap(nuclei, model.decoder(), shares, np.zeros((2, model.n_programs)), {"mpp": (0.5, 0.5)})
    >>> export_cells(cells, "cells.csv", genes=["ERBB2"]).read_text().splitlines()[0].split(",")[:4]
    ['cell', 'x_um', 'y_um', 'type']
    """
    settings, path = settings or ExportSettings(), Path(path)
    ending = next((known for known in FORMATS if path.name.lower().endswith(known)), "")
    if not ending:
        raise ExportError(f"{path} has no known file extension; use {', '.join(FORMATS)}.")
    require_separate([path], [None if slide is None else slide.path], ExportError)
    with replacing(path, overwrite=overwrite) as temporary:
        rows = CellRows.of(cells, slide)
        chosen = rows.genes(() if genes is None and ending in (".geojson", ".csv") else genes)
        if ending == ".h5ad":
            _write_h5ad(rows, chosen, temporary, slide, regions, spots, settings)
        elif ending == ".zarr":
            with spatialdata_library():
                _spatialdata(rows, chosen, slide, regions, spots, settings).write(temporary, update_sdata_path=False)
        elif ending == ".geojson":
            _write_geojson(rows, chosen, temporary)
        else:
            _write_csv(rows, chosen, temporary, regions, settings)
    return path


def _write_h5ad(
    rows: CellRows,
    genes: Sequence[str],
    path: Path,
    slide: Slide | None,
    regions: Sequence[Region],
    spots: AnnData | None,
    settings: ExportSettings,
) -> None:
    packing = {} if settings.compression == "none" else {"compression": settings.compression}
    told = reporter()
    with creating_hdf5(path) as (file, raise_failure):

        def report(text: str, done: float) -> None:
            raise_failure()  # stops computing when the disk is full
            told(text, done)

        with reporting(report):
            lazy = rows.lazy_expression(genes, settings.block_mb)
            write_table(build_table(rows, lazy, genes, slide, regions, spots, settings), file, **packing)


def _spatialdata(
    rows: CellRows,
    genes: Sequence[str],
    slide: Slide | None,
    regions: Sequence[Region],
    spots: AnnData | None,
    settings: ExportSettings,
) -> SpatialData:
    lazy = rows.lazy_expression(genes, settings.block_mb)
    table = build_table(rows, lazy, genes, None, regions, spots, settings)
    keys = ("cells", "element", "cell_id")
    return as_spatialdata(slide_name(rows), table, _shapes(rows), keys, rows.mpp, picture_of(slide, settings))


def _shapes(rows: CellRows) -> GeoDataFrame:
    """Outlines in level-0 pixels (x, y), or circles where only centres are known."""
    import shapely
    from geopandas import GeoDataFrame

    outlines, mpp = rows.nuclei.outlines, rows.mpp
    if outlines is None:
        centers = um_to_spatial(rows.nuclei.centers_um, mpp)
        radius = diameter_um(rows.nuclei) / 2 / float(np.mean(mpp))
        return GeoDataFrame({"radius": np.full(len(centers), radius)}, geometry=shapely.points(centers))
    polygons = outlines.shapely()
    return GeoDataFrame(geometry=shapely.transform(polygons, lambda xy: xy / np.asarray(mpp)[::-1]))


def _write_geojson(rows: CellRows, genes: Sequence[str], path: Path) -> None:
    """Detections whose class is the type with the largest share; that of the detector without cell types."""
    nuclei, types = rows.nuclei, rows.cell_types
    if types:
        nuclei = Nuclei(nuclei.centers_um, nuclei.outlines, rows.dominant.astype(np.int16), types, nuclei.source)

    def measure(part: slice) -> dict[str, npt.NDArray[Any]]:
        shares = rows.weights[part].astype(np.float64)
        values = rows.expression(genes, part).astype(np.float64)
        return {
            **{f"Share: {name}": column for name, column in zip(types, shares.T, strict=True)},
            **{f"{gene} (log1p CP10k)": column for gene, column in zip(genes, values.T, strict=True)},
            "Out of domain": rows.out_of_domain[part].astype(np.float64),
        }

    report = reporter()
    write_geojson(
        nuclei,
        path,
        rows.mpp,
        measure=measure,
        colors=type_colors(types, rows.hierarchy),
        progress=lambda _text, done: report("Writing cells", done),
    )


def _write_csv(
    rows: CellRows, genes: Sequence[str], path: Path, regions: Sequence[Region], settings: ExportSettings
) -> None:
    import pandas as pd

    report, nuclei, types = reporter(), rows.nuclei, list(rows.cell_types)
    frame = rows.frame().reset_index(names="cell")
    for name in ("class", "type"):
        if name in frame:
            frame[name] = frame[name].cat.rename_categories(csv_texts(frame[name].cat.categories))
    frame.insert(1, "x_um", nuclei.centers_um[:, 1].round(3))
    frame.insert(2, "y_um", nuclei.centers_um[:, 0].round(3))
    if regions:
        names = [*csv_texts(region.name for region in regions), ""]
        frame["region"] = [names[code] for code in region_of(nuclei.centers_um, regions).tolist()]
    if warning := rows.domain_report.warning:
        frame.insert(0, "warning", csv_texts([warning])[0])
    with path.open("w", newline="", encoding="utf-8") as file:
        for part in rows.blocks((*types, *genes), settings.block_mb):
            report("Writing cells", part.start / len(rows))
            index = frame.index[part]
            shares = pd.DataFrame(
                rows.weights[part].astype(np.float32), index, csv_texts(f"share: {name}" for name in types)
            )
            values = pd.DataFrame(rows.expression(genes, part), index, csv_texts(genes))
            table = pd.concat([frame.iloc[part], shares, values], axis=1)
            table.to_csv(file, index=False, header=part.start == 0, float_format="%.8g")
