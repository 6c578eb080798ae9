"""What is in memory for long is left out of Python's garbage collection while a dock is open. No Qt here."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet


class LongLived:
    """Keeps the garbage collector from walking through everything that is there already.

    napari collects all garbage whenever a layer is removed. After PyTorch, SciPy and napari are loaded that walks
    through about a million objects, which holds the window for a quarter to half a second; nearly all of them live as
    long as the program. What is held is not collected as garbage until it is released, although it is freed as ever
    when nothing refers to it. A layer that was removed is never held, else its pixels would stay in memory: if it was
    held before, all is released, and nothing is held until it is gone.
    """

    def __init__(self) -> None:
        self._held: WeakSet[Any] = WeakSet()
        self._removed: WeakSet[Any] = WeakSet()
        self._is_wanted = False

    @property
    def is_held(self) -> bool:
        """Whether objects are held."""
        return self._is_wanted and gc.get_freeze_count() > 0

    def hold(self, layers: Iterable[Any]) -> bool:
        """Hold all objects of now, among them the layers of a viewer; return whether they are held.

        They are not while a layer that was removed is still in memory: try again later.
        """
        self._is_wanted = True
        if len(self._removed) and gc.get_freeze_count():
            gc.collect()  # quick, since most objects are held
            self._removed.clear()  # somebody still uses those that are left
        if len(self._removed):
            return False
        gc.collect(1)  # the youngest objects, which is quick
        self._held.update(map(_inside, layers))
        gc.freeze()
        return True

    def layer_removed(self, layer: Any) -> None:
        """Let a layer be collected that was removed from its viewer."""
        layer = _inside(layer)
        self._removed.add(layer)
        if self._is_wanted and layer in self._held:
            self._held.discard(layer)
            gc.unfreeze()

    def release(self) -> None:
        """Hold nothing any more."""
        if self._is_wanted:
            self._is_wanted = False
            self._held.clear()
            gc.unfreeze()


def _inside(layer: Any) -> Any:
    """Return a layer without the proxy that napari hands to plugins."""
    return getattr(layer, "__wrapped__", layer)
