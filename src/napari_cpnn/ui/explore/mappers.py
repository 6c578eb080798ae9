"""Live mappers of a dock: made beside the event loop, at work at once, stopped when nobody wants them. No Qt here."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_cpnn.slides import find_tissue

if TYPE_CHECKING:
    from napari_cpnn.mapping import LiveMapper, Viewport
    from napari_cpnn.models import CPNN
    from napari_cpnn.settings import MappingSettings, TissueSettings
    from napari_cpnn.slides import Slide, TissueMask
    from napari_cpnn.ui.frame import Background

NICENESS = 5
"""Niceness of mapping threads, so that panning stays smooth on a CPU whose cores are all used for mapping."""


class Mappers:
    """Makes and stops mappers.

    Parameters
    ----------
    background
        Runs what takes time, and is waited for when the program ends.
    """

    def __init__(self, background: Background) -> None:
        self._background = background
        self._lock = threading.Lock()
        self._tissue: tuple[weakref.ref[Slide], TissueSettings, TissueMask] | None = None
        self._at_work: set[LiveMapper] = set()
        self._closed = False

    def find_tissue(self, slide: Slide, settings: TissueSettings) -> None:
        """Find the tissue of a slide while something else is awaited; what is wrong with it is told by :meth:`make`."""
        self._background(lambda: self._tissue_of(slide, settings), lambda _: None, lambda _: None)

    def make(
        self, slide: Slide, model: CPNN, settings: MappingSettings, view: Callable[[], Viewport | None] | None
    ) -> LiveMapper:
        """Return a mapper that maps the view already, or waits if there is no function for it; takes a second."""
        from napari_cpnn.mapping import LiveMapper  # torch

        mapper = LiveMapper(slide, model, settings, tissue=self._tissue_of(slide, settings.tissue))
        mapper.nice = NICENESS
        self._at_work.add(mapper)
        if view is not None and not self._closed:  # here, since threads take their time to start
            mapper.set_viewport(view())
        return mapper

    def stop(self, mapper: LiveMapper) -> None:
        """Stop a mapper, which waits for the current batch and writes the cache."""
        self._at_work.discard(mapper)
        self._background(mapper.stop, lambda _: None, _raise)

    def close(self) -> None:
        """Stop all, those included that have not been handed over yet."""
        self._closed = True
        for mapper in tuple(self._at_work):
            self.stop(mapper)

    def _tissue_of(self, slide: Slide, settings: TissueSettings) -> TissueMask:
        """Find the tissue once for the last slide; one thread searches, and others wait for it."""
        with self._lock:
            if self._tissue is None or self._tissue[0]() is not slide or self._tissue[1] != settings:
                self._tissue = (weakref.ref(slide), settings, find_tissue(slide, settings))
            return self._tissue[2]


def _raise(error: Any) -> None:
    raise error
