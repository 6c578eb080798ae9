"""Backend for plain images (JPEG, PNG, BMP, small TIFF) by Pillow, decoded once when first read."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import BmpImagePlugin, ExifTags, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends.base import Pixels, Refused, SourceInfo, can_hold, over_white
from napari_cpnn.slides.backends.codestreams import require_jpeg_end
from napari_cpnn.slides.orientation import as_orientation
from napari_cpnn.untrusted import reason_of, require_memory

#: An image is held in memory as a whole; larger ones should be stored as a pyramid.
MAX_PLAIN_PX = 20_000

# Called directly: ``Image.open`` warns of "decompression bombs" from 89 Mpx, which slides often exceed. The limit above
# replaces that check.
_FORMATS: tuple[tuple[tuple[bytes, ...], str, Any], ...] = (
    ((b"\xff\xd8\xff",), "JPEG", JpegImagePlugin.JpegImageFile),
    ((b"\x89PNG\r\n\x1a\n",), "PNG", PngImagePlugin.PngImageFile),
    ((b"BM",), "BMP", BmpImagePlugin.BmpImageFile),
    ((b"II*\0", b"MM\0*"), "TIFF", TiffImagePlugin.TiffImageFile),
)
# Pillow modes that become grey of this depth; all others become 8-bit RGB, with alpha composited over white.
_GREY = {
    "1": np.uint8, "L": np.uint8, "LA": np.uint8, "La": np.uint8, "I": np.int32, "F": np.float32,
    "I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "I;16N": np.uint16,
}  # fmt: skip
_COLOURS = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")


class PlainSource:
    """An image with a single level."""

    def __init__(self, path: Path, kind: str, factory: Any) -> None:
        self._path, self._kind, self._factory = path, kind, factory
        self._lock = threading.Lock()
        self._pixels: Pixels | None = None
        self._failure: str | None = None
        with self._open() as image:
            width, height = image.size
            if max(width, height) > MAX_PLAIN_PX:
                raise SlideError(
                    f"{path} has {width} x {height} px, too many for a plain {kind} image (at most {MAX_PLAIN_PX} per "
                    "side); save it as a tiled pyramidal TIFF."
                )
            if min(width, height) < 1:
                raise Refused("it holds no pixels")
            # Pillow's PNG reader would decode the whole image to look for EXIF data that are not at the start.
            exif = image.getexif() if kind != "PNG" or "exif" in image.info else {}
            orientation = as_orientation(exif.get(ExifTags.Base.Orientation, 1))
            self._mode = image.mode
            self._see_through = image.has_transparency_data
        if self._mode not in _GREY and self._mode not in _COLOURS:
            raise Refused(f"its pixel type is not supported ({self._mode})")
        grey = _GREY.get(self._mode)
        channels = 3 if grey is None else 1
        dtype = np.dtype(np.uint8 if grey is None else grey)
        self._require_room(height * width * channels * dtype.itemsize)
        self.info = SourceInfo(
            level_shapes=((height, width),),
            channels=channels,
            rgb=grey is None,
            dtype=dtype,
            properties={"format": kind},
            orientation=orientation,
        )

    def _require_room(self, declared_bytes: int) -> None:
        """Raise an error if a header declares more than the file or the memory can hold."""
        if self._mode != "1" and not can_hold(self._path.stat().st_size, declared_bytes):
            raise SlideError(f"{self._path} is damaged: its declared size exceeds what the file can hold.")
        require_memory(3 * declared_bytes, self._path, SlideError)  # decoded, converted and result

    def _open(self) -> Image.Image:
        try:
            image: Image.Image = self._factory(str(self._path))
        except Exception as error:  # Pillow's readers raise various exceptions on damaged headers
            raise Refused(f"cannot read it ({reason_of(error)})") from error
        return image

    def _decode(self) -> Pixels:
        try:
            if self._kind == "JPEG" and self._mode in ("RGB", "L"):
                # Several times faster than Pillow, with a third of its memory.
                data = self._path.read_bytes()
                require_jpeg_end(data)
                return np.asarray(imagecodecs.jpeg8_decode(data))
            with self._open() as image:
                return self._converted(image)
        except Exception as error:  # any exception of two libraries
            raise SlideError(
                f"{self._path} cannot be decoded ({reason_of(error)}); the file may be damaged."
            ) from error

    def _converted(self, image: Image.Image) -> Pixels:
        grey = _GREY.get(self._mode)
        if grey is not None and np.dtype(grey) != np.uint8:
            return np.asarray(image).astype(grey)
        if self._see_through:
            rgb = over_white(np.asarray(image.convert("RGBA")))
            return rgb if grey is None else rgb[..., 0]
        mode = "RGB" if grey is None else "L"
        return np.asarray(image if image.mode == mode else image.convert(mode))

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:  # noqa: ARG002
        with self._lock:
            if self._pixels is None:
                if self._failure is not None:  # a second attempt would fail, too
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
    """Preferred for plain images by their first bytes, last choice for TIFF."""

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
        raise Refused("not a JPEG, PNG, BMP or TIFF image")
