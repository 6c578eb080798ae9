"""Maps for other programs: AnnData for squidpy, SpatialData, GeoJSON for QuPath, OME-Zarr, CSV.

The names below are the public API of this floor; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "to_anndata": "tables",
    "to_h5ad": "tables",
    "to_csv": "csv",
    "to_spatialdata": "spatial",
    "to_geojson": "geojson",
    "to_ome_zarr": "ome_zarr",
    "export_map": "formats",
    "save_map": "formats",
    "format_of": "formats",
    "FORMATS": "formats",
}

__all__ = [
    "FORMATS",
    "export_map",
    "format_of",
    "save_map",
    "to_anndata",
    "to_csv",
    "to_geojson",
    "to_h5ad",
    "to_ome_zarr",
    "to_spatialdata",
]

if TYPE_CHECKING:
    from napari_cpnn.export.csv import to_csv as to_csv
    from napari_cpnn.export.formats import FORMATS as FORMATS
    from napari_cpnn.export.formats import export_map as export_map
    from napari_cpnn.export.formats import format_of as format_of
    from napari_cpnn.export.formats import save_map as save_map
    from napari_cpnn.export.geojson import to_geojson as to_geojson
    from napari_cpnn.export.ome_zarr import to_ome_zarr as to_ome_zarr
    from napari_cpnn.export.spatial import to_spatialdata as to_spatialdata
    from napari_cpnn.export.tables import to_anndata as to_anndata
    from napari_cpnn.export.tables import to_h5ad as to_h5ad


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
