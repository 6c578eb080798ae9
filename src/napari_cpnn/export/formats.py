"""Export to the format given by the file extension."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.errors import ExportError
from napari_cpnn.export.cells import MapCells
from napari_cpnn.export.csv import to_csv
from napari_cpnn.export.figure import ENDINGS, as_shown, to_figure
from napari_cpnn.export.files import is_saved_map
from napari_cpnn.export.geojson import to_geojson
from napari_cpnn.export.ome_zarr import to_ome_zarr
from napari_cpnn.export.part import Area, part_of, require_area
from napari_cpnn.export.spatial import write_spatialdata
from napari_cpnn.export.tables import to_h5ad
from napari_cpnn.settings import ExportSettings
from napari_cpnn.storage import require_separate
from napari_cpnn.untrusted import to_path

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide

#: File extensions of each format; the longest match is used.
FORMATS = {
    "anndata": (".h5ad",),
    "spatialdata": (".zarr",),
    "ome-zarr": (".ome.zarr",),
    "geojson": (".geojson",),
    "csv": (".csv",),
    "figure": ENDINGS,
}


def format_of(path: str | Path) -> str:
    """Return the format for the extension of ``path``; raise :class:`ExportError` for unknown extensions."""
    name = Path(path).name.lower()
    endings = {ending: kind for kind, of_kind in FORMATS.items() for ending in of_kind}
    for ending in sorted(endings, key=len, reverse=True):
        if name.endswith(ending):
            return endings[ending]
    raise ExportError(f"{path} has no known file extension; use {', '.join(endings)}, or give the format.")


def export_map(
    cmap: CompositionMap,
    path: str | Path,
    genes: Sequence[str] | None = None,
    slide: Slide | None = None,
    file_format: str | None = None,
    settings: ExportSettings | None = None,
    *,
    overwrite: bool = False,
    area: Area | None = None,
) -> Path:
    """Export a map for another program, or as a figure.

    Parameters
    ----------
    cmap
        The map.
    path
        File or folder, whose extension (`FORMATS`) selects the format.
    genes
        Names of genes. ``None`` means all in AnnData and SpatialData, and none elsewhere. For a figure, the quantities
        to show, including cell types; ``None`` for the dominant type.
    slide
        The slide of the map, for its picture and pixel size.
    file_format
        One of `FORMATS`, overriding the extension.
    settings, overwrite
        As in the function of the format: :func:`to_h5ad`, :func:`to_spatialdata`, :func:`to_ome_zarr`,
        :func:`to_geojson`, :func:`to_csv`, :func:`to_figure` (``settings.figure``).
    area
        Part of the map to export, slide micrometres: a rectangle, or the outline of a region.

    Returns
    -------
    Path
        The written file or folder.

    Raises
    ------
    ExportError, GenesError, PixelSizeError
        As raised by the function of the format.

    Examples
    --------
    >>> nc.export_map(cmap, "map.csv", genes=["ERBB2"]).name
    'map.csv'
    """
    path, kind = Path(path), file_format or format_of(path)
    require_separate([path], [None if slide is None else slide.path], ExportError)
    if kind == "figure":
        settings = settings or ExportSettings()
        panels = [as_shown(cmap, name, settings.level) for name in genes or ["dominant"]]
        return to_figure(cmap, path, panels, slide, settings.figure, overwrite=overwrite, area=area)
    if area is not None:
        require_area(area)
        cmap = part_of(cmap, area)
    if settings is not None:
        cmap = cmap.at_level(settings.level)
    some = () if genes is None else genes
    if kind == "anndata":
        to_h5ad(cmap, path, genes, slide, settings, overwrite=overwrite)
    elif kind == "spatialdata":
        write_spatialdata(cmap, path, genes, slide, settings or ExportSettings(), overwrite=overwrite)
    elif kind == "ome-zarr":
        to_ome_zarr(cmap, path, some, settings, overwrite=overwrite)
    elif kind == "geojson":
        to_geojson(cmap, path, some, slide, settings, overwrite=overwrite)
    elif kind == "csv":
        to_csv(cmap, path, some, settings, overwrite=overwrite)
    else:
        raise ExportError(f"Unknown format {kind!r}; use {', '.join(FORMATS)}.")
    return path


def save_map(cmap: CompositionMap, path: str | Path, *, overwrite: bool = False) -> Path:
    """Save a map in this package's own format, as :meth:`CompositionMap.save`, without replacing anything but a map.

    Parameters
    ----------
    cmap
        The map.
    path
        The ``.zarr`` folder.
    overwrite
        Whether to replace an existing map.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ExportError
        If nothing is computed, or something else exists at ``path``.
    MappingError
        If the folder cannot be written.
    """
    path = to_path(path, ExportError)
    MapCells.of(cmap)  # raises an error for an empty map
    if path.exists() and not (overwrite and is_saved_map(path)):
        what = "exists already" if is_saved_map(path) else "exists and is not a map, so it is not overwritten"
        raise ExportError(f"{path} {what}; choose another name.")
    cmap.save(path)
    return path
