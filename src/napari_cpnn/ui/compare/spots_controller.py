"""Spots and how they lie on the slide, without Qt: read, looked at, moved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnError, SpotsError
from napari_cpnn.geometry import Mpp, spatial_to_um
from napari_cpnn.spots import library_of
from napari_cpnn.ui.compare.words import message_of
from napari_cpnn.ui.frame import Tasks
from napari_cpnn.ui.layers import diameter_um
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.spots import SpotFit, SpotFix, SpotsSource
    from napari_cpnn.ui.frame import Background


class SpotsController:
    """Spots on the slide of a viewer.

    Parameters
    ----------
    state
        Slide, model and gene of the viewer.
    background
        How slow work is run.
    notify
        Called with a :class:`CpnnError` that the user must see. Other exceptions are raised where they happen.

    Attributes
    ----------
    spots
        As read, at the positions in use; ``None`` before.
    source, sources
        What they were read from, if that is known, and the other tables of the Visium HD run that they are of.
    files
        What opens them again: ``source``, and their positions where these are another file.
    fit
        How they lie on the slide; ``None`` while that is not known.
    """

    spots_changed = Signal()
    message_changed = Signal(str)

    def __init__(self, state: ExploreState, background: Background, notify: Callable[[CpnnError], None]) -> None:
        self.state = state
        self.spots: AnnData | None = None
        self.source: Path | None = None
        self.sources: list[SpotsSource] = []
        self.files: tuple[str, ...] = ()
        self.fit: SpotFit | None = None
        self.message = ""
        self._tasks = Tasks(background, notify, self._say)
        state.slide_changed.connect(self._slide_changed)
        self._say()

    def close(self) -> None:
        """Take no more answers."""
        self._tasks.close()
        self.state.history.forget(self)
        self.state.slide_changed.disconnect(self._slide_changed)

    def open_spots(self, path: str | Path, positions: str | Path | None = None, library: str | None = None) -> None:
        """Read spots from whatever :func:`~napari_cpnn.read_spots` reads, or a folder that leads to it.

        Of several sections none is read: they become the :attr:`sources`, and a message says that one is to be chosen.
        """
        from napari_cpnn.spots import find_spots, read_spots, sections

        path = Path(path)

        def work() -> tuple[AnnData | None, Path, list[SpotsSource]]:
            found = find_spots(path) if positions is None and library is None else []
            several = sections(found)
            if len(several) > 1:
                return None, path, several
            source = found[0] if found else None
            if source is None:
                return read_spots(path, positions, library=library), path, []
            return read_spots(source.path, library=source.library), source.path, []

        def ready(found: tuple[AnnData | None, Path, list[SpotsSource]]) -> None:
            spots, source, several = found
            if spots is None:
                self.sources = several
                self.spots_changed.emit()
                names = ", ".join(one.name for one in several[:8]) + (", ..." if len(several) > 8 else "")
                self._tasks.fail(SpotsError(f"{path.name} has the spots of several sections; choose one: {names}."))
                return
            self.use_spots(self.as_before(spots, source), source)
            self.files = tuple(str(file) for file in (source, positions) if file is not None)
            self.remember()

        self._tasks.run("spots", f"Reading {path.name} ...", work, ready)

    def recall(self) -> None:
        """Open the spots that were compared when the slide was last open, while there are no others."""
        memory = self.state.memory
        if memory is not None and memory.spots and self.spots is None and all(Path(f).exists() for f in memory.spots):
            positions = memory.spots[1] if len(memory.spots) > 1 else None
            self.open_spots(memory.spots[0], positions, memory.library or None)

    def as_before(self, spots: AnnData, source: Path | None) -> AnnData:
        """Spots, moved as they were when they were last compared on this slide, unless they have been moved since."""
        from napari_cpnn.spots import SpotFix, move_of

        memory = self.state.memory
        if memory is None or memory.move is None or memory.spots[:1] != (str(source),) or move_of(spots) is not None:
            return spots
        if memory.library != (library_of(spots) or ""):
            return spots
        name, numbers = memory.move
        return SpotFix(name, np.reshape(numbers, (2, 3)), np.nan).apply(spots)

    def remember(self) -> None:
        """Spots of a file come back with their slide, where they are now."""
        from napari_cpnn.spots import move_of

        if self.spots is not None and self.files:
            move = move_of(self.spots)
            numbers = None if move is None else tuple(float(number) for number in move.matrix.ravel())
            self.state.remember(
                spots=self.files,
                move=None if move is None else (move.name, numbers),
                library=library_of(self.spots) or "",
            )

    def take_spots(self, name: str, work: Callable[[], AnnData]) -> None:
        """Use spots that ``work`` makes of something called ``name``."""
        self._tasks.run("spots", f"Taking the spots of {name} ...", work, self.use_spots)

    def use_spots(self, spots: AnnData | None, source: Path | None = None) -> None:
        """Compare with spots that are in memory, which came from ``source``; ``None``: with none."""
        from napari_cpnn.spots import tables_of_run

        self._tasks.forget("spots")
        self.spots, self.source, self.fit = spots, source, None
        self.files = () if source is None else (str(source),)
        library = None if spots is None else library_of(spots)
        self.sources = [] if source is None else tables_of_run(source, library)
        self._forget()
        self._look()

    def apply_fix(self, fix: SpotFix) -> None:
        """Move the spots as a fix says, which can be taken back."""
        before = self.spots
        if before is None:
            return
        moved = fix.apply(before)

        def undo() -> None:
            if self.spots is moved:  # and not of another slide meanwhile
                self._replace(before)

        self._replace(moved)
        self.state.history.add(fix.name, undo, owner=self)

    def _replace(self, spots: AnnData) -> None:
        """The same spots at other places."""
        files = self.files
        self.use_spots(spots, self.source)
        self.files = files
        self.remember()

    def fix_by(self, given: str | Path) -> None:
        """Move the spots by an affine map that the user gives: a file (a path), or its numbers (a text)."""
        from napari_cpnn.spots import given_fix, parse_affine, read_affine

        slide, spots = self.state.slide, self.spots
        if slide is None or spots is None:
            self._tasks.fail(SpotsError("There is nothing to move yet: open a slide and its spots first."))
            return

        def work() -> SpotFix:
            if isinstance(given, Path):
                return given_fix(slide, spots, read_affine(given, spots), f"the affine map of {given.name}")
            return given_fix(slide, spots, parse_affine(given), "the given affine map")

        self._tasks.run("fit", "Looking what the affine map does ...", work, self.apply_fix)

    def implied_mpp(self) -> float | None:
        """What the pitch of the spots says of the pixel size, while the slide itself says nothing."""
        from napari_cpnn.spots import estimate_mpp

        slide = self.state.slide
        if self.spots is None or slide is None or slide.mpp is not None:
            return None
        mpp = estimate_mpp(self.spots)
        return None if mpp is None else float(np.sqrt(mpp[0] * mpp[1]))

    def mpp(self) -> Mpp | None:
        """Pixel size of the slide."""
        return None if self.state.slide is None else self.state.slide.mpp

    def centers_um(self) -> FloatArray:
        """``(N, 2)`` slide micrometres of all spots."""
        mpp = self.mpp()
        return np.empty((0, 2)) if self.spots is None or mpp is None else spatial_to_um(self.spots.obsm["spatial"], mpp)

    def diameter_um(self) -> float:
        """True diameter of a spot; 0 when it is not known."""
        mpp = self.mpp()
        return 0.0 if self.spots is None or mpp is None else diameter_um(self.spots, mpp)

    def compare(self) -> None:
        """The spots fit the slide: what to do with them."""

    def _slide_changed(self) -> None:
        spots = self.spots
        if spots is not None and (moved := self.as_before(spots, self.source)) is not spots:
            self._replace(moved)
            return
        self.fit = None
        self._forget()
        self._look()
        self.recall()

    def _forget(self) -> None:
        """Slide, model or spots are others."""
        self._tasks.forget("fit")
        self._tasks.set_problem(None)
        self.spots_changed.emit()
        self._say()

    def _look(self) -> None:
        """See how the spots lie on the slide, then compare if they fit."""
        slide, spots = self.state.slide, self.spots
        if slide is None or spots is None or slide.mpp is None or self.fit is not None:
            if self.fit is not None and not self.fit.problem:
                self.compare()
            return
        from napari_cpnn.spots import check_fit

        self._tasks.run(
            "fit", "Looking whether the spots fit the slide ...", lambda: check_fit(slide, spots), self._looked
        )

    def _looked(self, fit: SpotFit) -> None:
        from napari_cpnn.spots import note_fit

        if self.state.slide is not None and self.spots is not None:
            note_fit(self.state.slide, self.spots)  # so that predicting at them does not say it again
        self.fit = fit
        self.spots_changed.emit()
        if not fit.problem:
            self.compare()

    def _hint(self) -> str:
        """What to do next when all is there."""
        return ""

    def _say(self) -> None:
        next_step = message_of(self.state, self.spots is not None, self.fit) or self._hint()
        message = self._tasks.message or next_step
        if message != self.message:
            self.message = message
            self.message_changed.emit(message)
