"""Read spots from a SpatialData ``.zarr``: a counts table that annotates shapes, as written by spatialdata-io."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.counts import counts_of, require_sound
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.slides import is_in_um
from napari_cpnn.spots.libraries import spots_of_library
from napari_cpnn.spots.spatialdata_choice import Annotated, has_library, image_of, is_named, one_of
from napari_cpnn.storage import check_zarr
from napari_cpnn.untrusted import read_json, reading, reason_of

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.geometry import Mpp
    from napari_cpnn.slides import Slide

#: Tolerance for image pixels to equal the units of a coordinate system.
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class _Frame:
    """Pixel frame of the full-resolution image: the transform from shapes, and the image, if available.

    ``rivals`` are images that match equally well; ``is_certain`` tells whether they share the same pixels.
    """

    matrix: FloatArray
    image: str | None = None
    mpp: Mpp | None = None
    rivals: tuple[str, ...] = ()
    is_certain: bool = True


def read_spatialdata(
    path: Path, library: str | None = None, slide: Slide | None = None
) -> tuple[AnnData, dict[str, int]]:
    """Read spots from a SpatialData folder, at the centres of the annotated shapes, in level-0 pixels.

    Of several tables (bin sizes of Visium HD), the one with the largest and thus fewest spots is read, and a
    :class:`CpnnWarning` lists the others. Positions are in pixels of the finest image that shares a coordinate system
    with the shapes. If there are only downscaled copies, the system itself is used: ``global``, else the first that is
    neither downscaled nor in micrometres.

    Parameters
    ----------
    path
        Path of the SpatialData.
    library
        A table, a set of shapes that it annotates, or a value of the column that distinguishes the sections of a table,
        if there are several.
    slide
        Slide on which the spots were measured.
    """
    with reading(path, SpotsError):
        spatialdata, data = _opened(path)
        found = _annotated(data, path)
        inner = library if library is not None and not is_named(found, library) else None
        if inner is not None and not has_library(found, inner):
            inner = None
        one = one_of(found, None if inner is not None else library, slide, path, inner)
        spots, shapes, dropped = _spots(one, f"Table {one.table_name!r} of {path}", inner, slide)
        name = next(iter(spots.uns["spatial"])) if spots.uns.get("spatial") else _called(one, found, library, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = _frame(spatialdata, data, one, path, name)
        if not frame.is_certain:
            warnings.warn(
                f"The images {', '.join(frame.rivals)} of {path.name} may each be the slide of its spots, but do not "
                f"have the same pixels; positions are in those of {frame.rivals[0]}.",
                CpnnWarning,
                stacklevel=5,
            )
        return _placed(spots, shapes, frame, name), dropped


def slide_of_spatialdata(path: Path, library: str | None = None) -> Slide | None:
    """Return the image in whose pixels :func:`read_spatialdata` gives the spots; None if there is none.

    The image stays on disk and is read in parts. Its pixel size is known if it shares a coordinate system in
    micrometres with the spots.
    """
    from napari_cpnn.slides import Slide

    with reading(path, SpotsError):
        spatialdata, data = _opened(path)
        found = _annotated(data, path)
        named = [one for one in found if library in (one.region, one.table_name)]
        if not named and library is not None:
            named = [one for one in found if has_library([one], library)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = _frame(spatialdata, data, (named or found)[0], path, library)
        if frame.rivals:
            warnings.warn(
                f"Which of the images {', '.join(frame.rivals)} of {path.name} is the slide of its spots cannot be "
                "determined; open it manually.",
                CpnnWarning,
                stacklevel=4,
            )
        if frame.image is None:
            return None
        levels = [level.transpose("y", "x", "c").data for level in _levels(data.images[frame.image])]
        pieces = [level[..., :3].rechunk((512, 512, 3)) for level in levels]
        return Slide.from_arrays(pieces, frame.mpp, name=frame.image, path=path)


def _opened(path: Path) -> tuple[Any, Any]:
    """Return the spatialdata module and the opened data."""
    try:
        import spatialdata
    except ImportError as error:
        raise SpotsError(
            f"Reading {path} needs the package spatialdata ({error}); run pip install 'napari-cpnn[spatialdata]'."
        ) from error
    check_zarr(path, SpotsError, in_memory=("tables", "table"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # spatialdata's internal notes
            return spatialdata, spatialdata.read_zarr(path, selection=("tables", "shapes", "images"))
    except Exception as error:  # any error of Zarr, parquet or spatialdata on damaged folders
        raise SpotsError(f"{path} cannot be read as SpatialData ({reason_of(error)}).") from error


def _annotated(data: Any, path: Path) -> list[Annotated]:
    """Return the tables with the shapes they annotate, the smallest first."""
    found = []
    for name, table in data.tables.items():
        attributes = table.uns.get("spatialdata_attrs")
        if not isinstance(attributes, dict) or not table.n_obs:
            continue
        region = attributes.get("region")
        regions = (
            [region]
            if isinstance(region, str)
            else [str(one) for one in np.ravel(region if region is not None else [])]
        )
        key = attributes.get("region_key")
        of_row = (
            table.obs[key].astype(str).to_numpy()
            if key in table.obs
            else np.full(table.n_obs, regions[0] if regions else "")
        )
        for one in dict.fromkeys(regions):
            rows = of_row == one
            if one in data.shapes and rows.any():
                found.append(Annotated(table, str(name), one, data.shapes[one], rows))
    if not found:
        raise SpotsError(
            f"{path} has no table of counts that annotates one set of shapes; its elements are "
            f"{', '.join(str(name) for _, name, _ in data.gen_elements()) or 'none'}."
        )
    return sorted(found, key=lambda one: (int(one.rows.sum()), one.table_name, one.region))


def _called(one: Annotated, found: list[Annotated], library: str | None, path: Path) -> str:
    of_table = sum(other.table_name == one.table_name for other in found)
    return one.region if of_table > 1 or (library is not None and len(found) > 1) else path.name.split(".")[0]


def _spots(one: Annotated, what: str, library: str | None, slide: Slide | None) -> tuple[AnnData, Any, dict[str, int]]:
    """Return the spots of one library at the centres of their shapes, those shapes, and the numbers left out."""
    instance_key = one.table.uns["spatialdata_attrs"]["instance_key"]
    for place, matrix in (("X", one.table.X), *one.table.layers.items()):
        require_sound(matrix, f"{place} of {what}", SpotsError)
    if not one.shapes.index.is_unique:
        raise SpotsError(f"The shapes {one.region!r} of {what} have duplicate names; get the folder again.")
    at = one.shapes.index.get_indexer(one.table.obs[instance_key].to_numpy())
    known = one.rows & (at >= 0)
    table, shapes = one.table[known].copy(), one.shapes.iloc[at[known]]
    spots = counts_of(table, what, SpotsError)
    centers = shapes.geometry.centroid
    if "spatial" in spots.obsm:  # assigning over a DataFrame would keep a DataFrame
        del spots.obsm["spatial"]
    spots.obsm["spatial"] = np.column_stack([centers.x, centers.y]).astype(np.float64)
    if not one.rows.all():  # the description may belong to any other set of shapes
        spots.uns.pop("spatial", None)
    names = spots.obs_names
    spots, others = spots_of_library(spots, library, slide, what)
    if not others:
        spots.uns.pop("spatial", None)
    dropped = {
        "no_position": int((one.rows & (at < 0)).sum()),
        "other_library": int((~one.rows).sum()) + others.get("other_library", 0),
    }
    return spots, shapes.iloc[names.get_indexer(spots.obs_names)], dropped


def _placed(spots: AnnData, shapes: Any, frame: _Frame, name: str) -> AnnData:
    """Transform spots to pixels of the full-resolution image."""
    points = np.column_stack([spots.obsm["spatial"], np.ones(spots.n_obs)])
    spots.obsm["spatial"] = points @ frame.matrix[:2].T
    factors = {}
    if len(shapes):
        diameter = 2 * float(np.median(shapes["radius"])) if "radius" in shapes else _side(shapes)
        factors["spot_diameter_fullres"] = diameter * _scale(frame.matrix)
    spots.uns["spatial"] = {name: {"images": {}, "scalefactors": factors}}
    return spots


def _frame(spatialdata: Any, data: Any, one: Annotated, path: Path, library: str | None) -> _Frame:
    """Return the full-resolution pixel frame for the shapes of a library."""
    transformations = spatialdata.transformations
    systems = transformations.get_transformation(one.shapes, get_all=True)
    system = _full_resolution(systems, path)
    shapes = _matrix(systems[system])
    in_um = _is_in_um(path, one.region, system)
    centers = one.shapes.geometry.centroid
    places = np.column_stack([centers.x, centers.y, np.ones(len(centers))]) @ shapes[:2].T
    there_are: list[tuple[tuple[bool, float, int], str, FloatArray]] = []
    for name, image in data.images.items():
        there = transformations.get_transformation(image, get_all=True)
        if system not in there or not _is_picture(image):
            continue
        matrix = _matrix(there[system])
        height, width = (_levels(image)[0].sizes[axis] for axis in "yx")
        inside = np.column_stack([places, np.ones(len(places))]) @ np.linalg.inv(matrix)[:2].T
        covers = bool(np.mean((inside >= 0).all(axis=1) & (inside < (width, height)).all(axis=1)) > 0.5)
        there_are.append(((not covers, round(_scale(matrix), 9), -height * width), str(name), matrix))
    there_are.sort(key=lambda one: one[0])
    if there_are and _scale(there_are[0][2]) <= 1 + _SAME:
        alike = [one for one in there_are if one[0][:2] == there_are[0][0][:2]]
        rivals = tuple(name for _, name, _ in alike)
        own = {name: set(transformations.get_transformation(data.images[name], get_all=True)) for name in rivals}
        image = image_of(own, set(systems), {one.region, one.table_name, *([library] if library else [])})
        matrix = next((matrix for _, name, matrix in alike if name == image), alike[0][2])
        size = (float(np.hypot(*matrix[:2, 1])), float(np.hypot(*matrix[:2, 0])))
        there = np.linalg.inv(matrix) @ shapes
        are_same = all(np.allclose(other, matrix, rtol=_SAME, atol=_SAME) for _, _, other in alike)
        if image is not None:
            return _Frame(there, image, size if in_um else None)
        return _Frame(there, None, size if in_um else None, rivals, are_same)
    if in_um:
        raise SpotsError(
            f"The coordinate system {system!r} of {path} is in micrometres, and no image in it gives the pixel size "
            "of the slide; write the shapes with a transformation to pixels of the full-resolution image."
        )
    if _scale(shapes) < 1 - _SAME:
        raise SpotsError(
            f"The coordinate system {system!r} of {path} scales its shapes down ({_scale(shapes):.3g} times), so it "
            "is not in pixels of the full-resolution image, and no image in it defines it."
        )
    return _Frame(shapes)


def _full_resolution(systems: dict[str, Any], path: Path) -> str:
    """Return the coordinate system of the full-resolution image, or one in micrometres if there is no other."""
    if "global" in systems:
        return "global"
    names = [name for name in systems if "downscaled" not in name]
    for name in sorted(names, key=is_in_um):
        return str(name)
    raise SpotsError(
        f"{path} has no coordinate system of the full-resolution image; found {', '.join(map(str, systems)) or 'none'}."
    )


def _is_in_um(path: Path, region: str, system: str) -> bool:
    """Return whether a coordinate system is in micrometres, by its name or the axis units of the shapes."""
    if is_in_um(system):
        return True
    folder = path / "shapes" / region
    file = next((folder / name for name in ("zarr.json", ".zattrs") if (folder / name).is_file()), None)
    if file is None:
        return False
    content = read_json(file, SpotsError)
    given = content.get("attributes", content).get("coordinateTransformations", [])
    outputs = [one["output"] for one in given if one.get("output", {}).get("name") == system]
    return any(is_in_um(str(axis.get("unit", ""))) for output in outputs for axis in output.get("axes", []))


def _matrix(transformation: Any) -> FloatArray:
    """Return the transform matrix ``(3, 3)`` for positions ``(x, y, 1)``."""
    matrix = np.asarray(transformation.to_affine_matrix(("x", "y"), ("x", "y")), dtype=np.float64)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise SpotsError("A transformation of the SpatialData is singular; get the folder again.")
    return matrix


def _scale(matrix: FloatArray) -> float:
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def _is_picture(image: Any) -> bool:
    finest = _levels(image)[0]
    return finest.sizes.get("c") in (3, 4) and finest.dtype == np.uint8 and {"x", "y"} <= set(finest.dims)


def _levels(image: Any) -> list[Any]:
    """Return the arrays of an image element, finest first."""
    children = getattr(image, "children", None)
    if children is None:
        return [image]
    return [next(iter(child.dataset.data_vars.values())) for child in children.values()]


def _side(shapes: Any) -> float:
    """Return the side of square bins in units of the shapes."""
    return float(np.sqrt(np.median(shapes.geometry.area)))
