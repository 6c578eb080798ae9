"""The open pyramid of a slide, shared by its copies and re-opened after unpickling."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends import open_source
from napari_cpnn.slides.backends.arrays import ArraySource
from napari_cpnn.slides.pyramid import Pyramid


class Handles:
    """Open pyramid shared by a slide and its copies; opened when first needed, also after unpickling.

    Parameters
    ----------
    path
        The file or folder, if there is one.
    backend
        Name of the library that reads it.
    pyramid
        The open pyramid.
    address
        Where it is read from, if that is a server.
    """

    def __init__(self, path: Path | None, backend: str, pyramid: Pyramid, address: str | None = None) -> None:
        self.path = path
        self.address = address
        self.backend = backend
        self._pyramid: Pyramid | None = pyramid
        self._lock = threading.Lock()
        self._closed = self._warned = False

    def pyramid(self) -> Pyramid:
        pyramid = self._pyramid
        if pyramid is not None:
            return pyramid
        with self._lock:
            if self._closed:
                raise SlideError(f"The slide {self.address or self.path} has been closed; open it again.")
            if self._pyramid is None:
                place = self.address or self.path
                if place is None:
                    raise SlideError("A slide made from arrays has lost them; create it again.")
                self._pyramid = Pyramid(open_source(place, self.backend)[1], place)
            return self._pyramid

    def first_damage(self) -> bool:
        """Return True once, after a place was found to be unreadable."""
        if self._warned or self._pyramid is None or not self._pyramid.is_damaged:
            return False
        with self._lock:
            first, self._warned = not self._warned, True
            return first

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._pyramid is not None:
                self._pyramid.close()
                self._pyramid = None

    def __getstate__(self) -> dict[str, Any]:
        in_memory = self.backend == ArraySource.backend
        return {
            "path": self.path,
            "address": self.address,
            "backend": self.backend,
            "source": self.pyramid().source if in_memory else None,
            "closed": self._closed,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.address, self.backend = state["path"], state["address"], state["backend"]
        self._closed = state["closed"]
        self._lock = threading.Lock()
        self._warned = False
        self._pyramid = None if state["source"] is None else Pyramid(state["source"])
