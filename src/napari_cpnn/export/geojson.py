"""Export maps as GeoJSON for QuPath: polygons of regions of one dominant cell type, or of single patches."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import IntArray
from napari_cpnn.errors import ExportError
from napari_cpnn.export.cells import MapCells, pixel_size
from napari_cpnn.export.files import replacing
from napari_cpnn.export.part import merged_patches
from napari_cpnn.export.progress import reporter
from napari_cpnn.geometry import Grid, Mpp, um_to_spatial
from napari_cpnn.palette import type_colors
from napari_cpnn.settings import ExportSettings

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide

#: Decimals of coordinates: a thousandth of a level-0 pixel is sufficient, and halves the file size.
_DECIMALS = 3
_REPORT_EVERY = 100
#: Names of objects by the level of the domain report.
_NAMES = {
    "caution": "with caution: part of the tissue is unlike the training",
    "foreign": "not to be believed: tissue unlike the training",
}
_NAMESPACE = uuid.UUID("a3d2b1f0-6c7e-5d3a-9b41-6e61706172c0")


def to_geojson(
    cmap: CompositionMap,
    path: str | Path,
    genes: Sequence[str] | None = (),
    slide: Slide | None = None,
    settings: ExportSettings | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write polygons that QuPath opens by drag and drop on the slide (*File > Import objects from file*).

    Parameters
    ----------
    cmap
        The map.
    path
        Path of the file, which appears when it is complete.
    genes
        Genes whose mean expression is written as a measurement; ``None`` for all, by default none.
    slide
        Provides the pixel size if the map does not, and is checked against the map.
    settings
        ``units``: one annotation per region of edge-connected patches with one dominant cell type, or one detection per
        patch; ``min_region_patches`` excludes small regions.
    overwrite
        Whether to replace an existing file.

    Returns
    -------
    Path
        The file: a FeatureCollection. Where the tissue is unlike that of the training, it begins with a ``warning``,
        and the objects have names that say so. Polygons are in level-0 pixels (x, y), with holes where a region has
        them; ``classification`` is the dominant type with its colour; ``measurements`` are the area in um^2, the number
        of patches, the mean share of each type, the out-of-domain score, the share of marked places (``GENE high``,
        :meth:`CompositionMap.mark`), and mean log1p CP10k of the genes.

    Raises
    ------
    ExportError
        If nothing is computed, no region is large enough, the model has no cell types to define regions, the slide is
        not the map's, or the file exists or cannot be written.
    GenesError, PixelSizeError
        As in :func:`~napari_cpnn.export.to_anndata`.

    Examples
    --------
    >>> nc.to_geojson(cmap, "regions.geojson", genes=["ERBB2"], slide=slide).name
    'regions.geojson'
    """
    settings, path, report = settings or ExportSettings(), Path(path), reporter()
    with replacing(path, overwrite=overwrite) as temporary:
        cells, mpp = MapCells.of(cmap), pixel_size(cmap, slide)
        chosen = cells.genes(genes)
        regions = _regions(cells, settings)
        with temporary.open("w", encoding="utf-8") as file:
            warning = cells.domain_report.warning
            said = f'"warning": {json.dumps(warning, ensure_ascii=False)}, ' if warning else ""
            file.write(f'{{"type": "FeatureCollection", {said}"features": [')
            for number, feature in enumerate(_features(cells, regions, chosen, mpp)):
                if number % _REPORT_EVERY == 0:
                    report(f"Writing {path.name}", number / len(regions.starts))
                file.write(("\n" if number == 0 else ",\n") + json.dumps(feature, ensure_ascii=False, allow_nan=False))
            file.write("\n]}\n")
    return path


