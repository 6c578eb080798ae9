"""Tissue of a slide, found once: while a model is being loaded, and not again for the next one. No Qt here."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from napari_cpnn.slides import find_tissue

if TYPE_CHECKING:
    from napari_cpnn.settings import TissueSettings
    from napari_cpnn.slides import Slide, TissueMask


class FoundTissue:
    """Remembers the tissue of the last slide; callable from several threads, of which one searches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[weakref.ref[Slide], TissueSettings, TissueMask] | None = None

    def of(self, slide: Slide, settings: TissueSettings) -> TissueMask:
        """Return the tissue of a slide; errors as of :func:`~napari_cpnn.slides.find_tissue`."""
        with self._lock:
            if self._known is None or self._known[0]() is not slide or self._known[1] != settings:
                self._known = (weakref.ref(slide), settings, find_tissue(slide, settings))
            return self._known[2]
