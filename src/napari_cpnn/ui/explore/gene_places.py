"""Places where the gene on screen is high and low, kept up to date with map, gene and model. No Qt here."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from psygnal import Signal

from napari_cpnn.errors import CpnnError
from napari_cpnn.mapping import DONE
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap, MarkedPlaces
    from napari_cpnn.models import CPNN, Selection, Side
    from napari_cpnn.ui.frame import Background

Found: TypeAlias = "dict[Side, MarkedPlaces | str]"
"""For ``"high"`` and ``"low"``, the places of a gene, or why there are none."""

#: Least share of the tissue that must be mapped finely: an outline of coarse values would still change.
_LEAST_MAPPED = 0.9

#: Least interval in s between two searches while the map fills, and the share of the time that they may take.
_INTERVAL, _BUSY_SHARE = 0.5, 0.1


class GenePlaces:
    """Looks in the background where the gene on screen is high and low, again whenever the map has changed.

    The places that ``state.look`` outlines are marked on the map (``CompositionMap.marked``), for exports.

    Attributes
    ----------
    found
        Empty while it is not known.
    is_foreign
        The map is unlike the training tissue: nothing is outlined.
    """

    changed = Signal()

    def __init__(self, state: ExploreState, background: Background) -> None:
        self._state, self._background = state, background
        self.found: Found = {}
        self.is_foreign = False
        self._asked: tuple[CompositionMap, CPNN, str, float] | None = None
        self._revision = -1
        self._running = False
        self._next = 0.0
        self._hashed: _Hashed | None = None
        self._marked: tuple[CompositionMap, str] | None = None
        self._sources = [state.shown_changed, state.look_changed, state.mapper_changed, state.model_changed]
        for changed in self._sources:
            changed.connect(self._choice_changed)

    @property
    def is_asked(self) -> bool:
        """True if a gene is on screen, of a model that knows where some genes are high or low."""
        return self._asked is not None and self._asked[1].marks_places

    @property
    def outlined(self) -> MarkedPlaces | None:
        """The places to outline; None if there are none, or they are not known yet."""
        side = self._state.look.outline
        found = None if side == "none" else self.found.get(side)
        return None if isinstance(found, str) else found

    @property
    def note(self) -> str:
        """What is outlined, or why nothing is; empty if nothing is asked for."""
        side = self._state.look.outline
        found = "" if side == "none" else self.found.get(side, "")
        return found if isinstance(found, str) else found.note

    @property
    def is_current(self) -> bool:
        """True if the places belong to the present state of the map, or nothing is to be outlined."""
        if self._asked is None or self._state.look.outline == "none":
            return True
        return self._asked == self._question() and self._revision == self._asked[0].revision

    def reason(self, side: Side) -> str:
        """Return why a side cannot be outlined; empty if it can."""
        if self._asked is None:
            return "Show a gene to outline where it is high or low."
        found = self.found.get(side, "The places are not known yet.")
        return found if isinstance(found, str) else ""

    def update(self) -> None:
        """Look again if the map has changed; called a few times a second."""
        asked = self._question()
        if asked != self._asked:
            self._asked, self._revision, self._next, self.is_foreign = asked, -1, 0.0, False
            self._set({})
        now = time.monotonic()
        if asked is None or self._running or self._revision == asked[0].revision or now < self._next:
            return
        cmap, model, gene, fdr = asked
        revision = cmap.revision
        self._running = True

        def work() -> tuple[Found, bool]:
            if self._hashed is None or self._hashed.model is not model:
                self._hashed = _Hashed(model, model.fingerprint)
            return _find(cmap, self._hashed, gene, fdr)

        def done(result: tuple[Found, bool]) -> None:
            self._running = False
            end = time.monotonic()
            self._next = end + max(_INTERVAL, (end - now) * (1 / _BUSY_SHARE - 1))
            if asked == self._asked:
                self._revision, self.is_foreign = revision, result[1]
                self._set(result[0])
            if self._sources:
                self.update()

        self._background(work, done, lambda error: done(({"high": str(error), "low": str(error)}, False)))

    def close(self) -> None:
        """Ignore the result of a running search, and take the marks off the map."""
        for changed in self._sources:
            changed.disconnect(self._choice_changed, missing_ok=True)
        self._sources = []
        self._asked, self.found = None, {}
        self._mark()

    def _question(self) -> tuple[CompositionMap, CPNN, str, float] | None:
        cmap, model, shown = self._state.map, self._state.model, self._state.shown
        if cmap is None or model is None or shown is None or shown.kind != "gene" or shown.measure == "domain":
            return None
        return None if shown.gene not in cmap.genes else (cmap, model, shown.gene, self._state.look.fdr)

    def _choice_changed(self) -> None:
        self.update()
        self._mark()
        self.changed.emit()

    def _set(self, found: Found) -> None:
        self.found = found
        self._mark()
        self.changed.emit()

    def _mark(self) -> None:
        """Mark the outlined places on the map, and no others of this dock."""
        places = self.outlined
        if self._marked is not None:
            cmap, name = self._marked
            cmap.marked = {other: marked for other, marked in cmap.marked.items() if other != name}
        self._marked = None
        # Places of an earlier state of the map are not marked: they are looked for again.
        if places is not None and self._asked is not None and self._revision == self._asked[0].revision:
            cmap = self._asked[0]
            cmap.marked = {**cmap.marked, places.name: places}
            self._marked = cmap, places.name


@dataclass(frozen=True)
class _Hashed:
    """A model with its fingerprint, so that its weights are hashed once."""

    model: CPNN
    fingerprint: str

    @property
    def marks_places(self) -> bool:
        return self.model.marks_places

    def selection(self, gene: str, side: Side, fdr: float) -> Selection | None:
        return self.model.selection(gene, side, fdr)


def _find(cmap: CompositionMap, model: _Hashed, gene: str, fdr: float) -> tuple[Found, bool]:
    """Return the places, and whether the map is unlike the training tissue, so that nothing is to be believed."""
    found: Found = {}
    is_foreign = cmap.domain_report().level == "foreign"
    done = float((cmap.state[cmap.tissue] == DONE).mean()) if cmap.tissue.any() else 0.0
    if done < _LEAST_MAPPED and model.marks_places and not is_foreign:
        text = (
            f"{math.floor(100 * done)} % of the tissue is mapped; map all of it (Whole slide), since high and low are "
            "relative to the section."
        )
        return {"high": text, "low": text}, False
    sides: tuple[Side, ...] = ("high", "low")
    for side in sides:
        try:
            found[side] = cmap.find_places(gene, model, side, fdr)
        except CpnnError as error:
            found[side] = str(error)
    return found, is_foreign