@dataclass(frozen=True, eq=False)
class _Regions:
    """Groups of patches: ``members`` (patch indices), ordered by region and split at ``starts``."""

    members: IntArray
    starts: IntArray
    object_type: str

    def __iter__(self) -> Iterator[IntArray]:
        yield from np.split(self.members, self.starts[1:])

    def means(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the mean of ``values`` ``(N, n)`` over each region."""
        sizes = np.diff(np.append(self.starts, len(self.members)))
        sums = np.add.reduceat(values[self.members].astype(np.float64), self.starts, axis=0)
        return np.asarray(sums / sizes[:, None])


def _regions(cells: MapCells, settings: ExportSettings) -> _Regions:
    everyone = np.arange(len(cells))
    if settings.units == "patches":
        return _Regions(everyone, everyone, "detection")
    if not cells.cell_types:
        raise ExportError("The model has no cell types to define regions; export with units 'patches'.")
    from skimage.measure import label

    kinds = np.zeros(cells.grid.shape, dtype=np.int32)
    row, col = cells.index.T
    kinds[row, col] = cells.dominant + 1
    labels = label(kinds, background=0, connectivity=1)[row, col]  # type: ignore[no-untyped-call]
    sizes = np.bincount(labels)
    keep = everyone[sizes[labels] >= settings.min_region_patches]
    if not len(keep):
        least, largest = settings.min_region_patches, sizes[1:].max()
        raise ExportError(f"No region has {least} patches of one dominant type; the largest has {largest}.")
    members = keep[np.argsort(labels[keep], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[members], prepend=-1))
    return _Regions(members, starts, "annotation")


def _features(cells: MapCells, regions: _Regions, genes: Sequence[str], mpp: Mpp) -> Iterator[dict[str, Any]]:
    shares, programs = regions.means(cells.weights), regions.means(cells.programs)
    scores = regions.means(cells.out_of_domain[:, None])[:, 0]
    colors = [tuple(bytes.fromhex(c[1:])) for c in type_colors(cells.cell_types, cells.hierarchy).values()]
    dominant, level = cells.dominant, cells.domain_report.level
    origin = f"{cells.provenance.get('slide_identity')} {cells.provenance.get('model_fingerprint')} {cells.grid}"
    for number, members in enumerate(regions):
        # The mean of expression follows from the mean composition: it is linear in it, before one division on the
        # count scale, on which a region is one sample.
        expression = cells.decoder.expression(shares[number], programs[number], genes)
        measurements = {
            "Area um^2": len(members) * cells.grid.stride_um**2,
            "Patches": len(members),
            "Out of domain": scores[number],
            **{f"{name} (share of patches)": float(marked[members].mean()) for name, marked in cells.marked.items()},
            **{name: float(scored[members].mean()) for name, scored in cells.signatures.items()},
            **{f"Share: {name}": value for name, value in zip(cells.cell_types, shares[number], strict=True)},
            **{f"{gene} (log1p CP10k)": value for gene, value in zip(genes, expression, strict=True)},
        }
        properties: dict[str, Any] = {
            "objectType": regions.object_type,
            "isLocked": True,  # prevents accidental dragging
            "measurements": {k: round(float(v), 6) for k, v in measurements.items() if np.isfinite(v)},
        }
        if level in _NAMES:
            properties["name"] = _NAMES[level]  # QuPath shows it in its list of objects
        kind = int(dominant[members[0]])
        if kind >= 0:
            properties["classification"] = {"name": cells.cell_types[kind], "color": list(colors[kind])}
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{origin} {regions.object_type} {members[0]}")),
            "geometry": _polygon(cells.grid, cells.index[members], mpp),
            "properties": properties,
        }


def _polygon(grid: Grid, index: IntArray, mpp: Mpp) -> dict[str, Any]:
    """Return the outline of connected patches ``(n, 2)`` in level-0 pixels as a GeoJSON Polygon."""
    import shapely

    corners = shapely.transform(merged_patches(index), lambda xy: _to_pixels(grid, xy, mpp))
    shape: dict[str, Any] = shapely.geometry.mapping(shapely.geometry.polygon.orient(corners))
    return shape


def _to_pixels(grid: Grid, xy: npt.NDArray[np.float64], mpp: Mpp) -> npt.NDArray[np.float64]:
    """Convert corners in grid units (x, y) to level-0 pixels (x, y)."""
    um = xy[:, ::-1] * grid.stride_um + np.asarray(grid.origin_um)
    return np.asarray(um_to_spatial(um, mpp).round(_DECIMALS))
