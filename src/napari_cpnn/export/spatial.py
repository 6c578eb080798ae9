"""Export maps as SpatialData: slide image, patches as squares, and a table that annotates them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import ExportError
from napari_cpnn.export.cells import MapCells, pixel_size
from napari_cpnn.export.files import replacing, require_space
from napari_cpnn.export.tables import build_table, require_memory, slide_name, table_mb
from napari_cpnn.geometry import Mpp, um_to_spatial
from napari_cpnn.settings import ExportSettings

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide

#: Estimated size of a compressed expression table relative to its size in memory; 93 % was measured.
_LEAST_PACKED = 0.8

Picture = tuple[npt.NDArray[np.uint8], tuple[float, float]]


def to_spatialdata(
    cmap: CompositionMap,
    path: str | Path | None = None,
    genes: Sequence[str] | None = None,
    slide: Slide | None = None,
    settings: ExportSettings | None = None,
    *,
    overwrite: bool = False,
) -> SpatialData:
    """Convert a map to SpatialData, as read by napari-spatialdata and spatialdata-plot.

    Parameters
    ----------
    cmap
        The map.
    path
        A ``.zarr`` folder to write, which appears when it is complete; expression is never held in memory as a whole.
        With ``None``, nothing is written.
    genes
        Names of genes; ``None`` for all that the model predicts.
    slide
        A picture of it, at most ``settings.reference_px`` wide, becomes the image; the slide is not copied.
    settings
        Maximum table size in memory, and size of the picture.
    overwrite
        Whether to replace an existing Zarr folder.

    Returns
    -------
    SpatialData
        For a slide named ``S``: image ``S_image`` (multiscale RGB; only with a slide), shapes ``S_patches`` (one square
        per computed patch), and ``table`` as in :func:`~napari_cpnn.export.to_anndata`, which annotates the squares
        (``region``, ``patch_id``). Coordinate systems: ``S`` in level-0 pixels, with the name and scale used by
        ``spatialdata_io.visium``, so that measured spots of the same slide align with the map; and ``S_um`` in
        micrometres. With a ``path``, the result is read back from it, except for a table larger than
        ``settings.memory_mb``, whose expression is computed lazily (dask).

    Raises
    ------
    ExportError
        If nothing is computed, the slide is not the map's, the table is too large for memory and no ``path`` is given,
        spatialdata is not installed, or the folder exists or cannot be written.
    GenesError, PixelSizeError
        As in :func:`~napari_cpnn.export.to_anndata`.

    Examples
    --------
    >>> data = nc.to_spatialdata(cmap, genes=["ERBB2"], slide=slide)
    >>> sorted(data.images), sorted(data.shapes), sorted(data.tables)
    (['slide_image'], ['slide_patches'], ['table'])
    """
    settings = settings or ExportSettings()
    if path is None:
        cells, mpp = MapCells.of(cmap), pixel_size(cmap, slide)
        chosen = cells.genes(genes)
        require_memory(cells, chosen, settings)
        with spatialdata_library():
            return _build(cells, cells.expression(chosen), chosen, mpp, picture_of(slide, settings))
    written = write_spatialdata(cmap, Path(path), genes, slide, settings, overwrite=overwrite)
    if written["table"].X.nbytes > settings.memory_mb * 2**20:  # reading it back would load it into memory
        return written
    with spatialdata_library() as library:
        return library.read_zarr(path)


def write_spatialdata(
    cmap: CompositionMap,
    path: Path,
    genes: Sequence[str] | None,
    slide: Slide | None,
    settings: ExportSettings,
    *,
    overwrite: bool,
) -> SpatialData:
    """Write as :func:`to_spatialdata`, and return the data without reading it back; expression stays lazy."""
    with replacing(path, overwrite=overwrite) as temporary:
        cells, mpp = MapCells.of(cmap), pixel_size(cmap, slide)
        chosen = cells.genes(genes)
        require_space(path, _LEAST_PACKED * table_mb(cells, chosen))
        lazy = cells.lazy_expression(chosen, settings.block_mb, _zarr_chunks(len(cells), len(chosen)))
        pixels = picture_of(slide, settings)
        with spatialdata_library():
            sdata = _build(cells, lazy, chosen, mpp, pixels)
            sdata.write(temporary, update_sdata_path=False)
    return sdata


def _zarr_chunks(n_cells: int, n_genes: int) -> tuple[int, int]:
    """Return Zarr's default chunks for a table, which anndata uses as well."""
    import zarr

    rows, cols = zarr.create_array(zarr.storage.MemoryStore(), shape=(n_cells, n_genes), dtype=np.float32).chunks
    return max(1, rows), max(1, cols)


