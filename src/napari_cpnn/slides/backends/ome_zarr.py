"""Backend for OME-Zarr of versions 0.1 to 0.5, as bioformats2raw, ome-zarr-py and SpatialData write them.

Source: Open Microscopy Environment, Next-generation file formats, https://ngff.openmicroscopy.org/0.5/ (multiscales,
axes, coordinateTransformations) and the layout of bioformats2raw.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np

from napari_cpnn.errors import SlideError
from napari_cpnn.geometry import Mpp
from napari_cpnn.slides.backends.base import MAX_SIDE_PX, ByteLRU, Pixels, Refused, SourceInfo, over_white
from napari_cpnn.slides.backends.element_frames import element_mpp, is_of_element
from napari_cpnn.slides.backends.zarr_places import (
    FolderPlace,
    ZarrPlace,
    attributes,
    is_zarr,
    open_address,
    open_zip,
)
from napari_cpnn.slides.pixel_size import um_per
from napari_cpnn.slides.pyramid import true_levels
from napari_cpnn.untrusted import reason_of

_CACHE_BYTES = 64 * 2**20
#: Small chunks are read several at a time, up to this side.
_BLOCK_PX = 256
_RGB = ("FF0000", "00FF00", "0000FF")
_OLD_AXES = ("t", "c", "z", "y", "x")  # of versions 0.1 and 0.2, which do not name them


def image_place(place: ZarrPlace) -> ZarrPlace:
    """Return the place of the image in a Zarr: itself, the first series, or the only image of a SpatialData.

    Raises
    ------
    SlideError
        If it holds no image, or several.
    """
    facts = attributes(place)
    if "multiscales" in facts:
        return place
    if "plate" in facts or "well" in facts:
        raise SlideError(f"{place.label} is a plate of many images; choose the folder of one, such as A/1/0 in it.")
    if "bioformats2raw.layout" in facts and is_zarr(place.at("0")):
        return image_place(place.at("0"))
    held = place.at("images")
    images = [name for name in held.folders() if is_zarr(held.at(name))]
    if len(images) == 1:
        return image_place(held.at(images[0]))
    if images:
        names = ", ".join(name[:60] for name in images[:5])
        raise SlideError(f"{place.label} holds {len(images)} images ({names}); choose one of the folders in images.")
    if not is_zarr(place):
        hint = " A zip file must be downloaded first." if place.name.lower().endswith((".zip", ".ozx")) else ""
        raise SlideError(f"There is no Zarr at {place.label}.{hint}")
    raise SlideError(f"{place.label} is a Zarr folder without an OME-Zarr image: it has no multiscales.{_outer(place)}")


def _outer(place: ZarrPlace) -> str:
    """Return a hint at the image of which a folder is a part."""
    above = list(place.path.parents)[:2] if isinstance(place, FolderPlace) else []
    outer = next((p for p in above if "multiscales" in attributes(FolderPlace(p))), None)
    return "" if outer is None else f" It is a part of {outer}; choose that folder."


def image_folder(folder: Path) -> Path:
    """Return the folder of the image in a Zarr folder, as :func:`image_place`."""
    found = image_place(FolderPlace(folder))
    return found.path if isinstance(found, FolderPlace) else folder


class OmeZarrSource:
    """A multiscale image whose chunks are read as they are needed.

    The last of several chunks are kept. Alpha is composited over white; only one time point and one plane are accepted.
    """

    def __init__(self, place: ZarrPlace) -> None:
        facts, folder = attributes(place), place.label
        image = _first_image(facts, folder)
        self._place = place
        listed = image.get("datasets")
        entries = [d for d in listed if isinstance(d, dict)] if isinstance(listed, list) else []
        keys = [_key(d.get("path"), folder) for d in entries]
        place.check(keys)
        group = place.group()
        arrays = [_array(group, key, folder) for key in keys]
        if not arrays:
            raise SlideError(f"{folder} has no levels; its metadata are damaged.")
        axes = _axes(image, len(arrays[0].shape))
        if any(len(a.shape) != len(axes) or a.dtype != arrays[0].dtype for a in arrays):
            raise SlideError(f"{folder} has levels of different kinds; its metadata are damaged.")
        self._at = _positions([name for name, _ in axes], arrays[0].shape, folder)
        y, x, c = self._at
        order = sorted(range(len(arrays)), key=lambda i: -int(arrays[i].shape[y]) * int(arrays[i].shape[x]))
        entries, arrays = [entries[i] for i in order], [arrays[i] for i in order]  # some list the coarsest first
        keys = [keys[i] for i in order]
        shapes = [(int(a.shape[y]), int(a.shape[x])) for a in arrays]
        if min(shapes[0]) < 1 or max(shapes[0]) > MAX_SIDE_PX:
            raise SlideError(f"{folder} declares {shapes[0][1]} x {shapes[0][0]} px; its metadata are damaged.")
        kept = true_levels(shapes)
        self._arrays = [arrays[i] for i in kept]
        n = 1 if c is None else int(arrays[0].shape[c])
        dtype = np.dtype(arrays[0].dtype)
        is_rgb = dtype == np.uint8 and n in (3, 4) and _is_rgb(facts)
        self._alpha = n == 4 and is_rgb
        channels = 3 if self._alpha else n
        scales = [_scale(image, entries[i], len(axes)) for i in kept]
        units = [um_per(axes[i][1]) for i in (y, x)]
        self.info = SourceInfo(
            level_shapes=tuple(shapes[i] for i in kept),
            channels=channels,
            rgb=is_rgb,
            dtype=dtype,
            pixel_sizes=_pixel_sizes(scales[0], units, (y, x), element_mpp(image, folder)),
            properties={"format": f"OME-Zarr {str(image.get('version', '') or facts.get('version', ''))[:8]}".strip()},
            view=place.name if PurePath(folder).parent.name == "images" else "",
        )
        self._blocks = [
            tuple(min(_whole(int(a.chunks[i])), int(a.shape[i])) for i in (y, x)) for a in self._arrays
        ]  # of zarr, ``chunks`` are those inside of shards
        self._keys = [keys[i] for i in kept]
        self._cache = ByteLRU(_CACHE_BYTES)

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        tall, wide = self._blocks[level]
        tail = () if self.info.channels == 1 else (self.info.channels,)
        out = np.empty((height, width, *tail), self.info.dtype)
        for row in range(y // tall, -(-(y + height) // tall)):
            for col in range(x // wide, -(-(x + width) // wide)):
                block = self._block(level, row, col)
                top, left = row * tall, col * wide
                y0, x0 = max(y, top), max(x, left)
                y1, x1 = min(y + height, top + block.shape[0]), min(x + width, left + block.shape[1])
                out[y0 - y : y1 - y, x0 - x : x1 - x] = block[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def _block(self, level: int, row: int, col: int) -> Pixels:
        block = self._cache.get((level, row, col))
        if block is None:
            array, (tall, wide), (y, x, c) = self._arrays[level], self._blocks[level], self._at
            box: list[Any] = [0] * array.ndim
            box[y] = slice(row * tall, min((row + 1) * tall, array.shape[y]))
            box[x] = slice(col * wide, min((col + 1) * wide, array.shape[x]))
            kept = [y, x]
            if c is not None and array.shape[c] > 1:
                box[c] = slice(None)
                kept.append(c)
            try:
                block = np.asarray(array[tuple(box)])
            except Exception as error:  # any exception of the storage and its codecs
                raise SlideError(
                    f"{self._place.label} cannot be read at row {row * tall}, column {col * wide} of level {level} "
                    f"({reason_of(error)})."
                ) from error
            empty = bool(block.flat[0] == array.fill_value and (block == array.fill_value).all())
            if not self._place.is_there(self._keys[level], empty=empty):  # zarr takes missing chunks for empty ones
                gone = f"{self._place.label}/{self._keys[level]}"
                raise SlideError(f"{gone} has been moved or deleted since the slide was opened.")
            block = np.ascontiguousarray(block.transpose([sorted(kept).index(axis) for axis in kept]))
            block = over_white(block) if self._alpha else block
            self._cache.put((level, row, col), block)
        return block

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        self._cache.clear()


class OmeZarrBackend:
    """OME-Zarr by zarr-python: a folder or a zip file."""

    name = "zarr"

    def rank(self, path: Path, head: bytes) -> int:
        if path.is_dir():
            return 9 if is_zarr(FolderPlace(path)) else 0
        return 5 if head.startswith(b"PK\x03\x04") else 0

    def open(self, path: Path) -> OmeZarrSource:
        if path.is_dir():
            return OmeZarrSource(FolderPlace(path))
        try:
            place = open_zip(path)
        except zipfile.BadZipFile as error:
            raise Refused(f"it is a damaged zip file ({error})") from error
        if not is_zarr(place):
            raise Refused("it is a zip file without an OME-Zarr")
        return OmeZarrSource(image_place(place))


def open_at(address: str) -> OmeZarrSource:
    """Open the OME-Zarr at an address of a web server or S3."""
    return OmeZarrSource(image_place(open_address(address)))


def _whole(chunk: int) -> int:
    """Return the side of a block of whole chunks."""
    return chunk * max(1, _BLOCK_PX // max(chunk, 1))


def _first_image(facts: dict[str, Any], folder: str) -> dict[str, Any]:
    images = facts.get("multiscales")
    if not isinstance(images, list) or not images or not isinstance(images[0], dict):
        raise SlideError(f"{folder} is a Zarr folder without an OME-Zarr image: it has no multiscales.")
    return images[0]


def _key(path: object, folder: str) -> str:
    parts = PurePosixPath(str(path)).parts
    if not isinstance(path, str) or not parts or ".." in parts or path.startswith("/"):
        raise SlideError(f"{folder} names a level {str(path)[:40]!r} outside the folder; its metadata are damaged.")
    return path


def _array(group: Any, path: str, folder: str) -> Any:
    try:
        found = group[path]
    except Exception as error:  # any exception of the storage
        raise SlideError(f"{folder} lacks the level {path[:40]!r} ({reason_of(error)}).") from error
    if not hasattr(found, "shape"):
        raise SlideError(f"{folder}: the level {path[:40]!r} is not an array; its metadata are damaged.")
    return found


def _axes(image: dict[str, Any], n: int) -> list[tuple[str, str]]:
    """Return name and unit of each axis."""
    axes = image.get("axes")
    if isinstance(axes, list) and len(axes) == n:
        facts = [a if isinstance(a, dict) else {"name": a} for a in axes]
        return [(str(a.get("name", "")).lower(), str(a.get("unit") or "")) for a in facts]
    return [(name, "") for name in _OLD_AXES[-n:]]


def _positions(names: list[str], shape: tuple[int, ...], folder: str) -> tuple[int, int, int | None]:
    """Return the positions of y, x and the channels; all other axes must have a length of one."""
    if "y" not in names or "x" not in names:
        raise SlideError(f"{folder} has no axes y and x; its metadata are damaged.")
    for name, length in zip(names, shape, strict=True):
        if name not in ("y", "x", "c") and length != 1:
            kind = {"t": "time points", "z": "planes"}.get(name, f"places along {name[:20]}")
            raise SlideError(f"{folder} has {length} {kind}; a slide has one.")
    return names.index("y"), names.index("x"), names.index("c") if "c" in names else None


def _scale(image: dict[str, Any], dataset: dict[str, Any], n: int) -> list[float] | None:
    """Return the size of a pixel along each axis, or ``None`` if it is not stated."""
    scale, stated = [1.0] * n, False
    for holder in (dataset, image):
        steps = holder.get("coordinateTransformations")
        for step in steps if isinstance(steps, list) else []:
            is_scale = isinstance(step, dict) and step.get("type") == "scale" and not is_of_element(step)
            values = step.get("scale") if is_scale else None
            if isinstance(values, list) and len(values) == n and all(isinstance(v, (int, float)) for v in values):
                scale, stated = [a * float(b) for a, b in zip(scale, values, strict=True)], True
    return scale if stated and all(math.isfinite(v) and v > 0 for v in scale) else None


def _pixel_sizes(
    scale: list[float] | None, units: list[float | None], at: tuple[int, int], element: Mpp | None
) -> tuple[tuple[str, Mpp], ...]:
    if element is not None:  # of the finest level, whose own scale comes first
        y, x = (1.0, 1.0) if scale is None else (scale[i] for i in at[:2])
        return (("SpatialData", (element[0] * y, element[1] * x)),)
    if scale is None or units[0] is None or units[1] is None:
        return ()
    return (("OME-Zarr", (scale[at[0]] * units[0], scale[at[1]] * units[1])),)


def _is_rgb(facts: dict[str, Any]) -> bool:
    """Return whether three channels of 8 bit are red, green and blue: unless others are said to be their colours."""
    omero = facts.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return True
    colours = [str(c.get("color", "")).lstrip("#").upper()[:6] for c in channels if isinstance(c, dict)]
    return not any(colours) or tuple(colours[:3]) == _RGB
