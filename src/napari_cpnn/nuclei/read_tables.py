"""Read nuclei from tables: vertices or centres of cells (Xenium, QuPath, CSV), and shapes in Parquet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import FloatArray, Int64Array
from napari_cpnn.counts import read_table
from napari_cpnn.errors import NucleiError
from napari_cpnn.untrusted import reading, require_memory

if TYPE_CHECKING:
    import pandas as pd

#: Names of columns, as :func:`_plain` has them: of vertices, of centres, each with the unit where it is known.
_VERTICES = (("vertexx", "vertexy", "um"),)
_CENTERS = (
    ("xcentroid", "ycentroid", "um"), ("centroidxum", "centroidyum", "um"), ("xum", "yum", "um"),
    ("centroidxpx", "centroidypx", "px"), ("xpx", "ypx", "px"), ("centroidx", "centroidy", "px"),
    ("centerx", "centery", "px"), ("x", "y", "px"),
)  # fmt: skip
_CLASSES = ("classification", "class", "celltype", "celltypes", "type", "cluster", "label")
_IDS = ("cellid", "nucleusid", "id")


class Table:
    """Nuclei of a table: rings as :func:`~napari_cpnn.nuclei.gathering.nuclei_of_rings` takes them."""

    def __init__(self, xy: FloatArray, starts: Int64Array, labels: list[str], unit: str) -> None:
        self.xy, self.starts, self.labels, self.unit = xy, starts, labels, unit


def read_table_nuclei(path: Path) -> Table:
    """Return the nuclei of a CSV or Parquet table; :class:`NucleiError` without columns that are known."""
    if path.name.lower().endswith(".parquet"):
        table = _parquet(path)
        if "geometry" in table.columns:
            return _of_shapes(table, path)
    else:
        table = read_table(path, "table of nuclei", NucleiError)
    with reading(path, NucleiError, "is it a table of nuclei?"):
        return _of_columns(table, path)


def _of_columns(table: pd.DataFrame, path: Path) -> Table:
    named: dict[str, Any] = {}
    for column in table.columns:
        named.setdefault(_plain(column), column)
    label = next((named[name] for name in _CLASSES if name in named), None)
    for x, y, unit in _VERTICES:
        if x in named and y in named:
            key = next((named[name] for name in _IDS if name in named), None)
            if key is None:
                raise NucleiError(f"{path} has vertices, but no column cell_id that says whose they are.")
            return _of_vertices(table, _xy(table, named[x], named[y], path), table[key], label, unit)
    for x, y, unit in _CENTERS:
        if x in named and y in named:
            xy = _xy(table, named[x], named[y], path)
            labels = [] if label is None else _texts(table[label])
            return Table(xy, np.arange(len(xy) + 1, dtype=np.int64), labels, unit)
    raise NucleiError(
        f"{path} has no columns of centres (x, y; x_um, y_um; x_centroid, y_centroid; Centroid X µm, Centroid Y µm) or "
        f"vertices (cell_id, vertex_x, vertex_y); it has {', '.join(map(str, table.columns[:8]))}."
    )


def _of_vertices(table: pd.DataFrame, xy: FloatArray, ids: pd.Series[Any], label: Any, unit: str) -> Table:
    """Rings of vertices, those of one cell together, in the order in which cells appear."""
    import pandas as pd

    codes = pd.factorize(ids)[0]
    if (codes < 0).any():
        raise NucleiError("Some vertices have no cell_id.")
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes))]).astype(np.int64)
    labels = [] if label is None else _texts(table[label].iloc[order[starts[:-1]]])
    return Table(xy[order], starts, labels, unit)


def _of_shapes(table: pd.DataFrame, path: Path) -> Table:
    """Shapes in well-known binary (GeoParquet, as HEST and SpatialData have them); of several parts the largest."""
    import shapely

    with reading(path, NucleiError, "are its shapes in well-known binary?"):
        shapes = shapely.from_wkb(table["geometry"].to_numpy())
    column = next((name for name in table.columns if _plain(name) in _CLASSES), None)
    return of_shapes(shapes, [] if column is None else _texts(table[column]))


def of_shapes(shapes: Any, labels: list[str]) -> Table:
    """Return the rings of shapely shapes ``(N,)`` in px."""
    import shapely

    shapes = np.array(
        [max(s.geoms, key=lambda part: part.area) if shapely.get_num_geometries(s) > 1 else s for s in shapes]
    )  # fmt: skip
    is_many = np.isin(shapely.get_type_id(shapes), (shapely.GeometryType.MULTIPOLYGON, shapely.GeometryType.MULTIPOINT))
    shapes[is_many] = shapely.get_geometry(shapes[is_many], 0)
    is_area = shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON
    shapes[is_area] = shapely.get_exterior_ring(shapes[is_area])
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(shapes)))]).astype(np.int64)
    return Table(xy, starts, labels, "px")


def _parquet(path: Path) -> pd.DataFrame:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise NucleiError(
            f"Reading {path} needs the package pyarrow; run pip install 'napari-cpnn[parquet]'."
        ) from error
    with reading(path, NucleiError, "is it a Parquet file?"):
        about = pq.ParquetFile(path).metadata
        n_bytes = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        require_memory(max(n_bytes, 8 * about.num_rows * about.num_columns), path, NucleiError)
        table: pd.DataFrame = pq.read_table(path).to_pandas(ignore_metadata=True)
    return table


def _xy(table: pd.DataFrame, x: Any, y: Any, path: Path) -> FloatArray:
    import pandas as pd

    columns = [pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64) for name in (x, y)]
    if len(table) and not np.isfinite(columns).any():
        raise NucleiError(f"The columns {x} and {y} of {path} hold no numbers.")
    return np.column_stack(columns)


def _texts(values: pd.Series[Any]) -> list[str]:
    return ["" if missing else str(value) for value, missing in zip(values, values.isna(), strict=True)]


def _plain(name: Any) -> str:
    """Name of a column in lower case, letters and digits only; µ is u."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower().replace("µ", "u").replace("μ", "u"))