@contextmanager
def spatialdata_library() -> Iterator[Any]:
    """Yield the spatialdata module with its internal notes and warnings suppressed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import spatialdata
        except ImportError as error:
            raise ExportError(
                f"SpatialData needs the package spatialdata ({error}); run pip install 'napari-cpnn[spatialdata]'."
            ) from error
        yield spatialdata


def picture_of(slide: Slide | None, settings: ExportSettings) -> Picture | None:
    """Return pixels ``(y, x, 3)`` of the slide, and level-0 pixels (y, x) per pixel."""
    if slide is None:
        return None
    pixels = slide.thumbnail(settings.reference_px)
    return pixels, (slide.shape[0] / pixels.shape[0], slide.shape[1] / pixels.shape[1])


def _build(cells: MapCells, expression: Any, genes: Sequence[str], mpp: Mpp, picture: Picture | None) -> SpatialData:
    import shapely
    from geopandas import GeoDataFrame

    half = cells.grid.stride_um / 2
    low, high = um_to_spatial(cells.centers_um - half, mpp), um_to_spatial(cells.centers_um + half, mpp)
    squares = GeoDataFrame(geometry=shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1]))
    table = build_table(cells, expression, genes, mpp, {})
    return spatialdata_of(slide_name(cells), table, squares, ("patches", "region", "patch_id"), mpp, picture)


def spatialdata_of(
    name: str, table: AnnData, shapes: GeoDataFrame, keys: tuple[str, str, str], mpp: Mpp, picture: Picture | None
) -> SpatialData:
    """Return N places as SpatialData: their shapes, the table that annotates them, and a picture of the slide.

    Parameters
    ----------
    name
        Of the slide.
    shapes
        Outlines, or points with a ``radius``, in level-0 pixels (x, y).
    keys
        What the shapes are called after the name of the slide, and the columns of the table with this name and with the
        number of the shape.
    picture
        As of :func:`picture_of`.
    """
    import pandas as pd
    from spatialdata import SpatialData, sanitize_name
    from spatialdata.models import ShapesModel, TableModel

    name = sanitize_name(name)
    (several, region_key, instance_key), n = keys, table.n_obs
    element = f"{name}_{several}"
    table.uns.pop("spatial", None)  # the picture is a separate element here
    table.obs[region_key] = pd.Categorical.from_codes(np.zeros(n, dtype=np.intp), categories=pd.Index([element]))
    table.obs[instance_key] = np.arange(n)
    table = TableModel.parse(table, region=element, region_key=region_key, instance_key=instance_key)
    images = {} if picture is None else {f"{name}_image": _image(*picture, name, mpp)}
    outlines = ShapesModel.parse(shapes, transformations=_systems(name, (1.0, 1.0), mpp))
    return SpatialData(images=images, shapes={element: outlines}, tables={"table": table})


def _systems(name: str, per_unit: tuple[float, float], mpp: Mpp) -> dict[str, Any]:
    """Return transforms from units of ``per_unit`` level-0 pixels (y, x) to both coordinate systems."""
    from spatialdata.transformations import Identity, Scale

    to_px = Identity() if per_unit == (1.0, 1.0) else Scale(np.array(per_unit), axes=("y", "x"))
    return {name: to_px, f"{name}_um": Scale(np.array(per_unit) * np.array(mpp), axes=("y", "x"))}


def _image(pixels: npt.NDArray[np.uint8], per_pixel: tuple[float, float], name: str, mpp: Mpp) -> Any:
    from spatialdata.models import Image2DModel

    n_halves = max(0, int(np.log2(max(pixels.shape[:2]) / 512)))
    return Image2DModel.parse(
        pixels.transpose(2, 0, 1),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2] * n_halves or None,
        transformations=_systems(name, per_pixel, mpp),
    )
