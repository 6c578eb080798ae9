"""Clicks on the canvas, told from drags. No Qt here."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

#: Pixels of the screen that the mouse may move between press and release of a click.
_DRAG_PX = 5


def is_click(event: Any) -> Generator[None, None, bool]:
    """Wait in a mouse callback of napari until the button is released; return whether it was a click, not a drag.

    ``if (yield from is_click(event)): ...``
    """
    start = event.pos
    yield
    while event.type == "mouse_move":
        if max(abs(event.pos - start)) > _DRAG_PX:
            return False
        yield
    return True
