"""State of one viewer, shared by its docks: slide, model, map and what is shown, with signals. No Qt here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from psygnal import Signal

from napari_cpnn.mapping import UNKNOWN
from napari_cpnn.painting import Look, Shown
from napari_cpnn.palette import Level
from napari_cpnn.ui.frame import History

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.layers import Layer

    from napari_cpnn.counts import GeneSet
    from napari_cpnn.mapping import CompositionMap, LiveMapper, Viewport
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.cells import CellContent
    from napari_cpnn.ui.export import Exported
    from napari_cpnn.ui.viewer.slide_memory import Memory

__all__ = ["ExploreState", "Look", "Shown", "TypeRow", "state_of"]


@dataclass(frozen=True)
class TypeRow:
    """Row of the list of cell types; ``share`` is the mean share in view, NaN while unknown.

    A major type has its minor types as ``parts``.
    """

    name: str
    color: str
    share: float
    parts: tuple[TypeRow, ...] = ()


class ExploreState:
    """Slide, model, map and look of one viewer.

    Attributes
    ----------
    layer, slide
        The slide layer and the slide behind it; ``slide`` is ``None`` while it is being opened.
    model, mapper
        ``None`` until loaded.
    shown
        The quantity on screen; ``None`` until a model is loaded.
    message
        Line that tells the user what is going on or what to do next.
    memory
        State to restore when the slide is opened again; ``None`` while no slide is open.
    history
        Undo history of all docks.
    exports
        What was exported since the slide was opened.
    no_slide
        Why none of the layers can be explored; empty when there are none.
    docks
        The docks of the viewer that exist, by the name of their class.
    measured
        Table of the measured spots that the Compare dock uses; ``None`` if there is none.
    cells
        Cells of the slide that the Cells dock has; ``None`` if there are none.
    instead
        Legend of another layer that is shown in place of the map: texts and their background colours.
    view
        The part of the slide that is in view; ``None`` while it is not known.
    before_loading
        Called where a model is about to be loaded, which is not in the GUI thread.
    pixel_ratio
        Pixels of the screen per pixel of napari's canvas, such as 2 on a high-resolution display.
    """

    slide_changed = Signal()
    model_changed = Signal()
    model_wanted = Signal(Path)
    mpp_wanted = Signal(float)
    slide_wanted = Signal(object)
    reference_wanted = Signal(Path)
    mapper_changed = Signal()
    shown_changed = Signal()
    look_changed = Signal()
    message_changed = Signal(str)
    limits_changed = Signal()
    cells_changed = Signal()
    instead_changed = Signal()

    def __init__(self) -> None:
        self.history = History()
        self.no_slide = ""
        self.docks: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self.layer: Layer | None = None
        self.slide: Slide | None = None
        self.model: CPNN | None = None
        self.mapper: LiveMapper | None = None
        self.shown: Shown | None = None
        self.look = Look()
        self.message = ""
        self.memory: Memory | None = None
        self.measured: AnnData | None = None
        self.cells: CellContent | None = None
        self._memory_changed = False
        self.limits: tuple[float, float] = (0.0, 1.0)
        self.wanted_level: Level = "major"
        self.exports: list[Exported] = []
        self.pixel_ratio = 1.0
        self.view: Viewport | None = None
        self.before_loading: Callable[[], object] = lambda: None
        self.gene_sets: list[GeneSet] = []  # from files and pasted
        self.least_pcc: float | None = None  # of the genes of signatures; None: those with a trusted scale
        self.instead: tuple[tuple[str, str], ...] = ()

    @property
    def level(self) -> Level:
        """Level of the cell types on screen: the one wanted, where the model has a hierarchy."""
        return self.wanted_level if self.model is not None and self.model.hierarchy else "minor"

    @property
    def map(self) -> CompositionMap | None:
        """The map of the mapper."""
        return None if self.mapper is None else self.mapper.map

    @property
    def awaits_picture(self) -> bool:
        """Whether a map is being made, and tissue in view has no colour of it yet: all else can wait."""
        if self.mapper is None:
            return self.model is not None and self.slide is not None
        progress = self.mapper.progress()
        if self.view is None or progress.idle or not progress.running:
            return False
        cmap = self.mapper.map
        part = cmap.grid.window(self.view.rect)
        blank = (cmap.donors()[part] < 0) & (cmap.state[part] == UNKNOWN)
        return bool((blank & cmap.tissue[part]).any())

    def set_instead(self, legend: tuple[tuple[str, str], ...]) -> None:
        """Show another layer, with this legend, in place of the map; with an empty one the map again."""
        if legend != self.instead:
            self.instead = legend
            self.instead_changed.emit()

    def set_slide(self, layer: Layer | None, slide: Slide | None, memory: Memory | None = None) -> None:
        """Set layer and slide; ``memory`` is the state in which the slide was last open."""
        if layer is None or layer != self.layer:
            self.exports = []
        self.layer, self.slide = layer, slide
        self.memory = memory
        self._memory_changed = False
        self.slide_changed.emit()

    def remember(self, **changes: Any) -> None:
        """Change fields of :class:`Memory`, to be restored when the slide is opened again."""
        if self.memory is not None:
            memory = dataclasses.replace(self.memory, **changes)
            self._memory_changed |= memory != self.memory
            self.memory = memory

    def take_changed_memory(self) -> Memory | None:
        """Return the memory if it has changed since the last call."""
        changed, self._memory_changed = self._memory_changed, False
        return self.memory if changed else None

    def set_cells(self, cells: CellContent | None) -> None:
        """Set the cells of the slide, which the Regions dock counts."""
        if cells is not self.cells:
            self.cells = cells
            self.cells_changed.emit()

    def set_model(self, model: CPNN | None) -> None:
        self.model = model
        self.model_changed.emit()

    def want_model(self, path: Path) -> None:
        """Ask the Explore dock to map with a model file."""
        self.model_wanted.emit(path)

    def want_reference(self, path: Path) -> None:
        """Ask the Fine-tune dock to take cell types from a file of prototypes."""
        self.reference_wanted.emit(path)

    def want_slide(self, layer: Layer) -> None:
        """Ask the Explore dock to explore a slide layer."""
        self.slide_wanted.emit(layer)

    def is_open(self, kind: str) -> bool:
        """Return whether the viewer has a dock of this class that has not been closed."""
        dock = self.docks.get(kind)
        return dock is not None and not dock.has_ended

    def want_mpp(self, um: float) -> None:
        """Ask the Explore dock to use a pixel size, in um."""
        self.mpp_wanted.emit(um)

    def set_mapper(self, mapper: LiveMapper | None) -> None:
        self.mapper = mapper
        self.mapper_changed.emit()

    def set_shown(self, shown: Shown | None) -> None:
        if shown != self.shown:
            self.shown = shown
            self.shown_changed.emit()

    def choose_shown(self, shown: Shown) -> None:
        """Show a quantity, as a choice that the user can undo."""
        before = self.shown
        if before is not None and shown != before:
            self.history.add(shown.title, lambda: self.set_shown(before))
        self.set_shown(shown)

    def choose_look(self, **changes: Any) -> None:
        """Change the look, as a choice that the user can undo."""
        before = self.look
        self.set_look(**changes)
        if self.look != before:
            what = "outline" if {"outline", "fdr"} & set(changes) else "colours"
            self.history.add(what, lambda: self.set_look(**dataclasses.asdict(before)), " ".join(changes))

    def set_look(self, **changes: Any) -> None:
        look = dataclasses.replace(self.look, **changes)
        if look != self.look:
            self.look = look
            self.look_changed.emit()

    def set_pixel_ratio(self, ratio: float) -> None:
        """Set the pixels of the screen per pixel of the canvas, on which the magnification depends."""
        if ratio != self.pixel_ratio:
            self.pixel_ratio = ratio
            self.look_changed.emit()

    def set_limits(self, limits: tuple[float, float]) -> None:
        """Set the colour range on screen."""
        if limits != self.limits:
            self.limits = limits
            self.limits_changed.emit()

    def set_message(self, message: str) -> None:
        if message != self.message:
            self.message = message
            self.message_changed.emit(message)

    def disconnect_all(self) -> None:
        """Disconnect all listeners, since the program ends and their widgets may be deleted already."""
        for name, signal in vars(type(self)).items():
            if isinstance(signal, Signal):
                getattr(self, name).disconnect()


_STATES: WeakKeyDictionary[Any, ExploreState] = WeakKeyDictionary()


def state_of(viewer: Any) -> ExploreState:
    """Return the state of a viewer, which is created on first use and lives as long as the viewer."""
    key = getattr(viewer, "__wrapped__", viewer)  # plugins are handed a proxy, a new one each time
    if key not in _STATES:
        _STATES[key] = ExploreState()
    return _STATES[key]
