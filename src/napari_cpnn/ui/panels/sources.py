"""Slides, models and maps behind panels, beside those of the Explore dock. No Qt here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cpnn.errors import CpnnError, PixelSizeError
from napari_cpnn.mapping import Viewport
from napari_cpnn.settings import MappingSettings
from napari_cpnn.ui.frame import Tasks, model_label
from napari_cpnn.ui.layers import slide_of_layer
from napari_cpnn.ui.panels.former_model import started_from
from napari_cpnn.ui.panels.panel import MAIN, Source
from napari_cpnn.ui.viewer import names_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_cpnn.geometry import Rect
    from napari_cpnn.mapping import CompositionMap, LiveMapper
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Background
    from napari_cpnn.ui.viewer import ExploreState

NICENESS = 6
"""Niceness of mapping threads of further models: the map of the Explore dock comes first."""


@dataclass(eq=False)
class Opened:
    """A source that is not that of Explore: its slide, model and mapper as far as they are loaded."""

    slide: Slide | None = None
    model: CPNN | None = None
    mapper: LiveMapper | None = None
    problem: str = ""


class Sources:
    """Opens what panels need beside slide and model of the Explore dock, and stops it when no panel needs it.

    Parameters
    ----------
    state
        State of the viewer.
    tasks, background
        For loading.
    settings
        Returns the settings of maps.
    changed
        Called when a source is loaded, or cannot be.
    """

    def __init__(
        self,
        state: ExploreState,
        tasks: Tasks,
        background: Background,
        settings: Callable[[], MappingSettings],
        changed: Callable[[], None],
    ) -> None:
        self._state, self._tasks, self._background = state, tasks, background
        self._settings, self._changed = settings, changed
        self.layers: dict[int, Layer] = {}
        self._opened: dict[Source, Opened] = {}
        self._live = True
        self._models_before: list[Path] = []
        self._names: dict[tuple[Path, ...], dict[Path, str]] = {}

    def register(self, layer: Layer) -> int:
        """Return the key of a slide layer; 0 for that of the Explore dock."""
        if layer == self._state.layer:
            return 0
        self.layers[id(layer)] = layer
        return id(layer)

    # -- what is there -------------------------------------------------------------------------------------

    def slide(self, source: Source) -> Slide | None:
        """Return the slide of a source, once it is open."""
        if source.slide == 0:
            return self._state.slide
        return next((one.slide for key, one in self._opened.items() if key.slide == source.slide and one.slide), None)

    def model(self, source: Source) -> CPNN | None:
        """Return the model of a source, once it is loaded."""
        if source.model is None:
            return self._state.model
        return next((one.model for key, one in self._opened.items() if key.model == source.model and one.model), None)

    def mapper(self, source: Source) -> LiveMapper | None:
        """Return the mapper of a source, once it maps."""
        if source == MAIN:
            return self._state.mapper
        one = self._opened.get(source)
        return None if one is None else one.mapper

    def map(self, source: Source) -> CompositionMap | None:
        """Return the map of a source."""
        mapper = self.mapper(source)
        return None if mapper is None else mapper.map

    def problem(self, source: Source) -> str:
        """Return why a source cannot be shown; empty if it can, or is still being loaded."""
        return self._opened[source].problem if source in self._opened else ""

    def slide_name(self, source: Source) -> str:
        """Return the name of the slide of a source."""
        slide = self.slide(source)
        layer = self.layers.get(source.slide)
        return slide.name if slide is not None else "" if layer is None else str(layer.name)

    def model_name(self, source: Source) -> str:
        """Return the name of the model of a source."""
        own = self.own_model()
        path = own if source.model is None else source.model
        if path is None:
            return "" if self._state.model is None else model_label(self._state.model)
        files = tuple(dict.fromkeys([*([] if own is None else [own]), *self._files(), path]))
        if files not in self._names:  # asked for with every frame, and it looks at files
            self._names = {files: names_of(files)}
        return self._names[files][path]

    def own_model(self) -> Path | None:
        """Return the file of the model of Explore; None without one."""
        memory = self._state.memory
        return Path(memory.model) if self._state.model is not None and memory is not None and memory.model else None

    def model_before(self) -> Path | None:
        """Return the model that the model of Explore was fine-tuned from, else the one that was shown before it."""
        own = self.own_model()
        found = None if own is None else started_from(own)
        before = (path for path in reversed(self._models_before) if path != own and path.is_file())
        return next(before, None) if found is None else found

    def model_changes(self) -> None:
        """Take note of the model that another one has just replaced: the file of the new one is not known yet."""
        memory = self._state.memory
        if memory is not None and memory.model:
            path = Path(memory.model)
            self._models_before = [*(one for one in self._models_before if one != path), path]
        self.restart()

    def _files(self) -> list[Path]:
        return [source.model for source in self._opened if source.model is not None]

    def further(self) -> list[LiveMapper]:
        """Return the mappers beside that of the Explore dock."""
        return [one.mapper for one in self._opened.values() if one.mapper is not None]

    # -- opening and stopping ------------------------------------------------------------------------------

    def need(self, sources: Iterable[Source], mapped: Iterable[Source]) -> None:
        """Open these sources, map the ``mapped`` ones, and stop all others."""
        wanted, mapped = set(sources) - {MAIN}, set(mapped) - {MAIN}
        self._names.clear()
        for source in [one for one in self._opened if one not in wanted]:
            self._drop(source)
        for source in wanted:
            if source not in self._opened:
                self._opened[source] = Opened()
            one = self._opened[source]
            if one.slide is None or (source in mapped and one.mapper is None):
                self._open(source, mapped=source in mapped)
            elif source not in mapped and one.mapper is not None:
                self._stop(one)
        kept = {source.slide for source in self._opened}
        self.layers = {key: layer for key, layer in self.layers.items() if key in kept}

    def restart(self) -> None:
        """Drop everything that depended on the slide or the model of the Explore dock."""
        for source in list(self._opened):
            if source.slide == 0 or source.model is None:
                self._drop(source)

    def close(self) -> None:
        """Stop all mappers."""
        for source in list(self._opened):
            self._drop(source)
        self.layers.clear()

    def look_at(self, view_of: Callable[[Source], Rect | None], px_per_um: float) -> None:
        """Map what is in view of each further source."""
        for source, one in self._opened.items():
            rect = view_of(source)
            if one.mapper is not None and rect is not None:
                one.mapper.set_viewport(Viewport(rect, px_per_um, None))

    def set_live(self, on: bool) -> None:
        """Pause or resume the further mappers."""
        if on == self._live:
            return
        self._live = on
        for mapper in self.further():
            if on:
                mapper.resume()
            else:
                mapper.pause()

    def _open(self, source: Source, *, mapped: bool) -> None:
        one = self._opened[source]
        if self._tasks.is_running(("source", source)) or one.problem:
            return
        layer, slide, model = self.layers.get(source.slide), self.slide(source), self.model(source)
        if slide is None and layer is None:
            return
        if mapped and source.model is None and model is None:
            return  # Explore still loads it
        settings = self._settings()

        def work() -> Opened:
            try:
                opened = slide if slide is not None or layer is None else slide_of_layer(layer)
                return _load(source, opened, model, settings if mapped else None)
            except CpnnError as error:  # of this panel alone: the others go on
                return Opened(slide, model, problem=str(error))

        def ready(found: Opened) -> None:
            if self._opened.get(source) is not one:
                self._stop(found)
                return
            one.slide, one.model, one.mapper, one.problem = found.slide, found.model, found.mapper, found.problem
            if one.mapper is not None and not self._live:
                one.mapper.pause()
            self._changed()

        name = self.model_name(source) if source.model is not None else self.slide_name(source)
        self._tasks.run(("source", source), f"Opening {name} ...", work, ready, self._stop)

    def _drop(self, source: Source) -> None:
        self._tasks.forget(("source", source))
        self._stop(self._opened.pop(source))

    def _stop(self, one: Opened) -> None:
        """Stop a mapper, which waits for its batch and writes the cache."""
        mapper, one.mapper = one.mapper, None
        if mapper is not None:
            self._background(mapper.stop, lambda _: None, _ignore)


def _load(source: Source, slide: Slide | None, model: CPNN | None, settings: MappingSettings | None) -> Opened:
    """Load the model of a source and start its map, with ``settings``; without them, only the slide is needed."""
    if slide is None or slide.mpp is None:
        name = "this slide" if slide is None else slide.name
        raise PixelSizeError(f"The pixel size of {name} is not known: choose it in Explore once and enter it there.")
    if settings is None:
        return Opened(slide, model)
    if source.model is not None and model is None:
        from napari_cpnn.models import load_model

        model = load_model(source.model)
    if model is None:
        return Opened(slide)
    from napari_cpnn.mapping import LiveMapper

    mapper = LiveMapper(slide, model, settings)
    mapper.nice = NICENESS
    return Opened(slide, model, mapper)


def _ignore(error: Exception) -> Any:
    raise error
