"""What one viewer shows: slide, model, map and the quantity on screen, with typed events. No Qt here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from psygnal import Signal

from napari_cpnn.ui.history import History

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_cpnn.mapping import CompositionMap, LiveMapper
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide

Kind = Literal["type", "dominant", "blend", "gene", "contribution"]
RangeMode = Literal["auto", "full", "manual"]


@dataclass(frozen=True)
class Shown:
    """The quantity on screen.

    Parameters
    ----------
    kind
        One cell type, the dominant type, a blend of types, a gene, or what one cell type contributes to a gene.
    names
        The cell type, the types that are blended, the gene, or gene and cell type; empty for the dominant type.
    """

    kind: Kind
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The one name of a ``type`` or a ``gene``; for a contribution such as ``ERBB2 from B-cells``."""
        if self.kind == "contribution":
            return " from ".join(self.names)
        return self.names[0] if self.names else ""

    @property
    def gene(self) -> str:
        """The gene that is on screen, whole or in part."""
        return self.names[0] if self.kind in ("gene", "contribution") else ""

    @property
    def title(self) -> str:
        """What the layer and the legend say."""
        if self.kind == "type":
            return f"Cell type: {self.name}"
        if self.kind == "gene":
            return f"Gene: {self.name}"
        if self.kind == "contribution":
            return self.name
        return "Dominant cell type" if self.kind == "dominant" else "Blend of cell types"

    @property
    def unit(self) -> str:
        """Unit of the colour bar; empty for categories."""
        return {"type": "share of cell type"}.get(self.kind, "log1p CP10k" if self.gene else "")

    @property
    def has_range(self) -> bool:
        return self.kind in ("type", "gene", "contribution")


@dataclass(frozen=True)
class Look:
    """How overlays are coloured, and whether the canvas carries a legend."""

    colormap: str = "viridis"  # H&E is pink and purple, on which magma spends half of its colours
    range_mode: RangeMode = "auto"
    manual: tuple[float, float] = (0.0, 1.0)
    opacity: float = 0.65
    smooth: bool = True
    legend: bool = True


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
    history
        The last choices in all docks, which can be taken back.
    """

    slide_changed = Signal()
    model_changed = Signal()
    model_wanted = Signal(Path)
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
        self.limits: tuple[float, float] = (0.0, 1.0)

    @property
    def map(self) -> CompositionMap | None:
        """The map that is being filled."""
        return None if self.mapper is None else self.mapper.map

    def set_slide(self, layer: Layer | None, slide: Slide | None) -> None:
        self.layer, self.slide = layer, slide
        self.slide_changed.emit()

    def set_model(self, model: CPNN | None) -> None:
        self.model = model
        self.model_changed.emit()

    def want_model(self, path: Path) -> None:
        """Another dock asks the Explore dock to map with a model file."""
        self.model_wanted.emit(path)

    def set_mapper(self, mapper: LiveMapper | None) -> None:
        self.mapper = mapper
        self.mapper_changed.emit()

    def set_shown(self, shown: Shown | None) -> None:
        if shown != self.shown:
            self.shown = shown
            self.shown_changed.emit()

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
