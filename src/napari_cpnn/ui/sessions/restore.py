"""Open a session in a viewer: slide, model, view, colours, regions and spots."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_cpnn.errors import CpnnError, CpnnWarning, SessionError
from napari_cpnn.slides import SLIDE_SUFFIXES, Slide, open_slide
from napari_cpnn.ui.frame import as_cpnn_error, ask, show_dock, warn
from napari_cpnn.ui.layers import path_of, slide_layer, um_to_world
from napari_cpnn.ui.panels import PanelSpec, Source
from napari_cpnn.ui.regions import new_layer
from napari_cpnn.ui.sessions.collect import dock_of, regions_on
from napari_cpnn.ui.sessions.session import CellsOnScreen, ModelFile, PanelOnScreen, Session, View
from napari_cpnn.ui.sessions.session_file import differs, read_session
from napari_cpnn.ui.viewer import keep, state_of, use_colors

Choose = Callable[[str, str, Path], Path | None]
"""Asks for a file that is not where the session says: title, sentence, and where it should be."""

_SHOWN_LETTERS = 12


def open_session(viewer: Any, path: str | Path, choose: Choose | None = None) -> Opening:
    """Open a session in a viewer, beside the event loop; the Explore dock is opened if there is none.

    Parameters
    ----------
    choose
        As `Choose`; by default a question and a file dialog.
    """
    opening = Opening(viewer, dock_of(viewer, "explore") or show_dock(viewer, "Explore"), choose)
    opening.read(Path(path))
    return opening


class Opening:
    """A session that is being opened.

    Attributes
    ----------
    problem
        Why it could not be opened; ``None`` so far.
    notes
        What differs from the session; each was shown as a warning.
    is_done
        Whether everything that could be restored is, apart from the model, which is still being loaded.
    """

    def __init__(self, viewer: Any, explore: Any, choose: Choose | None = None) -> None:
        self.viewer, self.explore = viewer, explore
        self.state = state_of(viewer)
        self.problem: CpnnError | None = None
        self.notes: list[str] = []
        self.is_done = False
        self._choose: Choose = choose or (lambda *given: ask_for_file(explore, *given))
        self._session: Session | None = None
        self._layer: Any = None

    def read(self, path: Path) -> None:
        """Read the file, then open its slide."""

        def work() -> tuple[Session, list[str]]:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", CpnnWarning)
                return read_session(path), [str(one.message) for one in caught]

        def ready(found: tuple[Session, list[str]]) -> None:
            session, notes = found
            for note in notes:
                self._note(note)
            self.open(session)

        self.explore.background(work, ready, self._fail)

    def open(self, session: Session) -> None:
        """Open the slide of a session, wherever it is now, and the rest when the dock has it."""
        slide = session.slide
        if not slide.path.exists():
            sentence = f"The slide {slide.name} is not at {slide.path}; choose it."
            found = self._choose("Open a session", sentence, slide.path)
            if found is None:
                self._fail(SessionError(sentence))
                return
            session = dataclasses.replace(session, slide=dataclasses.replace(slide, path=found))
        self._session = session

        def work() -> tuple[Slide, str, list[Slide]]:
            opened = open_slide(session.slide.path, mpp=session.slide.mpp)
            note = differs(session)
            # What the docks recall of a slide that they open is from now on what the session says.
            keep(opened, dataclasses.replace(session.memory, mpp=session.slide.mpp))
            return opened, note, _other_slides(session)

        self.explore.background(work, self._opened, self._fail)

    def _opened(self, found: tuple[Slide, str, list[Slide]]) -> None:
        slide, note, others = found
        if note:
            self._note(note)
        for other in others:  # first: what is opened last is explored
            if self._layer_of(other.path) is None:
                data, keywords, _ = slide_layer(other)
                self.viewer.add_image(data, **keywords)
        data, keywords, _ = slide_layer(slide)
        self._layer = self.viewer.add_image(data, **keywords)

        def slide_changed() -> None:  # a function, which keeps this object until the slide is open
            state = self.state
            if state.layer != self._layer or state.slide is not None:
                state.slide_changed.disconnect(slide_changed)
            if state.layer == self._layer and state.slide is not None:
                self._restore()

        self.state.slide_changed.connect(slide_changed)
        self.explore.session.choose(self._layer)

    def _restore(self) -> None:
        session, state = self._session, self.state
        if session is None:
            return
        use_colors(session.colors)
        if session.view is not None:
            self._show(session.view)
        if session.regions:
            self._add_regions(session)
        state.wanted_level = session.level
        self.explore.controller.hierarchy = dict(session.hierarchy)
        self.explore.finer.restore(session.finer)  # before the model, with which a map begins
        state.set_shown(None)
        if session.memory.look is not None:
            state.set_look(**dataclasses.asdict(session.memory.look))
        if session.model is not None:
            self._load(session, session.model)
        if session.has_spots:
            self._open_spots(session)
        if session.cells is not None:
            self._open_cells(session.cells)
        if session.panels:
            self._open_panels(session.panels)
        self.is_done = True

    def _show(self, view: View) -> None:
        """Show a place at the zoom of the session, in a window of any size."""
        layer, mpp = self.state.layer, self._mpp
        centre = np.asarray(view.rect.center)
        places = um_to_world(layer, mpp, np.stack([centre, centre + np.array([0.0, 1.0])]))
        camera = self.viewer.scene.camera
        camera.center = tuple(float(value) for value in places[0])
        camera.zoom = view.px_per_um / float(np.linalg.norm(places[1] - places[0]))

    @property
    def _mpp(self) -> tuple[float, float]:
        slide = self.state.slide
        return (1.0, 1.0) if slide is None or slide.mpp is None else slide.mpp

    def _add_regions(self, session: Session) -> None:
        """Add the regions, unless the Regions dock has recalled them already, and show the dock."""
        there = {region.name for region in regions_on(self.viewer, self.state.layer, self._mpp)}
        if not {region.name for region in session.regions} <= there:
            self.viewer.add_layer(new_layer(self.state.layer, session.regions, self._mpp))
            self.viewer.layers.selection.active = self._layer
        if dock_of(self.viewer, "regions") is None:
            show_dock(self.viewer, "Regions")

    def _load(self, session: Session, model: ModelFile) -> None:
        from napari_cpnn.models import ZOO

        is_named = model.name in ZOO
        path = model.path
        if not is_named and (path is None or not path.is_file()):
            where = f"is not at {path}" if path is not None else "has no file"
            sentence = f"The model {model.title or 'of this session'} {where}; choose it."
            path = None if path is None else self._choose("Open a session", sentence, path)
            if path is None:
                self._note(sentence.replace("choose it", "choose one in the Explore dock"))
                return

        def loaded() -> None:
            if self.state.model is not None:
                self.state.model_changed.disconnect(loaded)
                self._compare_models(model, self.state.model.fingerprint)

        if self.state.model is not None:  # that of another slide
            self.state.set_model(None)
        self.state.model_changed.connect(loaded)
        self.explore.controller.restore(session.memory, model.name if is_named else path)

    def _compare_models(self, model: ModelFile, fingerprint: str) -> None:
        if model.fingerprint and model.fingerprint != fingerprint:
            self._note(
                "This is another model than the one of the session: its fingerprint is "
                f"{fingerprint[:_SHOWN_LETTERS]}, not {model.fingerprint[:_SHOWN_LETTERS]}, and its maps may differ."
            )

    def _open_spots(self, session: Session) -> None:
        missing = [file for file in session.memory.spots if not Path(file).exists()]
        if missing:
            self._note(f"The spots are not at {missing[0]}; open them in the Compare dock.")
        elif dock_of(self.viewer, "compare") is None:
            show_dock(self.viewer, "Compare")

    def _open_cells(self, cells: CellsOnScreen) -> None:
        if cells.path is not None and not cells.path.exists():
            self._note(f"The cells are not at {cells.path}; open them in the Cells dock.")
            return
        dock = dock_of(self.viewer, "cells") or show_dock(self.viewer, "Cells")
        dock.restore(cells.path, cells.shown, visible=cells.visible)

    def _open_panels(self, panels: tuple[PanelOnScreen, ...]) -> None:
        """Show the panels, apart from those whose slide or model is gone."""
        dock = dock_of(self.viewer, "panels") or show_dock(self.viewer, "Panels")
        specs = []
        for one in panels:
            model = None if one.model is None else one.model.path
            layer = None if one.slide is None else self._layer_of(one.slide.path)
            gone = None if one.slide is None or layer is not None else one.slide.path
            gone = model if model is not None and not model.is_file() else gone
            if gone is not None:
                self._note(f"The panel {one.title} is left out: {gone} is not there, or cannot be opened.")
                continue
            key = 0 if layer is None else dock.controller.sources.register(layer)
            specs.append(PanelSpec(one.kind, one.shown, Source(key, model)))
        dock.controller.set_panels(specs)

    def _layer_of(self, path: Path | None) -> Any | None:
        """Return the slide layer of a file, if there is one."""
        return next((layer for layer in self.viewer.layers if path is not None and path_of(layer) == path), None)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        warn(text)

    def _fail(self, error: Exception) -> None:
        self.problem = as_cpnn_error(error)
        warn(str(self.problem))


def _other_slides(session: Session) -> list[Slide]:
    """Open the slides that panels show beside that of the session; those that cannot be opened are said later."""
    files = {one.slide.path: one.slide.mpp for one in session.panels if one.slide is not None}
    opened = []
    for path, mpp in files.items():
        try:
            opened.append(open_slide(path, mpp=mpp))
        except CpnnError:
            continue
    return opened


def ask_for_file(parent: QWidget, title: str, sentence: str, path: Path) -> Path | None:
    """Say that a file, or a slide's folder, is not there, and let the user choose it; ``None`` if they do not."""
    if not ask(parent, title, f"{sentence}\n\nChoose it now?"):
        return None
    if ".zarr" in (path.suffix.lower(), path.parent.suffix.lower()):  # a dialog of files offers no folders
        folder = QFileDialog.getExistingDirectory(parent, sentence)
        return Path(folder) if folder else None
    kinds = SLIDE_SUFFIXES if path.suffix.lower() in SLIDE_SUFFIXES else (path.suffix,)
    patterns = " ".join(f"*{suffix}" for suffix in kinds)
    name, _ = QFileDialog.getOpenFileName(parent, sentence, path.name, f"Files ({patterns});;All files (*)")
    return Path(name) if name else None
