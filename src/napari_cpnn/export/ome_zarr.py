"""Export maps as OME-Zarr: an image on the map's grid with a channel per cell type and gene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import ExportError
from napari_cpnn.export.cells import MapCells
from napari_cpnn.export.files import replacing
from napari_cpnn.export.progress import reporter
from napari_cpnn.export.tables import provenance
from napari_cpnn.geometry import Grid
from napari_cpnn.palette import type_colors
from napari_cpnn.settings import ExportSettings

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap


class Channel(NamedTuple):
    """Name, colour as RRGGBB, and function that returns the values of the N patches, called one channel at a time."""

    name: str
    color: str
    values: Callable[[], npt.NDArray[np.float32]]


_CHUNK = 256
#: Number of initially active channels; viewers overlay them, and more cannot be distinguished.
_ACTIVE = 3


def to_ome_zarr(
    cmap: CompositionMap,
    path: str | Path,
    genes: Sequence[str] | None = (),
    settings: ExportSettings | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write the shares of all cell types, and selected genes, as a multi-channel image.

    Parameters
    ----------
    cmap
        The map.
    path
        Path of the ``.ome.zarr`` folder, which appears when it is complete.
    genes
        Names of genes; ``None`` for all, by default none.
    settings
        Version of the format: 0.5 (Zarr 3, for napari-ome-zarr and ngff-zarr) or 0.4 (Zarr 2) for older readers.
    overwrite
        Whether to replace an existing Zarr folder.

    Returns
    -------
    Path
        The folder: one array ``0`` of ``(channel, y, x)`` float32, one pixel per patch, NaN where unknown. Scale and
        translation are in slide micrometres; the translation is the centre of the first pixel, as in napari, so that
        the map aligns with a slide layer of this package. The image of a map of a region nevertheless starts at the
        slide's corner, since readers such as napari-ome-zarr 0.10 and QuPath ignore translations (the map is then off
        by half a patch; pixels outside the region take no space on disk). Channel names, colours and ranges are in
        ``omero``, the provenance in ``napari_cpnn_export``.

    Raises
    ------
    ExportError
        If nothing is computed, there is nothing to show (a model without cell types, and no genes), or the folder
        exists or cannot be written.
    GenesError
        If the model does not predict a gene.

    Examples
    --------
    >>> nc.to_ome_zarr(cmap, "map.ome.zarr", genes=["ERBB2"]).name
    'map.ome.zarr'
    """
    import zarr

    settings, path, report = settings or ExportSettings(), Path(path), reporter()
    with replacing(path, overwrite=overwrite) as temporary:
        cells = MapCells.of(cmap)
        chosen = cells.genes(genes)
        old = settings.ome_zarr_version == "0.4"
        group: Any = zarr.open_group(str(temporary), mode="w", zarr_format=2 if old else 3)
        channels, corner = _channels(cells, chosen), _corner(cells.grid)
        image = group.create_array(
            "0",
            shape=(len(channels), *(c + n for c, n in zip(corner, cells.grid.shape, strict=True))),
            dtype=np.float32,
            chunks=(1, _CHUNK, _CHUNK),
            fill_value=np.float32(np.nan),
            chunk_key_encoding={"name": "v2" if old else "default", "separator": "/"},
            dimension_names=None if old else ("c", "y", "x"),
        )
        described = []
        for number, channel in enumerate(channels):
            report(f"Writing {path.name}", number / len(channels))
            values = channel.values()
            plane = np.full(cells.grid.shape, np.nan, dtype=np.float32)
            plane[tuple(cells.index.T)] = values
            image[number, corner[0] :, corner[1] :] = plane
            described.append(_omero_channel(channel, values))
        for number in _most_common(cells):
            described[number]["active"] = True
        # The attributes are written last: without them the group is not an image.
        group.attrs.update(_attributes(cells, path.name, described, settings.ome_zarr_version))
    return path


def _corner(grid: Grid) -> tuple[int, int]:
    """Return the rows and columns of patches between the slide's corner and the map's."""
    return int(grid.origin_um[0] / grid.stride_um + 1e-6), int(grid.origin_um[1] / grid.stride_um + 1e-6)


def _channels(cells: MapCells, genes: Sequence[str]) -> list[Channel]:
    def share(k: int) -> npt.NDArray[np.float32]:
        return cells.weights[:, k].astype(np.float32)

    def expression(gene: str) -> npt.NDArray[np.float32]:
        return cells.expression([gene])[:, 0]

    colors = type_colors(cells.cell_types, cells.hierarchy)
    channels = [
        Channel(name, colors[name].removeprefix("#"), partial(share, k)) for k, name in enumerate(cells.cell_types)
    ]
    if np.isfinite(cells.out_of_domain).any():
        channels.append(Channel("Out of domain", "FF0000", lambda: cells.out_of_domain))
    channels += [Channel(name, "FFFFFF", partial(marked.astype, np.float32)) for name, marked in cells.marked.items()]
    channels += [Channel(name, "FFFFFF", partial(np.copy, scores)) for name, scores in cells.signatures.items()]
    channels += [Channel(gene, "FFFFFF", partial(expression, gene)) for gene in genes]
    if not channels:
        raise ExportError("The model has no cell types, so an image of its map needs genes; choose some.")
    return channels


def _most_common(cells: MapCells) -> list[int]:
    """Return the cell types with the largest mean shares, or the first channel without cell types."""
    if not cells.cell_types:
        return [0]
    means = cells.weights.mean(axis=0, dtype=np.float64)
    return [int(k) for k in np.argsort(-means)[:_ACTIVE]]


def _omero_channel(channel: Channel, values: npt.NDArray[np.float32]) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    low, high = min(0.0, float(finite.min())), max(float(finite.max()), 1e-3)
    end = max(float(np.quantile(finite, 0.99)), low + 1e-3)
    window = {"min": low, "max": max(high, end), "start": low, "end": end}
    return {"label": channel.name, "color": channel.color, "active": False, "window": window}


def _attributes(cells: MapCells, name: str, channels: list[dict[str, Any]], version: str) -> dict[str, Any]:
    stride, (row, col) = cells.grid.stride_um, _corner(cells.grid)
    first = cells.grid.centers_um([(-row, -col)])[0]
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    multiscales: dict[str, Any] = {
        "name": name,
        "axes": [{"name": "c", "type": "channel"}, *space],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, stride, stride]},
                    {"type": "translation", "translation": [0.0, float(first[0]), float(first[1])]},
                ],
            }
        ],
    }
    omero = {"channels": channels, "rdefs": {"model": "color"}}
    made = {"napari_cpnn_export": provenance(cells, None)}
    warning = cells.domain_report.warning
    said = {"warning": warning} if warning else {}
    if version == "0.4":
        return {**said, "multiscales": [{"version": version, **multiscales}], "omero": omero, **made}
    return {**said, "ome": {"version": version, "multiscales": [multiscales], "omero": omero}, **made}
