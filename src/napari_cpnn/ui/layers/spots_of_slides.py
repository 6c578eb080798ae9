"""Measured spots are hidden with their slide, and come back with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet, ref

from napari_cpnn.ui.layers.spot_tables import SPOTS_KEY, TABLE_KEY

if TYPE_CHECKING:
    from napari.layers import Layer


class SpotsOfSlides:
    """Which layers of spots lie over which slide; spots that the user has hidden stay hidden."""

    def __init__(self) -> None:
        self._slides: WeakKeyDictionary[Layer, ref[Layer]] = WeakKeyDictionary()
        self._hidden: WeakSet[Layer] = WeakSet()

    def added(self, layer: Layer, slide: Layer | None) -> None:
        """Take note of a new layer, and of the slide on screen; layers of other kinds are left alone."""
        if slide is not None and slide.visible and {SPOTS_KEY, TABLE_KEY} & set(layer.metadata):
            self._slides[layer] = ref(slide)

    def follow(self, slide: Layer, layers: Iterable[Layer]) -> None:
        """Hide the spots of a slide that was hidden, and show those that were hidden with one that is shown again."""
        for layer in layers:
            mine = self._slides.get(layer)
            if mine is None or mine() != slide:
                continue
            if not slide.visible and layer.visible:
                self._hidden.add(layer)
                layer.visible = False
            elif slide.visible and layer in self._hidden:
                self._hidden.discard(layer)
                layer.visible = True
