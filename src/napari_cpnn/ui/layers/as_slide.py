"""RGB pictures that are no slide layer as they are: three channel layers, decimal numbers, planes of a stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from napari_cpnn.errors import SlideError
from napari_cpnn.slides import Slide
from napari_cpnn.texts import shown
from napari_cpnn.ui.frame import plain
from napari_cpnn.ui.layers.slide_layers import (
    BINS_KEY,
    LARGEST_TEXTURE,
    OVERLAY_KEY,
    SMALL_KEY,
    as_dask,
    is_slide_layer,
    level_arrays,
    map_colors,
    over_white,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.ui.layers.reader import LayerData

_CHANNELS = ("red", "green", "blue")
_SAMPLE = 1000
#: A slide in transmitted light is bright; the median of a fluorescence image is far below this share of its range.
_BRIGHT = 0.25


@dataclass(frozen=True)
class Picture:
    """An RGB picture in one layer, or in three of one channel each.

    Parameters
    ----------
    layers
        One RGB layer, or those of red, green and blue.
    plane
        Index of the plane on screen, of the axes before rows and columns.
    """

    layers: tuple[Layer, ...]
    plane: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Name for the layer of the slide."""
        name = " + ".join(shown(layer.name, 40) for layer in self.layers)
        planes = level_arrays(self.layers[0])[0].shape[: len(self.plane)]
        several = [f"{i + 1} of {n}" for i, n in zip(self.plane, planes, strict=True) if n > 1]
        return f"{name} (plane {', '.join(several)})" if several else f"{name} (slide)"

    def read(self) -> LayerData:
        """Return the layer of the slide; looks at some pixels, so call it in a worker thread.

        Raises
        ------
        SlideError
            When the numbers are not colours from 0 to 1 or from 0 to 255, or the channels are of fluorescence.
        """
        levels = [self._level(i) for i in range(len(level_arrays(self.layers[0])))]
        high, median = _range(levels[-1])
        what = plain(self.name)
        if levels[0].dtype == np.uint8 or 1 < high <= 255:
            full = 255.0
        elif high <= 1:
            full = 1.0
        else:
            raise SlideError(f"{what} has values up to {high:.4g}: Explore takes colours from 0 to 1 or from 0 to 255.")
        if len(self.layers) > 1 and median < _BRIGHT * full:
            raise SlideError(f"{what} is dark where there is no tissue, as fluorescence is: Explore takes H&E only.")
        first = self.layers[0]
        keywords = {
            "name": what,
            "rgb": True,
            "multiscale": True,
            "contrast_limits": (0, 255),
            "cache": False,
            "scale": first.scale[-2:],
            "translate": first.translate[-2:],
            "units": first.units[-2:],
            "metadata": {},
        }
        made: list[Any] = [_bytes(level, full) for level in levels]
        if max(made[-1].shape[:2]) > LARGEST_TEXTURE:
            made = Slide.from_arrays(made, None, name=what).levels  # with smaller copies
        return made, keywords, "image"

    def _level(self, i: int) -> da.Array:
        parts: list[da.Array] = [as_dask(level_arrays(layer)[i])[self.plane] for layer in self.layers]
        if len(parts) == 1:
            return parts[0]
        stacked: da.Array = da.stack(parts, axis=-1)  # type: ignore[no-untyped-call]
        return stacked.rechunk({2: 3})  # type: ignore[no-untyped-call,no-any-return]


def picture_in(viewer: ViewerModel) -> Picture | None:
    """Return the topmost visible RGB picture of a viewer that is no slide layer; ``None`` if there is none."""
    images = [layer for layer in reversed(viewer.layers) if _is_image(layer)]
    for layer in images:
        if layer.rgb and not is_slide_layer(layer):
            return Picture((layer,), _plane(viewer, layer))
    by_color = {layer.colormap.name: layer for layer in reversed(images) if not layer.rgb}
    channels = tuple(by_color[name] for name in _CHANNELS if name in by_color)
    if len(channels) == len(_CHANNELS) and len({_frame(layer) for layer in channels}) == 1:
        return Picture(channels, _plane(viewer, channels[0]))
    return None


def why_no_slide(viewer: ViewerModel) -> str:
    """Return why no layer of a viewer can be explored, in one sentence; empty if there are no pictures."""
    images = [layer for layer in reversed(viewer.layers) if _is_image(layer)]
    if not images:
        return ""
    if len(images) >= len(_CHANNELS):
        return (
            f"{plain(shown(images[0].name, 40))} and the other layers are grey: to take three of them as one slide, "
            "give them the colour maps red, green and blue, and the same size."
        )
    return f"{plain(shown(images[0].name, 40))} has no colours: Explore needs an RGB picture of an H&E slide."


def _is_image(layer: Layer) -> bool:
    is_ours = {OVERLAY_KEY, SMALL_KEY, BINS_KEY} & set(layer.metadata)
    return bool(layer.visible and hasattr(layer, "rgb") and layer.ndim >= 2 and not is_ours)


def _frame(layer: Layer) -> tuple[Any, ...]:
    return (tuple(level_arrays(layer)[0].shape), tuple(layer.scale), tuple(layer.translate))


def _plane(viewer: ViewerModel, layer: Layer) -> tuple[int, ...]:
    """Return the indices of the plane on screen."""
    n = layer.ndim - 2
    here = np.asarray(layer.world_to_data(np.asarray(viewer.dims.point)[-layer.ndim :]))[:n]
    shape = level_arrays(layer)[0].shape[:n]
    return tuple(int(np.clip(round(float(at)), 0, size - 1)) for at, size in zip(here, shape, strict=True))


def _range(level: da.Array) -> tuple[float, float]:
    """Return maximum and median of some pixels of a level, without transparency."""
    step = max(1, -(-max(level.shape[:2]) // _SAMPLE))
    values = np.asarray(level[::step, ::step, :3], dtype=np.float32)
    values = values[np.isfinite(values)]
    return (float(values.max()), float(np.median(values))) if values.size else (0.0, 0.0)


def _bytes(level: da.Array, full: float) -> da.Array:
    """Return a level in ``(Y, X, 3)`` bytes; transparent and missing pixels are white."""

    def convert(block: Any) -> Any:
        values = np.nan_to_num(block.astype(np.float32) * (255.0 / full), nan=255.0)
        return np.rint(over_white(values).clip(0, 255)).astype(np.uint8)

    return map_colors(level, convert)
