"""Files of Zeiss (CZI) for tests, in its published layout: segments of a header, metadata, tiles and a directory."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np

BGR24, GRAY16 = 3, 1
UNCOMPRESSED, JPEG_XR = 0, 4
_24_BIT_BGR = bytes.fromhex("24c3dd6f034efe4bb1853d77768dc90c")  # as Zeiss marks its colours

Tile = tuple[int, int, int, np.ndarray]
"""Left and top side at level 0, level-0 pixels per pixel, and the pixels."""


def _segment(kind: bytes, data: bytes) -> bytes:
    room = len(data) + -len(data) % 32
    return struct.pack("<16sqq", kind, room, len(data)) + data.ljust(room, b"\0")


def _encoded(pixels: np.ndarray, compression: int) -> bytes:
    if compression == UNCOMPRESSED:
        return pixels[..., ::-1].tobytes() if pixels.ndim == 3 else pixels.tobytes()
    data = bytearray(imagecodecs.jpegxr_encode(pixels))
    mark = data.find(_24_BIT_BGR[:-1])
    data[mark : mark + 16] = _24_BIT_BGR
    return bytes(data)


def _entry(at: int, tile: Tile, compression: int, mosaic: int) -> bytes:
    x, y, down, pixels = tile
    height, width = pixels.shape[:2]
    sizes = (b"X", x, width * down, width), (b"Y", y, height * down, height), (b"C", 0, 1, 1), (b"S", 0, 1, 1)
    dimensions = b"".join(struct.pack("<4siifi", name, start, size, start, kept) for name, start, size, kept in sizes)
    dimensions += struct.pack("<4siifi", b"M", mosaic, 1, mosaic, 1)
    kind = BGR24 if pixels.ndim == 3 else GRAY16
    return struct.pack("<2siqiiB5xi", b"DV", kind, at, 0, compression, 2 * (down > 1), 5) + dimensions


def write_czi(path: Path, tiles: list[Tile], mpp: float | None = 0.25, compression: int = UNCOMPRESSED) -> Path:
    """Write ``tiles``: RGB of 8 bit, or grey of 16 bit."""
    body, entries = b"", []
    for mosaic, tile in enumerate(tiles):
        data, at = _encoded(tile[3], compression), 544 + len(body)
        entries.append(_entry(at, tile, compression, mosaic))
        head = struct.pack("<iiq", 0, 0, len(data)) + entries[-1]
        body += _segment(b"ZISRAWSUBBLOCK", head + bytes(max(0, 256 - len(head))) + data)
    width = max(x + p.shape[1] * d for x, _, d, p in tiles)
    height = max(y + p.shape[0] * d for _, y, d, p in tiles)
    distances = "" if mpp is None else "".join(
        f'<Distance Id="{axis}"><Value>{mpp * 1e-6:g}</Value></Distance>' for axis in "XY"
    )  # fmt: skip
    kind = "Bgr24" if tiles[0][3].ndim == 3 else "Gray16"
    xml = (
        "<ImageDocument><Metadata><Information><User><DisplayName>Dr Doe</DisplayName></User>"
        "<Document><Title>Jane Doe 1950</Title></Document>"
        f"<Image><PixelType>{kind}</PixelType><SizeX>{width}</SizeX><SizeY>{height}</SizeY><SizeC>1</SizeC><SizeS>1"
        f"</SizeS><SizeM>{len(tiles)}</SizeM><Dimensions><Channels><Channel Id='Channel:0' Name='TL'><PixelType>{kind}"
        "</PixelType></Channel></Channels></Dimensions></Image><Instrument><Objectives><Objective>"
        "<NominalMagnification>40</NominalMagnification></Objective></Objectives></Instrument></Information>"
        f"<Scaling><Items>{distances}</Items></Scaling><DisplaySetting><Channels><Channel Id='Channel:0' Name='TL'/>"
        "</Channels></DisplaySetting></Metadata></ImageDocument>"
    ).encode()
    metadata = _segment(b"ZISRAWMETADATA", struct.pack("<ii248x", len(xml), 0) + xml)
    directory = _segment(b"ZISRAWDIRECTORY", struct.pack("<i124x", len(entries)) + b"".join(entries))
    attachments = _segment(b"ZISRAWATTDIR", bytes(256))
    at_metadata = 544 + len(body)
    at_directory = at_metadata + len(metadata)
    at_attachments = at_directory + len(directory)
    file = struct.pack("<4i16x16xiqqiq", 1, 0, 0, 0, 0, at_directory, at_metadata, 0, at_attachments)
    parts = _segment(b"ZISRAWFILE", file.ljust(512, b"\0")), body, metadata, directory, attachments
    path.write_bytes(b"".join(parts))
    return path


def pyramid_of(pixels: np.ndarray, side: int = 256, levels: int = 2) -> list[Tile]:
    """Tiles of a picture and of its smaller copies, whose pixels are every second one."""
    return [
        (x * 2**n, y * 2**n, 2**n, np.ascontiguousarray(small[y : y + side, x : x + side]))
        for n, small in enumerate(pixels[:: 2**n, :: 2**n] for n in range(levels))
        for y in range(0, small.shape[0], side)
        for x in range(0, small.shape[1], side)
    ]
