"""Choose the table, shapes and image of a SpatialData that holds several."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.errors import CpnnWarning
from napari_cpnn.spots.array import neighbour_distance
from napari_cpnn.spots.barcodes import barcodes_of
from napari_cpnn.spots.libraries import choose

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.arrays import FloatArray
    from napari_cpnn.slides import Slide

#: Relative difference below which sizes and pitches of spots are equal.
_ALIKE = 0.02
#: Distance between spots of one section, as a share of the pitch.
_SAME_PLACE = 0.05
#: Minimum share of common barcodes of two sections.
_SHARED = 0.1
_LOOKED_AT = 5000


@dataclass(frozen=True, eq=False)
class Annotated:
    """Rows of a table that annotate one set of shapes."""

    table: AnnData
    table_name: str
    region: str
    shapes: Any
    rows: np.ndarray[Any, Any]


def is_named(found: Sequence[Annotated], library: str) -> bool:
    """Return whether a library is the name of a table or of a set of shapes."""
    names = {name.casefold() for one in found for name in (one.region, one.table_name)}
    return library.casefold() in names


def has_library(found: Sequence[Annotated], library: str) -> bool:
    """Return whether a library is a value of a column of a table."""
    for one in found:
        for column in one.table.obs.columns:
            values = one.table.obs[column][one.rows]
            if values.dtype.kind != "f" and library.casefold() in {str(value).casefold() for value in values.unique()}:
                return True
    return False


def one_of(
    found: list[Annotated], library: str | None, slide: Slide | None, path: Path, inner: str | None = None
) -> Annotated:
    """Return the requested table; of several tables of one section, the one with the largest spots.

    Parameters
    ----------
    found
        Candidates, the smallest first.
    library
        Name of shapes or of a table.
    slide
        Slide on which the spots were measured.
    path
        Path for messages.
    inner
        Library in a column of the chosen tables.
    """
    if library is not None:
        name = choose([name for one in found for name in (one.region, one.table_name)], library, None, str(path))
        named = [one for one in found if one.region == name] or [one for one in found if one.table_name == name]
        if len({one.region for one in named}) > 1:
            choose([one.region for one in named], None, slide, f"Table {name!r} of {path}")
        return named[0]
    if inner is not None:
        found = [one for one in found if has_library([one], inner)]
    tables = {one.table_name for one in found}
    if len(tables) < len(found) or _are_of_several_sections(found):
        name = choose(sorted({one.region for one in found}), None, slide, str(path))
        return next(one for one in found if one.region == name)
    if len(found) > 1:
        others = ", ".join(sorted(tables - {found[0].table_name}))
        warnings.warn(
            f"{path.name} has several tables; {found[0].table_name} is read rather than {others}.",
            CpnnWarning,
            stacklevel=6,
        )
    return found[0]


def image_of(images: Mapping[str, set[str]], systems: set[str], names: set[str]) -> str | None:
    """Return the image of one section among several that cover its spots equally; None if undecidable.

    Parameters
    ----------
    images
        Coordinate systems of each image.
    systems
        Coordinate systems of the shapes.
    names
        Names of the section.
    """
    if len(images) == 1:
        return next(iter(images))
    for likeness in (
        {image: len(own & systems) for image, own in images.items()},
        {image: max(_common_words(image, name) for name in names) for image in images},
    ):
        most = max(likeness.values())
        best = [image for image, value in likeness.items() if value == most]
        if len(best) == 1:
            return best[0]
    return None


def _common_words(one: str, other: str) -> int:
    """Return the number of leading or trailing words that two names have in common."""
    words = [[word for word in re.split(r"[^0-9a-z]+", name.casefold()) if word] for name in (one, other)]
    ways = [list(zip(*words, strict=False)), list(zip(*(named[::-1] for named in words), strict=False))]
    return max(len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], way))) for way in ways)


def _are_of_several_sections(found: Sequence[Annotated]) -> bool:
    """Return whether tables belong to different sections rather than to one with several spot sizes (Visium HD)."""
    return any(_are_two_sections(one, other) for one, other in itertools.combinations(found, 2))


def _are_two_sections(one: Annotated, other: Annotated) -> bool:
    if one.region == other.region:
        return False
    systems = _systems(one), _systems(other)
    common = sorted(set(systems[0]) & set(systems[1]), key=lambda name: (name != "global", name))
    if not common:
        return True
    barcodes = barcodes_of([*one.table.obs_names[one.rows], *other.table.obs_names[other.rows]])
    n = int(one.rows.sum())
    shared = 0.0
    if barcodes is not None:
        here, there = set(barcodes.cores[:n].tolist()), set(barcodes.cores[n:].tolist())
        shared = len(here & there) / min(len(here), len(there))
    if shared <= _SHARED and not _are_alike(_size(one), _size(other)):
        return False
    points = [_centers(each, system[common[0]]) for each, system in zip((one, other), systems, strict=True)]
    pitches = [neighbour_distance(each) for each in points]
    if shared <= _SHARED and not _are_alike(pitches[0], pitches[1]):
        return False
    return _away(*points) > _SAME_PLACE * min(pitches)


def _are_alike(one: float, other: float) -> bool:
    return abs(one - other) <= _ALIKE * max(one, other)


def _systems(one: Annotated) -> dict[str, Any]:
    from spatialdata.transformations import get_transformation

    found: dict[str, Any] = get_transformation(one.shapes, get_all=True)
    return found


def _size(one: Annotated) -> float:
    shapes = one.shapes
    return float(np.median(shapes["radius"])) if "radius" in shapes else float(np.sqrt(np.median(shapes.geometry.area)))


def _centers(one: Annotated, transformation: Any) -> FloatArray:
    matrix = np.asarray(transformation.to_affine_matrix(("x", "y"), ("x", "y")), dtype=np.float64)
    centers = one.shapes.geometry.centroid
    return np.asarray(np.column_stack([centers.x, centers.y, np.ones(len(centers))]) @ matrix[:2].T)


def _away(one: FloatArray, other: FloatArray) -> float:
    """Return the median distance from spots of the smaller table to the nearest spot of the other."""
    from scipy.spatial import cKDTree

    small, large = sorted((one, other), key=len)
    some = small[:: len(small) // _LOOKED_AT + 1]
    return float(np.median(cKDTree(large).query(some)[0]))
