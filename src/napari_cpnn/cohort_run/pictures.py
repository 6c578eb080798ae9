"""Small pictures of a slide: the tissue, and the dominant cell types on it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import IntArray
from napari_cpnn.errors import CohortError
from napari_cpnn.mapping import DONE, is_unlike
from napari_cpnn.palette import type_colors
from napari_cpnn.slides import Slide
from napari_cpnn.storage import whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cpnn.mapping import CompositionMap

Picture = npt.NDArray[np.uint8]

#: Opacity of a type, and the grey of patches that are unlike the tissue of the training.
_OPACITY, _UNLIKE = 0.7, (140, 140, 140)
_QUALITY = 85


def dominant_picture(picture: Picture, slide: Slide, cmap: CompositionMap) -> Picture:
    """Lay the dominant type of each patch over a picture ``(h, w, 3)`` of the whole slide; grey where it is unlike."""
    if not cmap.cell_types:
        return picture
    mpp = slide.require_mappable()
    rows, cols = (_patch_of(picture.shape[axis], slide.shape[axis] * mpp[axis], cmap, axis) for axis in (0, 1))
    inside = (rows >= 0)[:, None] & (cols >= 0)[None]
    done = (cmap.state == DONE)[np.ix_(rows, cols)] & inside
    colors = np.array([_rgb(color) for color in type_colors(cmap.cell_types, cmap.hierarchy).values()], np.float64)
    values = cmap.block((slice(None), slice(None)))
    painted = colors[np.nan_to_num(values.weights.astype(np.float32)).argmax(axis=2)]
    painted[is_unlike(values.out_of_domain)] = _UNLIKE
    over = painted[np.ix_(rows, cols)]
    mixed = np.where(done[..., None], (1 - _OPACITY) * picture + _OPACITY * over, picture)
    return np.rint(mixed).astype(np.uint8)


def _patch_of(n: int, length_um: float, cmap: CompositionMap, axis: int) -> IntArray:
    """Row (column) of the map at each pixel of a picture along an axis; -1 outside of it."""
    at = (np.arange(n) + 0.5) * length_um / n - cmap.grid.origin_um[axis]
    index = np.floor(at / cmap.grid.stride_um).astype(np.intp)
    return np.where((index >= 0) & (index < cmap.grid.shape[axis]), index, -1)


def _rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def write_picture(picture: Picture, path: Path) -> None:
    """Write a picture as JPEG, whole."""
    with whole_file(path, CohortError) as temporary:
        temporary.write_bytes(jpeg_of(picture))


def jpeg_of(picture: Picture, most_px: int | None = None) -> bytes:
    """Return a picture as JPEG, made smaller where a side is longer than ``most_px``."""
    from PIL import Image

    image = Image.fromarray(picture)
    if most_px is not None:
        image.thumbnail((most_px, most_px))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()
