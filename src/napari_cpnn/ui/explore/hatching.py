"""Layer that hatches the patches of a map that are unlike the training tissue of the model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image
from napari.utils.colormaps import Colormap

from napari_cpnn.geometry import Grid
from napari_cpnn.painting import finer, paintable_pixels, unlike_patches
from napari_cpnn.ui.explore.placing import keep_above, place_above
from napari_cpnn.ui.layers import OVERLAY_KEY, add_beside, set_visible
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide

#: Pixels of a patch along each side, and the most bytes of such a picture: lines are fine on small maps only.
_PIXELS = {128: 8e6, 64: 8e6, 32: 64e6, 16: 64e6, 8: 64e6, 4: 64e6, 2: 64e6}

#: Least interval in s between two pictures while the map fills.
_INTERVAL = 0.5

_NAME = "Unlike the training tissue"
_COLORS = Colormap([[0.0, 0.0, 0.0, 0.0], [0.15, 0.15, 0.15, 0.9]], name="cpnn hatching")


class Hatching:
    """The hatching of a viewer, kept up to date with its state; the layer is added when something is hatched."""

    def __init__(self, viewer: ViewerModel, state: ExploreState) -> None:
        self._viewer, self._state = viewer, state
        self._drawn: tuple[CompositionMap, int] | None = None
        self._marked: npt.NDArray[np.bool_] | None = None
        self._allowed: tuple[CompositionMap, Slide | None, npt.NDArray[np.bool_]] | None = None
        self._placed: CompositionMap | None = None
        self._next = 0.0
        self._due = False  # whether the layer is new
        self.layer: Image | None = None

    @property
    def grid(self) -> Grid | None:
        """Grid of the layer's pixels."""
        cmap = self._state.map
        if cmap is None:
            return None
        return finer(cmap.grid, _pixels(cmap))

    def is_current(self) -> bool:
        """Return whether the present state of the map is hatched."""
        cmap = self._state.map
        return cmap is None or not self._is_wanted() or (self._drawn == (cmap, cmap.revision) and not self._due)

    def update(self, *, at_once: bool = False) -> bool:
        """Draw what has changed; return whether there is a layer or map that is new, to be placed and added."""
        cmap = self._state.map
        if cmap is None or not self._is_wanted():
            if self.layer is not None:
                set_visible(self.layer, False)
            self._drawn = None
            return False
        now = time.monotonic()
        if self._drawn == (cmap, cmap.revision) or (not at_once and (now < self._next or self._state.awaits_picture)):
            return False  # a layer more takes time, which the first picture of a view should not wait for
        self._next = now + _INTERVAL
        self._drawn = (cmap, cmap.revision)
        marked = unlike_patches(cmap)
        if not marked.any() and (self.layer is None or self._marked is None):
            return False
        if self.layer is not None and self._marked is not None and np.array_equal(marked, self._marked):
            set_visible(self.layer, True)
            return False
        self._marked = marked
        picture = self._hatched(marked, cmap)
        is_of_new_map, self._placed = self._placed is not cmap, cmap
        if self.layer is not None:
            self.layer.data = picture
            set_visible(self.layer, True)
            return is_of_new_map
        self.layer, self._due = hatching_of(picture), True
        self.layer.visible = False
        return True

    def show_due(self) -> bool:
        """Add a new layer, or show it when it is there, and return whether either was due: napari is slow at both."""
        if not self._due or self.layer is None or not self._is_wanted():
            return False
        if self.layer in self._viewer.layers:
            self.layer.visible, self._due = True, False
            return True
        add_beside(self._viewer, self.layer, place_above(self._viewer, Image))
        self.keep_above_overlays()
        return True

    def keep_above_overlays(self) -> None:
        """Move the layer right above the overlays, below measured spots and outlines."""
        keep_above(self._viewer, self.layer, Image)

    def put_away(self) -> None:
        """Hide the layer until there is another map."""
        self._drawn = self._marked = self._allowed = self._placed = None
        if self._due:
            self.remove()
        elif self.layer is not None and self.layer.visible:
            self.layer.visible = False

    def remove(self) -> None:
        """Remove the layer."""
        layer, self.layer, self._due = self.layer, None, False
        self._drawn = self._marked = self._allowed = self._placed = None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def forget(self, layer: Layer | Any) -> None:
        """Forget the layer if the user has removed it; it comes back with the next map."""
        if layer is self.layer:
            self.layer, self._due = None, False

    def _hatched(self, marked: npt.NDArray[np.bool_], cmap: CompositionMap) -> npt.NDArray[np.uint8]:
        """Return the picture, clipped to slide and tissue."""
        n, slide = _pixels(cmap), self._state.slide
        if self._allowed is None or self._allowed[:2] != (cmap, slide):
            self._allowed = cmap, slide, paintable_pixels(cmap, n, slide)
        return _hatched(marked, n) * self._allowed[2]

    def _is_wanted(self) -> bool:
        is_map_on_screen = self._state.shown is not None and not self._state.instead
        return self._state.look.unlike == "hatched" and is_map_on_screen


def hatching_of(picture: npt.NDArray[np.uint8]) -> Image:
    """Return a layer that is dark where a picture is 1."""
    return Image(
        picture,
        rgb=False,
        multiscale=False,
        contrast_limits=(0, 1),
        colormap=_COLORS,
        interpolation2d="nearest",
        blending="translucent_no_depth",
        cache=False,
        name=_NAME,
        metadata={OVERLAY_KEY: True},
    )


def _pixels(cmap: CompositionMap) -> int:
    return next((n for n, most in _PIXELS.items() if cmap.grid.n_cells * n * n <= most), 1)


def _hatched(marked: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.uint8]:
    """Picture of ``n x n`` pixels per patch with diagonal lines, continuous from patch to patch, over marked ones."""
    period, width = max(n // 2, min(n, 4)), max(1, n // 16)
    across = np.arange(n)[:, None] + np.arange(n)
    return np.asarray(np.kron(marked.astype(np.uint8), (across % period < width).astype(np.uint8)))
