"""Pixel sizes of images in a SpatialData, from their transformations to coordinate systems in micrometres.

Unlike those of OME-Zarr, the transformations of an element do not follow each other: each leads from the pixels of its
finest level to a coordinate system of its own. Source: SpatialData, design document, https://spatialdata.scverse.org.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import CpnnWarning
from napari_cpnn.geometry import Mpp
from napari_cpnn.slides.pixel_size import is_in_um, um_per

Matrix = npt.NDArray[np.float64]

#: Largest difference of sizes that are the same, and largest cosine of a right angle.
_SAME = 1e-3


def is_of_element(step: Any) -> bool:
    """Return whether a transformation leads to a coordinate system of a SpatialData."""
    output = step.get("output") if isinstance(step, dict) else None
    return isinstance(output, dict) and "name" in output


def element_mpp(image: dict[str, Any], folder: str) -> Mpp | None:
    """Return um per pixel ``(y, x)`` of the finest level; ``None`` if no coordinate system is in units of length.

    A turned or mirrored image has the size of its pixels. A :class:`CpnnWarning` says that a sheared one has none, that
    a transformation is not understood, or that two coordinate systems disagree.
    """
    steps = image.get("coordinateTransformations")
    sizes: list[Mpp] = []
    for step in steps if isinstance(steps, list) else []:
        um = _um_of_system(step) if is_of_element(step) else None
        if um is None:
            continue
        name = str(step["output"]["name"])[:60]
        matrix = _matrix(step)
        if matrix is None:
            _warn(f"the transformation of {folder} to {name!r} is not understood")
            return None
        across, down = matrix[:2, 0] * um, matrix[:2, 1] * um
        width, height = float(np.hypot(*across)), float(np.hypot(*down))
        if not (width > 0 and height > 0) or abs(float(across @ down)) > _SAME * width * height:
            _warn(f"the transformation of {folder} to {name!r} shears it or is singular")
            return None
        sizes.append((height, width))
    if not sizes:
        return None
    if not np.allclose(sizes, sizes[0], rtol=_SAME):
        _warn(f"the coordinate systems of {folder} in micrometres disagree about its pixels")
        return None
    return sizes[0]


def _warn(what: str) -> None:
    warnings.warn(f"The pixel size is unknown, since {what}; give it.", CpnnWarning, stacklevel=8)


def _um_of_system(step: dict[str, Any]) -> float | None:
    """Return micrometres per unit of a coordinate system, by the units of its axes or its name."""
    output = step["output"]
    axes = output.get("axes")
    units = [
        um_per(str(axis.get("unit", "")))
        for axis in (axes if isinstance(axes, list) else [])
        if isinstance(axis, dict) and axis.get("name") in ("x", "y")
    ]
    if len(units) == 2 and units[0] is not None and units[0] == units[1]:
        return units[0]
    return 1.0 if is_in_um(str(output["name"])) else None


def _matrix(step: Any) -> Matrix | None:
    """Return ``(3, 3)`` of ``(x, y, 1)``; ``None`` for a transformation of another kind, or a damaged one."""
    try:
        matrix = _composed(step)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError):
        return None
    return matrix if np.isfinite(matrix).all() else None


def _composed(step: dict[str, Any]) -> Matrix:
    kind = step["type"]
    matrix = np.eye(3)
    if kind == "identity":
        return matrix
    if kind == "sequence":
        for inner in step["transformations"]:
            matrix = _composed(inner) @ matrix
        return matrix
    if kind == "mapAxis":
        matrix[:2, :2] = [[float(step["mapAxis"].get(to, to) == of) for of in "xy"] for to in "xy"]
        return matrix
    inputs = [axis["name"] for axis in step["input"]["axes"]]
    columns = [inputs.index(axis) for axis in "xy"]
    if kind == "scale":
        matrix[0, 0], matrix[1, 1] = (float(step["scale"][i]) for i in columns)
    elif kind == "translation":
        matrix[:2, 2] = [float(step["translation"][i]) for i in columns]
    elif kind == "affine":
        outputs = [axis["name"] for axis in step["output"]["axes"]]
        given = np.asarray(step["affine"], dtype=np.float64)
        matrix[:2] = given[np.ix_([outputs.index(axis) for axis in "xy"], [*columns, len(inputs)])]
    else:
        raise ValueError(kind)
    return matrix
