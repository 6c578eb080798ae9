"""Read nuclei from the shapes of a SpatialData."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn.errors import NucleiError
from napari_cpnn.nuclei.read_tables import Table, of_shapes
from napari_cpnn.storage import check_zarr
from napari_cpnn.untrusted import reason_of

_SYSTEM = "global"
#: Files of which a Zarr group has one, of format 3 or 2.
_GROUPS = ("zarr.json", ".zgroup", ".zmetadata")


def read_shapes(path: Path, element: str | None = None) -> Table:
    """Return the shapes of a SpatialData, moved into the coordinate system ``global``.

    Of several, those named in ``element``; otherwise the only ones whose name speaks of nuclei, or of cells.
    """
    data, transform = _opened(path)
    names = [str(name) for name in data.shapes]
    name = element or _only(names, path)
    if name not in names:
        raise NucleiError(f"{path} has no shapes {name!r}; it has {', '.join(names) or 'none'}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = transform(data.shapes[name], to_coordinate_system=_SYSTEM)
        column = next((c for c in ("classification", "class", "cell_type") if c in shapes), None)
        labels = [] if column is None else ["" if v is None or v != v else str(v) for v in shapes[column]]  # noqa: PLR0124
        return of_shapes(np.asarray(shapes.geometry), labels)
    except Exception as error:  # any error of spatialdata and shapely on damaged folders
        raise NucleiError(f"The shapes {name!r} of {path} cannot be read ({reason_of(error)}).") from error


def _only(names: list[str], path: Path) -> str:
    for word in ("nucle", "cell", ""):
        found = [name for name in names if word in name.lower()]
        if len(found) == 1:
            return found[0]
        if found:
            raise NucleiError(f"{path} has several shapes; give one as element: {', '.join(found)}.")
    raise NucleiError(f"{path} has no shapes, and is no file of nuclei.")


def _opened(path: Path) -> tuple[Any, Any]:
    try:
        import spatialdata
    except ImportError as error:
        raise NucleiError(
            f"Reading {path} needs the package spatialdata ({error}); run pip install 'napari-cpnn[spatialdata]'."
        ) from error
    check_zarr(path, NucleiError)
    if not any((path / name).is_file() for name in _GROUPS):
        raise NucleiError(f"{path} is no .zarr folder of cells: it holds no Zarr group; choose another folder.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # spatialdata's internal notes
            return spatialdata.read_zarr(path, selection=("shapes",)), spatialdata.transform
    except Exception as error:  # any error of Zarr, Parquet or spatialdata on damaged folders
        raise NucleiError(f"{path} cannot be read as SpatialData ({reason_of(error)}).") from error
