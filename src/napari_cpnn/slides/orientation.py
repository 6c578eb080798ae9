"""TIFF and EXIF orientation: a source that is stored turned or mirrored, shown upright."""

from __future__ import annotations

from dataclasses import replace

from napari_cpnn.slides.backends.base import Pixels, Source

# orientation: (transpose, then flip rows, then flip columns); TIFF 6.0 specification, tag 274
_MOVES = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def upright(source: Source) -> Source:
    """``source`` with its orientation applied; itself when it is upright already."""
    return source if source.info.orientation == 1 else _Upright(source)


def as_orientation(value: object) -> int:
    """A tag's value as 1 to 8; anything else (0 is met in the wild) counts as upright."""
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return 1
    return number if number in _MOVES else 1


class _Upright:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._transpose, self._flip_y, self._flip_x = _MOVES[source.info.orientation]
        info = source.info
        if self._transpose:
            info = replace(
                info,
                level_shapes=tuple((w, h) for h, w in info.level_shapes),
                pixel_sizes=tuple((where, (mpp[1], mpp[0])) for where, mpp in info.pixel_sizes),
            )
        self.info = replace(info, orientation=1)

    def _stored_box(self, level: int, y: int, x: int, height: int, width: int) -> tuple[int, int, int, int]:
        rows, cols = self.info.level_shapes[level]
        if self._flip_y:
            y = rows - y - height
        if self._flip_x:
            x = cols - x - width
        return (x, y, width, height) if self._transpose else (y, x, height, width)

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        pixels = self._source.read(level, *self._stored_box(level, y, x, height, width))
        if self._transpose:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self._flip_y else 1, :: -1 if self._flip_x else 1]

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:
        return self._source.is_blank(level, *self._stored_box(level, y, x, height, width))

    def close(self) -> None:
        self._source.close()
