"""What one viewer shows: slide, model, map and the quantity on screen, with typed events. No Qt here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psygnal import Signal

from napari_cpnn.painting import Look, Shown
from napari_cpnn.ui.frame import History

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_cpnn.mapping import CompositionMap, LiveMapper
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.viewer.slide_memory import Memory

__all__ = ["ExploreState", "Look", "Shown", "TypeRow", "state_of"]


@dataclass(frozen=True)
class TypeRow:
    """One line of the list of cell types; ``share`` is the mean share in view, NaN while unknown."""

    name: str
    color: str
    share: float


class ExploreState:
    """Slide, model, map and look of one viewer.

    Attributes
    ----------
    layer, slide
        The slide layer and the slide behind it; ``slide`` is ``None`` while it is being opened.
    model, mapper
        Likewise.
    shown
        ``None`` until a model is there.
    message
        One line that says what is going on or what to do next.
    memory
        What is kept of the slide for the next time; ``None`` while none is open.
    history
        The last choices in all docks, which can be taken back.
    """

    slide_changed = Signal()
    model_changed = Signal()
    model_wanted = Signal(Path)
    mpp_wanted = Signal(float)
    reference_wanted = Signal(Path)
    mapper_changed = Signal()
    shown_changed = Signal()
    look_changed = Signal()
    message_changed = Signal(str)
    limits_changed = Signal()

    def __init__(self) -> None:
        self.history = History()
        self.layer: Layer | None = None
        self.slide: Slide | None = None
        self.model: CPNN | None = None
        self.mapper: LiveMapper | None = None
        self.shown: Shown | None = None
        self.look = Look()
        self.message = ""
        self.memory: Memory | None = None
        self._has_news = False
        self.limits: tuple[float, float] = (0.0, 1.0)

    @property
    def map(self) -> CompositionMap | None:
        """The map that is being filled."""
        return None if self.mapper is None else self.mapper.map

    def set_slide(self, layer: Layer | None, slide: Slide | None, memory: Memory | None = None) -> None:
        """Another slide; ``memory`` is what is known of it from the last time."""
        self.layer, self.slide = layer, slide
        self.memory = memory
        self._has_news = False
        self.slide_changed.emit()

    def remember(self, **changes: Any) -> None:
        """Keep something for the next time that the slide is opened: fields of :class:`Memory`."""
        if self.memory is not None:
            memory = dataclasses.replace(self.memory, **changes)
            self._has_news |= memory != self.memory
            self.memory = memory

    def take_news(self) -> bool:
        """Whether there is something to keep that has not been asked for yet."""
        news, self._has_news = self._has_news, False
        return news

    def set_model(self, model: CPNN | None) -> None:
        self.model = model
        self.model_changed.emit()

    def want_model(self, path: Path) -> None:
        """Another dock asks the Explore dock to map with a model file."""
        self.model_wanted.emit(path)

    def want_reference(self, path: Path) -> None:
        """Another dock asks the Fine-tune dock to take cell types from a file of prototypes."""
        self.reference_wanted.emit(path)

    def want_mpp(self, um: float) -> None:
        """Another dock asks the Explore dock to take a pixel size, in um."""
        self.mpp_wanted.emit(um)

    def set_mapper(self, mapper: LiveMapper | None) -> None:
        self.mapper = mapper
        self.mapper_changed.emit()

    def set_shown(self, shown: Shown | None) -> None:
        if shown != self.shown:
            self.shown = shown
            self.shown_changed.emit()

    def choose_shown(self, shown: Shown) -> None:
        """The user chooses what is on screen, and can take it back."""
        before = self.shown
        if before is not None and shown != before:
            self.history.add(shown.title, lambda: self.set_shown(before))
        self.set_shown(shown)

    def choose_look(self, **changes: Any) -> None:
        """The user changes the look, and can take it back."""
        before = self.look
        self.set_look(**changes)
        if self.look != before:
            self.history.add("colours", lambda: self.set_look(**dataclasses.asdict(before)), " ".join(changes))

    def set_look(self, **changes: Any) -> None:
        look = dataclasses.replace(self.look, **changes)
        if look != self.look:
            self.look = look
            self.look_changed.emit()

    def set_limits(self, limits: tuple[float, float]) -> None:
        """The colour range that is on screen now (the overlays say so)."""
        if limits != self.limits:
            self.limits = limits
            self.limits_changed.emit()

    def set_message(self, message: str) -> None:
        if message != self.message:
            self.message = message
            self.message_changed.emit(message)

    def go_silent(self) -> None:
        """Tell nobody any more: the program ends, and widgets that listened may be gone already."""
        for name, signal in vars(type(self)).items():
            if isinstance(signal, Signal):
                getattr(self, name).disconnect()


_STATES: WeakKeyDictionary[Any, ExploreState] = WeakKeyDictionary()


def state_of(viewer: Any) -> ExploreState:
    """The state of a viewer, made when it is first asked for; it lives as long as the viewer."""
    key = getattr(viewer, "__wrapped__", viewer)  # plugins are handed a proxy, a new one each time
    if key not in _STATES:
        _STATES[key] = ExploreState()
    return _STATES[key]
