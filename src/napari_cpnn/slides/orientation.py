"""The rule of orientation: pixels count as they are stored.

TIFF and EXIF have a tag that says how a picture should be turned or mirrored for the eye. OpenSlide, Bio-Formats and
so QuPath, tifffile and napari do not apply it. Neither do we, whatever reads the file, since positions of spots and
outlines from those programs count in pixels as they are stored. Who opens such a file is told.
"""

from __future__ import annotations

_HOW = {
    2: "mirrored",
    3: "upside down",
    4: "mirrored, upside down",
    5: "mirrored and turned",
    6: "turned by 90 degrees",
    7: "mirrored and turned",
    8: "turned by 90 degrees",
}


def as_orientation(value: object) -> int:
    """A tag's value as 1 to 8; anything else (0 is met in the wild) counts as upright."""
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return 1
    return number if number in _HOW else 1


def orientation_notice(orientation: int, what: object) -> str | None:
    """What the user is told of a file that is not stored upright; ``None`` for one that is."""
    how = _HOW.get(orientation)
    if how is None:
        return None
    return (
        f"{what} says that it is stored {how} (orientation {orientation}); it is shown as it is stored, as OpenSlide "
        "and QuPath show it, so that positions mean the same everywhere."
    )
