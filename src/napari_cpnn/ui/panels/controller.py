"""Controller of the Panels dock: which panels there are, what they show, and their figure. No Qt here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cpnn.errors import CpnnError, ExportError, GenesError
from napari_cpnn.geometry import Rect
from napari_cpnn.painting import Range
from napari_cpnn.settings import MappingSettings
from napari_cpnn.ui.frame import Tasks
from napari_cpnn.ui.panels.figure import Row, write_figure
from napari_cpnn.ui.panels.painter import Job, PanelPainter
from napari_cpnn.ui.panels.panel import MOST_PANELS, Painted, PanelSpec, Source, titles
from napari_cpnn.ui.panels.sources import Sources

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.layers import Layer

    from napari_cpnn.export import Marks
    from napari_cpnn.mapping import LiveMapper
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Background
    from napari_cpnn.ui.viewer import ExploreState

BUSY_SHARE = 0.3
"""Maximum share of the time of one processor for painting panels while maps fill."""

_ZOOMED = 0.1
"""Change of the logarithm of the zoom from which on lines are drawn anew: those of neighbours stand a line apart."""

_UNREGISTERED = "not registered: centres put on one another"


class PanelsController:
    """The panels of a viewer.

    Parameters
    ----------
    state, background, notify
        As for :class:`~napari_cpnn.ui.explore.controller.ExploreController`.
    settings
        Returns the settings of the maps of further models.
    spots
        Returns the table of measured spots, None if there is none.

    Attributes
    ----------
    panels
        What is shown, from the top left, row by row.
    painted
        What lies over the tissue of each panel.
    view
        Visible rectangle of the slide of Explore, its micrometres; None before the first view.
    """

    changed = Signal()
    """Emitted when there are other panels."""
    painted_changed = Signal()

    def __init__(
        self,
        state: ExploreState,
        background: Background,
        notify: Callable[[CpnnError], None],
        settings: Callable[[], MappingSettings],
        spots: Callable[[], AnnData | None],
    ) -> None:
        self.state, self._spots = state, spots
        self.tasks = Tasks(background, notify, self._hint)
        self.sources = Sources(state, self.tasks, background, settings, self._sources_changed)
        self.panels: tuple[PanelSpec, ...] = ()
        self.painted: list[Painted] = []
        self.limits: list[Range | None] = []
        self.view: Rect | None = None
        self.px_per_um = 0.0
        self.shifts: dict[int, tuple[float, float]] = {}
        self._painter = PanelPainter()
        self._dirty = False
        self._next_paint = 0.0
        self._revisions: list[int] = []
        self._view_painted: Rect | None = None
        self._zoom_painted = 0.0
        self._view_before: Rect | None = None
        self._done = ""
        state.slide_changed.connect(self._slide_changed)
        state.model_changed.connect(self._model_changed)
        state.mapper_changed.connect(self._sources_changed)
        state.look_changed.connect(self._repaint)

    @property
    def spots(self) -> AnnData | None:
        """The table of measured spots."""
        return self._spots()

    def close(self) -> None:
        """Stop all further mappers and ignore results from now on."""
        for signal, react in (
            (self.state.slide_changed, self._slide_changed),
            (self.state.model_changed, self._model_changed),
            (self.state.mapper_changed, self._sources_changed),
            (self.state.look_changed, self._repaint),
        ):
            signal.disconnect(react, missing_ok=True)
        self.panels, self.painted = (), []
        self.state.history.forget(self)
        self.sources.close()
        self.tasks.close()

    # -- choosing ------------------------------------------------------------------------------------------

    def add(self, spec: PanelSpec) -> bool:
        """Add a panel; return whether it was added, else the message says why not."""
        if spec in self.panels:
            self.tasks.fail(CpnnError(f"There is such a panel already: {spec.title}."))
            return False
        if len(self.panels) == MOST_PANELS:
            self.tasks.fail(CpnnError(f"There are {MOST_PANELS} panels, the most that can be told apart: remove one."))
            return False
        self.choose((*self.panels, spec), f"panel {spec.title}")
        return True

    def remove(self, number: int) -> None:
        """Remove a panel."""
        rest = tuple(spec for i, spec in enumerate(self.panels) if i != number)
        self.choose(rest, f"no panel {self.panels[number].title}")

    def choose(self, panels: Sequence[PanelSpec], text: str) -> None:
        """Show these panels, as a choice that can be undone."""
        before, layers = self.panels, dict(self.sources.layers)

        def undo() -> None:
            self.sources.layers |= layers
            self.set_panels(before)

        if tuple(panels) != before:
            self.state.history.add(text, undo, owner=self)
        self.set_panels(panels)

    def set_panels(self, panels: Sequence[PanelSpec]) -> None:
        """Show these panels."""
        kept = dict(zip(self.panels, self.painted, strict=False))
        self.panels = tuple(panels)
        self.painted = [kept.get(spec, Painted(note="")) for spec in self.panels]
        self.limits = [None] * len(self.panels)
        self._done = ""
        self.tasks.set_problem(None)
        self._need()
        self.changed.emit()
        self._repaint()

    def gene(self, text: str) -> str:
        """Return the spelling of a gene of the model of Explore.

        Raises
        ------
        GenesError
            If the model does not predict it.
        """
        from napari_cpnn.ui.frame import find_gene

        model = self.state.model
        found = None if model is None else find_gene(text, model.genes)
        if found is None:
            raise GenesError("Load a model first." if model is None else f"The model does not predict {text}.")
        return found

    # -- texts ---------------------------------------------------------------------------------------------

    def titles(self) -> list[str]:
        """Return the titles of the panels."""
        sources = [spec.source for spec in self.panels]
        slides, models = map(self.sources.slide_name, sources), map(self.sources.model_name, sources)
        return titles(self.panels, list(slides), list(models))

    def note(self, number: int) -> str:
        """Return the second line of a title."""
        notes = [self.painted[number].note] if number < len(self.painted) else []
        if self.panels[number].source.slide:
            moved = self.panels[number].source.slide in self.shifts
            notes.append("not registered: placed by hand" if moved else _UNREGISTERED)
        return " · ".join(note for note in notes if note)

    @property
    def scale_note(self) -> str:
        """Return which panels share a colour range; empty if none do."""
        groups = [spec.scale_group for spec in self.panels if spec.scale_group]
        several = sorted({group for group in groups if groups.count(group) > 1})
        look = self.state.look
        if groups and all(s.shown is not None and look.fixed(s.shown) for s in self.panels if s.scale_group):
            return "One colour range in all panels, fixed in Explore."
        words = ["cell types" if group == "types" else group.removeprefix("gene ") for group in several]
        return f"Same colour range: {', '.join(words)}." if words else ""

    @property
    def style_note(self) -> str:
        """Return that figures show washes, where patches are outlined; else empty."""
        maps = any(spec.kind == "map" for spec in self.panels)
        outlined = maps and self.state.look.style == "patches"
        return "Drawn as outlines of patches; a figure shows maps as a wash." if outlined else ""

    @property
    def cost_note(self) -> str:
        """Return what further models and slides cost; empty without any."""
        mappers = self.sources.further()
        if not mappers:
            return ""
        total = sum(_bytes_of(mapper) for mapper in mappers)
        device = mappers[0].device.upper().split(":")[0]
        n = len(mappers) + (self.state.mapper is not None)
        waits = [m.progress() for m in mappers]
        left = sum(p.wanted - p.done for p in waits)
        text = (
            f"{n} maps share the {device}, so each takes about {n} times as long; {total / 2**20:,.0f} MB more memory."
        )
        return f"{text} {left:,} patches of the others to go." if left else text

    def _hint(self) -> str:
        if self._done:
            return self._done
        if self.state.slide is None:
            return "No slide yet: open one in Explore."
        if self.state.slide.mpp is None:
            return "The pixel size of this slide is not known: enter it in Explore."
        return "" if self.panels else "Add panels below, or choose a preset."

    # -- view and painting ---------------------------------------------------------------------------------

    def set_view(self, rect: Rect, px_per_um: float) -> None:
        """Set what is in view of the slide of Explore."""
        self.view, self.px_per_um = rect, px_per_um
        self.sources.look_at(self.view_of, px_per_um)

    def view_of(self, source: Source) -> Rect | None:
        """Return the visible rectangle in micrometres of the slide of a source; None until it is known."""
        dy, dx = self.shift(source.slide)
        v = self.view
        if v is None or (source.slide and self.sources.slide(source) is None):
            return None
        return Rect(v.y0 + dy, v.x0 + dx, v.y1 + dy, v.x1 + dx)

    def shift(self, slide: int) -> tuple[float, float]:
        """Return the place of another slide that is shown beside (0, 0) of the slide of Explore, micrometres."""
        if slide == 0:
            return 0.0, 0.0
        if slide in self.shifts:
            return self.shifts[slide]
        here, there = self.state.slide, self.sources.slide(Source(slide=slide))
        if here is None or there is None or here.mpp is None or there.mpp is None:
            return 0.0, 0.0
        y, x = ((there.shape[k] * there.mpp[k] - here.shape[k] * here.mpp[k]) / 2 for k in (0, 1))
        return y, x

    def move_slide(self, slide: int, dy: float, dx: float) -> None:
        """Move another slide against that of Explore, micrometres."""
        y, x = self.shift(slide)
        self.shifts[slide] = y - dy, x - dx
        self.sources.look_at(self.view_of, self.px_per_um)
        self.painted_changed.emit()

    def update(self) -> None:
        """Paint what has changed; called a few times a second."""
        self.tasks.update()
        maps = [self.sources.map(spec.source) for spec in self.panels]
        revisions = [-1 if cmap is None else cmap.revision for cmap in maps]
        if revisions != self._revisions:
            self._revisions, self._dirty = revisions, True
        if self.view == self._view_before and self._is_view_stale():
            self._dirty = True
        self._view_before = self.view
        if self._dirty and self.panels and not self.tasks.is_running("paint") and time.monotonic() >= self._next_paint:
            self._paint()

    def _is_view_stale(self) -> bool:
        """Return whether a panel names the types in view, and the view has moved since."""
        names = any(s.shown is not None and s.shown.kind == "dominant" for s in self.panels if s.kind == "map")
        return self.view != self._view_painted and (names or self._are_lines_stale())

    def _are_lines_stale(self) -> bool:
        """Return whether lines were drawn for another zoom."""
        if self.state.look.style == "wash" or self.px_per_um <= 0 or self._zoom_painted <= 0:
            return False
        return abs(math.log(self.px_per_um / self._zoom_painted)) > _ZOOMED

    @property
    def is_settled(self) -> bool:
        """True when all panels show their present maps, and nothing is being mapped."""
        mappers = [self.sources.mapper(s.source) for s in self.panels if s.kind == "map"]
        waiting = any(m is None or not m.progress().idle for m in mappers)
        maps = [self.sources.map(spec.source) for spec in self.panels]
        same = [-1 if cmap is None else cmap.revision for cmap in maps] == self._revisions
        dirty = self._dirty or self._is_view_stale()
        return same and not waiting and not dirty and not self.tasks.is_running("paint")

    def _jobs(self) -> list[Job]:
        spots, jobs = self._spots(), []
        for spec in self.panels:
            slide, mapper = self.sources.slide(spec.source), self.sources.mapper(spec.source)
            missing = self.sources.problem(spec.source)
            if not missing and spec.kind == "map" and mapper is None:
                missing = "the map is being prepared ..." if self.sources.model(spec.source) else "no model yet"
            if not missing and spec.kind != "map" and slide is None:
                missing = "the slide is being opened ..."
            rest = mapper is not None and mapper.progress().idle
            cmap = None if mapper is None or spec.kind != "map" else mapper.map
            jobs.append(Job(spec, slide, cmap, spots, self.view_of(spec.source), rest, missing, self.px_per_um))
        return jobs

    def _paint(self) -> None:
        panels, jobs, look, painter = self.panels, self._jobs(), self.state.look, self._painter
        self._dirty, self._view_painted, self._zoom_painted = False, self.view, self.px_per_um
        start = time.monotonic()

        def ready(found: tuple[list[Painted], list[Range | None]]) -> None:
            end = time.monotonic()
            self._next_paint = end + (end - start) * (1 / BUSY_SHARE - 1)
            if panels == self.panels:
                self.painted, self.limits = found
                self.painted_changed.emit()
            else:
                self._dirty = True

        self.tasks.run("paint", "", lambda: painter.paint(jobs, look), ready)

    def _repaint(self) -> None:
        self._dirty, self._next_paint = True, 0.0

    def _need(self) -> None:
        mapped = {spec.source for spec in self.panels if spec.kind == "map"}
        self.sources.need({spec.source for spec in self.panels}, mapped)

    def _sources_changed(self) -> None:
        self._need()
        self.sources.look_at(self.view_of, self.px_per_um)
        self._repaint()

    def _model_changed(self) -> None:
        self.sources.model_changes()
        self._sources_changed()

    def _slide_changed(self) -> None:
        """Go on with the new slide of Explore; panels of other slides were chosen to stand beside the former one."""
        self.sources.restart()
        self.shifts.clear()
        rest = tuple(spec for spec in self.panels if spec.source.slide == 0)
        self.set_panels(rest)

    def layer_removed(self, layer: Layer) -> None:
        """Remove the panels of a slide that was closed."""
        if id(layer) in self.sources.layers:
            self.set_panels([spec for spec in self.panels if spec.source.slide != id(layer)])

    # -- figure --------------------------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """Return what each panel shows, what is painted, its range, and its title in a figure."""
        names = [
            f"{t}, not registered" if s.source.slide else t for s, t in zip(self.panels, self.titles(), strict=True)
        ]
        return list(zip(self._jobs(), self.painted, self.limits, names, strict=True))

    def export(self, path: Path, marks: Marks | None = None, *, overwrite: bool = False) -> None:
        """Write the panels as one figure, in the background."""
        if not self.panels or self.view is None:
            self.tasks.fail(ExportError("There are no panels to export yet."))
            return
        rows, look = self.rows(), self.state.look

        def work() -> Path:
            return write_figure(rows, look, marks, path, overwrite=overwrite)

        def ready(written: Path) -> None:
            self._done = f"Written: {written}."

        self.tasks.run("export", f"Writing {path.name} ...", work, ready)

    def slide_of(self, number: int) -> Slide | None:
        """Return the slide of a panel, once it is open."""
        return self.sources.slide(self.panels[number].source)


def _bytes_of(mapper: LiveMapper) -> int:
    """Return the memory of a mapper: its network, and 16 bits for each number of each patch of its map."""
    cmap = mapper.map
    return int(mapper.predictor.model_bytes + cmap.weights.nbytes + cmap.programs.nbytes)
