"""Image orientation: pixels are used as stored.

A TIFF or EXIF tag says how an image should be rotated or mirrored for display. OpenSlide, Bio-Formats and therefore
QuPath, tifffile and napari ignore it. So does this package, for every backend, since positions of spots and outlines
from those programs refer to pixels as stored. The user is notified.
"""

from __future__ import annotations

_HOW = {
    2: "mirrored",
    3: "upside down",
    4: "mirrored, upside down",
    5: "mirrored and rotated",
    6: "rotated by 90 degrees",
    7: "mirrored and rotated",
    8: "rotated by 90 degrees",
}


def as_orientation(value: object) -> int:
    """Return the value of the tag as 1 to 8; anything else (0 occurs in practice) means upright."""
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return 1
    return number if number in _HOW else 1


def orientation_notice(orientation: int, what: object) -> str | None:
    """Return a notice for files that are not stored upright, else ``None``."""
    how = _HOW.get(orientation)
    if how is None:
        return None
    return (
        f"{what} is stored {how} (orientation {orientation}); it is shown as stored, like in OpenSlide "
        "and QuPath, so that positions are the same everywhere."
    )
