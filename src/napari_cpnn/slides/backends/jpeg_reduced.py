"""Decode baseline JPEG tiles at a half, a quarter or an eighth of their size."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from napari_cpnn.slides.backends.base import Pixels

#: Factors by which libjpeg shrinks a tile while it decodes it.
FACTORS = (2, 4, 8)
#: Larger tiles are not worth it, and Pillow would warn of them.
LARGEST_TILE_PX = 2**22
_START, _END, _SCAN, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
_APPLICATION = range(0xE0, 0xF0)
#: Adobe's marker, which says that the three components are red, green and blue.
_ARE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def decode_reduced(
    data: bytes, tables: bytes | None, tile: tuple[int, int], factor: int, *, are_rgb: bool
) -> Pixels | None:
    """Decode a JPEG tile at ``1 / factor`` of its size.

    libjpeg then computes means of ``factor`` x ``factor`` pixels from the coefficients of each block. Where chroma has
    half the size, its own pixels are taken and not interpolated first; where it is half as wide only, it stays so.

    Parameters
    ----------
    data, tables
        The tile, and the tables that the tiles of a page share.
    tile
        Height and width of the whole tile in pixels.
    factor
        One of :data:`FACTORS`.
    are_rgb
        Whether the components are red, green and blue, whatever markers say; else libjpeg decides by the markers.

    Returns
    -------
    numpy.ndarray or None
        ``(height / factor, width / factor, 3)`` uint8; ``None`` for a tile that is damaged, or that libjpeg cannot
        shrink (lossless JPEG). Decoding it whole tells which.
    """
    small = tile[1] // factor, tile[0] // factor
    try:
        stream = io.BytesIO(_complete(data, tables, are_rgb=are_rgb))
        with Image.open(stream, formats=("JPEG",)) as image:
            if image.size != (tile[1], tile[0]) or image.mode != "RGB":
                return None
            image.draft("RGB", small)
            pixels: Pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, struct.error):
        return None
    return pixels if pixels.shape == (small[1], small[0], 3) else None


def _complete(data: bytes, tables: bytes | None, *, are_rgb: bool) -> bytes:
    """Return a JPEG with the tables that it shares with other tiles, and a marker that tells its colours."""
    parts = [data[:2], _ARE_RGB] if are_rgb else [data[:2]]
    for stream in (tables or b"", data):
        for at, marker in _segments(stream):
            if marker == _SCAN:
                parts.append(stream[at:])
            elif not (are_rgb and (marker in _APPLICATION or marker == _COMMENT)):
                parts.append(stream[at : at + 2 + struct.unpack_from(">H", stream, at + 2)[0]])
    return b"".join(parts)


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield offset and marker of each segment, up to the first scan."""
    at = 2 if data else 0
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            raise ValueError("a marker of the JPEG is missing")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _END:
            return
        yield at, marker
        if marker == _SCAN:
            return
        at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    if data:
        raise ValueError("the JPEG has no scan")
