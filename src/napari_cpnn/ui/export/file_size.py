"""Size of an export before it is written. No Qt here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import DONE

if TYPE_CHECKING:
    from napari_cpnn.export import Area
    from napari_cpnn.mapping import CompositionMap

_MB = 2**20
#: Bytes of a value, of the rest of a patch (its place, its name, ...), and of the picture of the slide, by format.
#: Measured on written maps of 2,000 and 10,000 patches with 100 and 400 genes that vary smoothly; OME-Zarr and
#: SpatialData are compressed, so a file of other values is larger or smaller, by a fifth or so. The picture of
#: SpatialData is that of the sample slide (1.3 bytes per pixel); tissue with more detail takes more.
_PER_VALUE = {"anndata": 4.0, "spatialdata": 3.5, "ome-zarr": 3.4, "csv": 10.4}
_PER_PATCH = {"anndata": 170.0, "spatialdata": 42.0, "ome-zarr": 0.0, "csv": 34.0}
_PICTURE = {"anndata": 13.1e6, "spatialdata": 1.3 * 4096 * 4096}


def patches_in(cmap: CompositionMap, area: Area | None) -> int:
    """Return the number of computed patches in an area (of a region: in its bounds, by the share that it fills)."""
    if area is None:
        return int((cmap.state == DONE).sum())
    share, rect = 1.0, area
    if not isinstance(rect, Rect):
        x0, y0, x1, y1 = rect.bounds
        rect = Rect(y0, x0, y1, x1)
        share = area.area / max(rect.height * rect.width, 1e-9)  # type: ignore[union-attr]
    return round(share * int((cmap.state[cmap.grid.window(rect)] == DONE).sum()))


def size_mb(kind: str, n_patches: int, n_genes: int, n_types: int, *, picture: bool = True) -> float | None:
    """Return about how large a file will be, in MB, with or without the picture of a slide.

    ``None`` where that depends on the regions in it.
    """
    if kind not in _PER_VALUE:
        return None
    # cell types are given twice in tables for squidpy: as shares, and as what a gene has in each
    per_gene = n_patches + (n_types if kind in ("anndata", "spatialdata") else 0)
    values = _PER_VALUE[kind] * (per_gene * n_genes + n_patches * n_types)
    return (values + _PER_PATCH[kind] * n_patches + (_PICTURE.get(kind, 0.0) if picture else 0.0)) / _MB


def mb_text(mb: float) -> str:
    """Return a size as text.

    >>> mb_text(12.34), mb_text(0.5)
    ('12.3 MB', '512 kB')
    """
    return f"{mb:,.1f} MB" if mb >= 1 else f"{mb * 2**10:,.0f} kB"
