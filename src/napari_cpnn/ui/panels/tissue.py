"""Pictures of the tissue in view, read in the background, one for all panels of a slide."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtGui import QImage

from napari_cpnn.geometry import Rect
from napari_cpnn.painting import tissue_picture

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Background

#: Margin that is read around the view, as a share of it, so that most drags need no further reading.
_MARGIN = 0.35
#: Longer side of the picture of the whole slide, which is shown until a sharp one is read.
_WHOLE_PX = 900


class Tissue:
    """Picture of a slide: sharp in view, coarse elsewhere. One reading at a time; the newest view is read next."""

    def __init__(self, slide: Slide, background: Background, changed: Callable[[], None]) -> None:
        self.slide, self._background, self._changed = slide, background, changed
        self.whole: tuple[QImage, Rect] | None = None
        self.sharp: tuple[QImage, Rect] | None = None
        self._px_per_um = 0.0
        self._wanted: tuple[Rect, float] | None = None
        self._reading = self._closed = False
        mpp = slide.mpp or (1.0, 1.0)
        self._all = Rect(0.0, 0.0, slide.shape[0] * mpp[0], slide.shape[1] * mpp[1])
        self.problem = ""

    @property
    def is_settled(self) -> bool:
        """True when nothing is being read."""
        return not self._reading and self._wanted is None

    def close(self) -> None:
        """Ignore what is still being read."""
        self._closed = True

    def want(self, rect: Rect, px_per_um: float) -> None:
        """Read a rectangle (slide um) at a resolution, unless it is there."""
        sharp = self.sharp
        if sharp is not None and self._px_per_um == px_per_um and _holds(sharp[1], _cut(rect, self._all)):
            self._wanted = None
            return
        self._wanted = rect, px_per_um
        self._next()

    def _next(self) -> None:
        if self._reading or self._closed or self._wanted is None:
            return
        slide, mpp, first = self.slide, self.slide.mpp, self.whole is None
        if mpp is None:
            return
        self._reading = True
        if first:
            scale = _WHOLE_PX / max(self._all.height, self._all.width)
            rect, px_per_um = self._all, scale
        else:
            (rect, px_per_um), self._wanted = self._wanted, None
            rect = _cut(rect.grown(_MARGIN * max(rect.height, rect.width)), self._all)
            if rect.height <= 0 or rect.width <= 0:
                self._reading = False
                return
        shape = max(1, round(rect.height * px_per_um)), max(1, round(rect.width * px_per_um))
        # Whole pixels of the screen: the picture is drawn without resampling.
        exact = Rect(rect.y0, rect.x0, rect.y0 + shape[0] / px_per_um, rect.x0 + shape[1] / px_per_um)

        def done(picture: npt.NDArray[np.uint8]) -> None:
            self._reading = False
            if self._closed:
                return
            found = image_of(picture), exact
            if first:
                self.whole = found
            else:
                self.sharp, self._px_per_um = found, px_per_um
            self._changed()
            self._next()

        def failed(error: Exception) -> None:
            self._reading, self._wanted = False, None
            self.problem = str(error)
            self._changed()

        self._background(lambda: tissue_picture(slide, mpp, exact, shape), done, failed)


def image_of(pixels: npt.NDArray[np.uint8]) -> QImage:
    """Return a copy of ``(rows, cols, 3)`` RGB or ``(rows, cols, 4)`` RGBA with premultiplied alpha as an image."""
    pixels = np.ascontiguousarray(pixels)
    rows, cols, channels = pixels.shape
    kind = QImage.Format.Format_RGB888 if channels == 3 else QImage.Format.Format_RGBA8888_Premultiplied
    image = QImage(pixels.tobytes(), cols, rows, channels * cols, kind)
    fast = QImage.Format.Format_RGB32 if channels == 3 else QImage.Format.Format_ARGB32_Premultiplied
    converted: QImage = image.convertToFormat(fast)  # a copy
    return converted


def _cut(rect: Rect, to: Rect) -> Rect:
    return Rect(max(rect.y0, to.y0), max(rect.x0, to.x0), min(rect.y1, to.y1), min(rect.x1, to.x1))


def _holds(outer: Rect, inner: Rect) -> bool:
    slack = 1e-6 * max(outer.height, outer.width)
    ys = outer.y0 - slack <= inner.y0 and inner.y1 <= outer.y1 + slack + 2 * outer.height * 1e-3
    return ys and outer.x0 - slack <= inner.x0 and inner.x1 <= outer.x1 + slack + 2 * outer.width * 1e-3
