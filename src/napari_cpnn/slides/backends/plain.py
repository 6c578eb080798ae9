"""Plain pictures (JPEG, PNG, BMP, small TIFF) by Pillow: decoded once, when first read, and kept as an array."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import BmpImagePlugin, ExifTags, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends.base import Pixels, Refused, SourceInfo, over_white, require_jpeg_end
from napari_cpnn.slides.orientation import as_orientation

#: A picture is held in memory as a whole; larger ones belong into a pyramid.
MAX_SIDE_PX = 20_000

# Called directly: ``Image.open`` warns of "decompression bombs" from 89 Mpx on, which slides easily have. The
# limit above stands in for it.
_FORMATS: tuple[tuple[tuple[bytes, ...], str, Any], ...] = (
    ((b"\xff\xd8\xff",), "JPEG", JpegImagePlugin.JpegImageFile),
    ((b"\x89PNG\r\n\x1a\n",), "PNG", PngImagePlugin.PngImageFile),
    ((b"BM",), "BMP", BmpImagePlugin.BmpImageFile),
    ((b"II*\0", b"MM\0*"), "TIFF", TiffImagePlugin.TiffImageFile),
)
_GREY_MODES = ("1", "L")
_GREY16_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class PlainSource:
    """A picture of one level."""

    def __init__(self, path: Path, kind: str, factory: Any) -> None:
        self._path, self._kind, self._factory = path, kind, factory
        self._lock = threading.Lock()
        self._pixels: Pixels | None = None
        self._failure: str | None = None
        with self._open() as image:
            width, height = image.size
            if max(width, height) > MAX_SIDE_PX:
                raise SlideError(
                    f"{path} has {width} x {height} px, too many for a plain {kind} picture (at most {MAX_SIDE_PX} a "
                    "side); save it as a tiled pyramidal TIFF."
                )
            if min(width, height) < 1:
                raise Refused("it holds no pixels")
            # Asked for EXIF data that do not come first, Pillow's PNG reader would decode the whole picture.
            exif = image.getexif() if kind != "PNG" or "exif" in image.info else {}
            orientation = as_orientation(exif.get(ExifTags.Base.Orientation, 1))
            mode = image.mode
        self._mode = mode
        grey16 = mode in _GREY16_MODES
        grey = grey16 or mode in _GREY_MODES
        self.info = SourceInfo(
            level_shapes=((height, width),),
            channels=1 if grey else 3,
            rgb=not grey,
            dtype=np.dtype(np.uint16 if grey16 else np.uint8),
            properties={"format": kind},
            orientation=orientation,
        )

    def _open(self) -> Image.Image:
        try:
            image: Image.Image = self._factory(str(self._path))
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's readers raise all three on damaged headers
            raise Refused(f"cannot read it ({error})") from error
        return image

    def _decode(self) -> Pixels:
        try:
            if self._kind == "JPEG" and self._mode in ("RGB", "L"):
                # Several times faster than Pillow, and with a third of its memory.
                data = self._path.read_bytes()
                require_jpeg_end(data)
                return np.asarray(imagecodecs.jpeg8_decode(data))
            with self._open() as image:
                if self._mode in _GREY16_MODES:
                    return np.asarray(image).astype(np.uint16)
                if self._mode in _GREY_MODES:
                    return np.asarray(image.convert("L"))
                if self._mode == "RGB":
                    return np.asarray(image)
                if image.has_transparency_data:
                    return over_white(np.asarray(image.convert("RGBA")))
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, RuntimeError, Refused) as error:
            raise SlideError(f"{self._path} cannot be decoded ({error}); the file may be damaged.") from error

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:  # noqa: ARG002
        with self._lock:
            if self._pixels is None:
                if self._failure is not None:  # a second attempt would take as long and fail as well
                    raise SlideError(self._failure)
                try:
                    self._pixels = self._decode()
                except SlideError as error:
                    self._failure = str(error)
                    raise
            pixels = self._pixels
        return pixels[y : y + height, x : x + width]

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        with self._lock:
            self._pixels = None


class PlainBackend:
    """First for pictures by their first bytes, last for TIFF."""

    name = "Pillow"

    def rank(self, path: Path, head: bytes) -> int:  # noqa: ARG002
        for magic, kind, _ in _FORMATS:
            if head.startswith(magic):
                return 5 if kind == "TIFF" else 20
        return 0

    def open(self, path: Path) -> PlainSource:
        with path.open("rb") as file:
            head = file.read(16)
        for magic, kind, factory in _FORMATS:
            if head.startswith(magic):
                return PlainSource(path, kind, factory)
        raise Refused("not a JPEG, PNG, BMP or TIFF picture")
