"""Verdict on the tissue in view: is it like that of the training, and if not, why? No Qt here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.mapping import DomainReport, domain_report
from napari_cpnn.painting import unlike_patches
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari_cpnn.mapping import Viewport
    from napari_cpnn.ui.frame import Background

#: Unlike patches that are read to find out why they are unlike.
_N_READ = 32


class Verdict:
    """Domain report of the tissue in view, computed again only when map or view have changed.

    Parameters
    ----------
    state
        State of the viewer.
    background
        Runs the reading of patches; see :class:`~napari_cpnn.ui.frame.tasks.Tasks`.
    """

    def __init__(self, state: ExploreState, background: Background) -> None:
        self._state, self._background = state, background
        self._known: tuple[Any, DomainReport] = (None, domain_report(np.empty(0)))
        self._asked: Any = None
        self._reasons: list[str] = []

    def report(self, viewport: Viewport | None) -> DomainReport:
        """Return the share of the tissue in view that is unlike that of the training."""
        cmap, model = self._state.map, self._state.model
        key = (id(cmap), None if cmap is None else cmap.revision, id(model), viewport)
        if self._known[0] != key:
            report = domain_report(np.empty(0))
            if cmap is not None:
                report = cmap.domain_report(None if viewport is None else viewport.rect)
            self._known = (key, report)
        return self._known[1]

    def text(self, viewport: Viewport | None) -> str:
        """Return the warning with its reasons, as far as they are known by now; empty if there is none."""
        warning = self.report(viewport).warning
        if not warning:
            return ""
        self._ask(viewport)
        if not self._reasons:
            return warning
        return f"{warning} Perhaps it is another kind of tissue; or {', and '.join(self._reasons)}."

    def _ask(self, viewport: Viewport | None) -> None:
        """Read some of the unlike patches in view, once per map and model, to find out why."""
        cmap, model, slide = self._state.map, self._state.model, self._state.slide
        key = (id(cmap), id(model))
        if cmap is None or model is None or slide is None or self._asked == key:
            return
        domain = model.provenance.get("domain")
        ordinary = domain.get("appearance") if isinstance(domain, dict) else None
        if not isinstance(ordinary, dict):
            return
        self._asked, self._reasons = key, []
        window = (slice(None), slice(None)) if viewport is None else cmap.grid.window(viewport.rect)
        inside = np.zeros(cmap.grid.shape, dtype=bool)
        inside[window] = True
        places = np.argwhere(unlike_patches(cmap) & inside)
        chosen = places[np.unique(np.linspace(0, len(places) - 1, _N_READ).astype(int))] if len(places) else places
        centers, spec = cmap.grid.centers_um(chosen), model.patch

        def read() -> list[str]:
            from napari_cpnn.prediction import reasons_unlike
            from napari_cpnn.slides import PatchReader

            images, ok = PatchReader(slide, spec).read(centers)
            return reasons_unlike(images[ok], ordinary)

        def tell(reasons: list[str]) -> None:
            if self._asked == key:
                self._reasons = reasons

        self._background(read, tell, _ignore)


def _ignore(_error: Exception) -> None:
    """Leave the reasons open: the warning itself stands."""
