"""Validate the chain of pages of a TIFF before a library follows it, possibly in an endless loop."""

from __future__ import annotations

import struct
from pathlib import Path

from napari_cpnn.errors import SlideError

#: Maximum number of pages and planes of a file; traversing them takes a second.
_MOST_PAGES = 200_000


def require_sound_chain(path: Path) -> None:
    """Raise an error for a TIFF whose page chain has a loop or an implausible number of pages.

    Chains that end early, and other problems that libraries detect at once, are ignored here.
    """
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        n_format, tag_bytes, offset_format = (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
        seen: set[int] = set()
        try:
            (offset,) = struct.unpack_from(offset_format, head, 8 if big else 4)
            while offset:
                if offset in seen:
                    raise SlideError(f"{path} is damaged: its chain of pages has a loop.")
                if len(seen) == _MOST_PAGES:
                    raise SlideError(f"{path} has more than {_MOST_PAGES:,} pages, which no slide has; it is damaged.")
                seen.add(offset)
                file.seek(offset)
                (n_tags,) = struct.unpack(n_format, file.read(struct.calcsize(n_format)))
                file.seek(offset + struct.calcsize(n_format) + n_tags * tag_bytes)
                (offset,) = struct.unpack(offset_format, file.read(struct.calcsize(offset_format)))
        except (struct.error, OverflowError, OSError, ValueError):
            return
