"""Spots in a SpatialData ``.zarr``: a table of counts that annotates shapes, as spatialdata-io writes Visium runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.counts import counts_of

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide


def read_spatialdata(path: Path) -> AnnData:
    """Spots of a SpatialData folder, at the centres of the shapes that its table annotates, in level-0 pixels.

    Of several tables (the bin sizes of Visium HD) the one with the largest, that is the fewest, spots is read, and a
    :class:`CpnnWarning` names the others. Positions are taken in the coordinate system of the full image: ``global``,
    else the first that is neither downscaled nor in micrometres.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes of spatialdata on its own inner life
        spatialdata, data = _opened(path)
        found = _annotated(data, path)
        _, name, table, shapes = found[0]
        system = _full_resolution(spatialdata.transformations.get_transformation(shapes, get_all=True), path)
        placed = spatialdata.transform(shapes, to_coordinate_system=system)
    if len(found) > 1:
        others = ", ".join(sorted(other for _, other, _, _ in found[1:]))
        warnings.warn(f"{path.name} has several tables; {name} is read, and not {others}.", CpnnWarning, stacklevel=4)
    keys = table.uns["spatialdata_attrs"]
    ids = table.obs[keys["instance_key"]].to_numpy()
    known = np.isin(ids, placed.index)
    table = table[known].copy()
    chosen = placed.loc[ids[known]]
    spots = counts_of(table, f"Table {name!r} of {path}", SpotsError)
    centers = chosen.geometry.centroid
    spots.obsm["spatial"] = np.stack([centers.x, centers.y], axis=1).astype(np.float64)
    diameter = 2 * float(np.median(chosen["radius"])) if "radius" in chosen else _side(chosen)
    spots.uns["spatial"] = {
        path.name.split(".")[0]: {"images": {}, "scalefactors": {"spot_diameter_fullres": diameter}}
    }
    return spots


def slide_of_spatialdata(path: Path) -> Slide | None:
    """The image in whose pixels the spots of :func:`read_spatialdata` are, without a pixel size; None: there is none.

    It stays on the disk and is read piece by piece. Of several the largest is taken; images of other pixels (Space
    Ranger's small copies) are not.
    """
    from napari_cpnn.slides import Slide

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spatialdata, data = _opened(path)
        shapes = _annotated(data, path)[0][3]
        transformations = spatialdata.transformations
        system = _full_resolution(transformations.get_transformation(shapes, get_all=True), path)
        found: dict[int, tuple[str, list[Any]]] = {}
        for name, image in data.images.items():
            systems = transformations.get_transformation(image, get_all=True)
            levels = [level.transpose("y", "x", "c").data for level in _levels(image)]
            same_pixels = isinstance(systems.get(system), transformations.Identity)
            if same_pixels and levels[0].shape[-1] in (3, 4) and levels[0].dtype == np.uint8:
                found[levels[0].size] = str(name), [level[..., :3].rechunk((512, 512, 3)) for level in levels]
    if not found:
        return None
    name, levels = found[max(found)]
    return Slide.from_arrays(levels, None, name=name, path=path)


def _levels(image: Any) -> list[Any]:
    """Arrays of an image element, finest first; a single one is a pyramid of one."""
    children = getattr(image, "children", None)
    if children is None:
        return [image]
    return [next(iter(child.dataset.data_vars.values())) for child in children.values()]


def _opened(path: Path) -> tuple[Any, Any]:
    """The module, and the data."""
    try:
        import spatialdata
    except ImportError as error:
        raise SpotsError(
            f"Reading {path} needs the package spatialdata ({error}); run pip install 'napari-cpnn[spatialdata]'."
        ) from error
    try:
        return spatialdata, spatialdata.read_zarr(path)
    except Exception as error:  # whatever Zarr, parquet or spatialdata raise on damaged folders
        raise SpotsError(f"{path} cannot be read as SpatialData ({type(error).__name__}: {error}).") from error


def _annotated(data: Any, path: Path) -> list[tuple[int, str, AnnData, Any]]:
    """Tables that annotate one set of shapes each, the smallest first: size, name, table, shapes."""
    found = []
    for name, table in data.tables.items():
        region = dict(table.uns.get("spatialdata_attrs", {})).get("region")
        regions = [region] if isinstance(region, str) else list(region or [])
        if len(regions) == 1 and regions[0] in data.shapes and table.n_obs:
            found.append((table.n_obs, str(name), table, data.shapes[regions[0]]))
    if not found:
        raise SpotsError(
            f"{path} has no table of counts that annotates one set of shapes; its elements are "
            f"{', '.join(str(name) for _, name, _ in data.gen_elements()) or 'none'}."
        )
    return sorted(found, key=lambda entry: entry[:2])


def _full_resolution(systems: dict[str, Any], path: Path) -> str:
    if "global" in systems:
        return "global"
    for name in systems:
        if "downscaled" not in name and not name.endswith("_um"):
            return str(name)
    raise SpotsError(
        f"{path} has no coordinate system of the full image; it has {', '.join(map(str, systems)) or 'none'}."
    )


def _side(shapes: Any) -> float:
    """Side of square bins in pixels."""
    return float(np.sqrt(np.median(shapes.geometry.area)))
