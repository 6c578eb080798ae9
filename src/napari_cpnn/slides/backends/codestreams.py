"""Read the declared size of compressed images from their first bytes.

A decoder uses this size, not that of the file around it: a tile of 256 x 256 px may hold a JPEG that declares 60,000 x
60,000.
"""

from __future__ import annotations

import struct

_JPEG = b"\xff\xd8"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length
_JPEG_2000 = b"\xff\x4f\xff\x51"
_JP2_BOX = b"\0\0\0\x0cjP  \r\n\x87\n"
_PNG = b"\x89PNG\r\n\x1a\n"


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Return ``(height, width)`` of a JPEG, JPEG 2000, PNG or WebP; ``None`` for other formats.

    >>> declared_size(bytes.fromhex("ffd8 ffe0 0004 4a46 ffc0 0011 08 0010 0020"))
    (16, 32)
    """
    try:
        if data.startswith(_JPEG):
            return _jpeg_size(data)
        if data.startswith((_JPEG_2000, _JP2_BOX)):
            start = data.index(_JPEG_2000)
            right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
            return bottom - top, right - left
        if data.startswith(_PNG):
            width, height = struct.unpack_from(">2I", data, 16)
            return height, width
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
    except (struct.error, ValueError):
        pass  # truncated header: the decoder reports it
    return None


def require_jpeg_end(data: bytes) -> None:
    """Raise :class:`ValueError` for a truncated JPEG, whose missing part decoders silently fill with grey."""
    if data.startswith(_JPEG) and data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) < 0:
        raise ValueError("the JPEG data are truncated")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _JPEG_ALONE:
            at += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">2H", data, at + 5)
            return height, width
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[i : i + 3], "little") for i in (24, 27))
        return height, width
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<2H", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    return None
