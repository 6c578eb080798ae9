"""Picture of the tissue in view with another quantity over it, from which the lens is cut out. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn import painting
from napari_cpnn.arrays import Picture
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.painting import Look, Shown

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide

#: Most pixels along a side, and share of the view that is added around it.
_MOST_PX, _AROUND = 2400, 0.1
_RING_PX = 2.0
_RING, _EDGE = (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True, eq=False)
class LensPicture:
    """A picture ``(rows, cols, 3)`` uint8 of a part of a slide, with square pixels of a size in um."""

    pixels: Picture
    origin_um: tuple[float, float]
    um_per_px: float

    def cut(self, um: tuple[float, float], mask: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> Grid:
        """Cut a circle around a place out of the picture.

        Parameters
        ----------
        um
            Slide um ``(y, x)`` of its centre.
        mask
            ``(n, n)`` alpha of the circle, see :func:`circle`.
        out
            ``(n, n, 4)`` uint8, written in place; transparent outside the picture.

        Returns
        -------
        Grid
            Where ``out`` lies on the slide.
        """
        n = len(mask)
        top, left = (round((at - o) / self.um_per_px - n / 2) for at, o in zip(um, self.origin_um, strict=True))
        rows, cols = self.pixels.shape[:2]
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + n, rows), min(left + n, cols)
        out[..., 3] = 0
        if y1 > y0 and x1 > x0:
            here = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
            out[here][..., :3] = self.pixels[y0:y1, x0:x1]
            out[here][..., 3] = mask[here]
        out[_ring(n, _RING_PX), :3] = _RING
        out[_ring(n, 0.5), :3] = _EDGE
        corner = (self.origin_um[0] + top * self.um_per_px, self.origin_um[1] + left * self.um_per_px)
        return Grid((n, n), self.um_per_px, corner)


def circle(n: int) -> npt.NDArray[np.uint8]:
    """Return the alpha ``(n, n)`` of a circle with a smooth edge."""
    return np.asarray(np.rint(255 * np.clip(n / 2 - _distance(n), 0, 1)), dtype=np.uint8)


def _ring(n: int, inside_px: float) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(n / 2 - inside_px - _distance(n)) <= inside_px / 2 + 0.5)


def _distance(n: int) -> npt.NDArray[np.float64]:
    at = np.arange(n) + 0.5 - n / 2
    return np.asarray(np.hypot(at[:, None], at))


def picture_of(
    slide: Slide, rect: Rect, px_per_um: float, cmap: CompositionMap | None, shown: Shown | None, look: Look
) -> LensPicture:
    """Return the tissue of a view, with a quantity of the map over it.

    Parameters
    ----------
    slide
        A slide with a pixel size.
    rect, px_per_um
        The view in slide um, and its zoom.
    cmap, shown
        Map and quantity; without one of them the tissue alone.
    look
        Appearance of the quantity, which does not fade.
    """
    assert slide.mpp is not None  # noqa: S101
    rect = rect.grown(_AROUND * max(rect.height, rect.width))
    step = max(1 / px_per_um, max(rect.height, rect.width) / _MOST_PX)
    rows, cols = (max(2, round(side / step)) for side in (rect.height, rect.width))
    rect = Rect(rect.y0, rect.x0, rect.y0 + rows * step, rect.x0 + cols * step)
    pixels = painting.tissue_picture(slide, slide.mpp, rect, (rows, cols))
    if cmap is not None and shown is not None:
        painter = painting.Painter(cmap.tissue)
        painting.catch_up(painter, cmap)
        low, high = painting.paint(painter, cmap, shown, look, painting.auto_range(shown))
        smooth = look.is_smooth(shown)
        rgba = painter.extended() if smooth else painter.rgba.copy()
        rgba[..., :3] = (rgba[..., :3] - low) / max(high - low, 1e-12)
        y, x = (
            np.asarray(o + (np.arange(n) + 0.5) * step, dtype=np.float64) for o, n in ((rect.y0, rows), (rect.x0, cols))
        )
        mask = painting.paintable(cmap.grid, y, x, slide, slide.mpp, cmap.tissue_mask)
        mask &= painting.on_patches(painter.covered, cmap.grid, y, x)
        painting.lay_over(pixels, rgba, cmap.grid, rect, look.opacity, smooth=smooth, mask=mask)
    return LensPicture(pixels, (rect.y0, rect.x0), step)
