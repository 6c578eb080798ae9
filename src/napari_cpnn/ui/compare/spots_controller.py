"""Spots on the slide of a viewer: read, moved, and checked for their fit. No Qt here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import CpnnError, SpotsError
from napari_cpnn.geometry import Mpp, spatial_to_um
from napari_cpnn.spots import library_of
from napari_cpnn.ui.compare.words import message_of, noun_of
from napari_cpnn.ui.frame import Tasks
from napari_cpnn.ui.layers import diameter_um, drawn_rows
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.spots import Bins, SpotFit, SpotFix, SpotsSource
    from napari_cpnn.ui.frame import Background


_MANY = 200_000
"""So many spots are placed beside the event loop: it takes a tenth of a second, of a whole Visium HD run seconds."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where the spots of a table are drawn on a slide of a pixel size.

    Attributes
    ----------
    table, mpp
        The spots, and the pixel size ``(y, x)``.
    centers_um
        Positions ``(N, 2)`` of all spots, slide um ``(y, x)``.
    diameter_um
        Diameter of a spot; 0 if it is unknown.
    rows
        The spots ``(n,)`` that are drawn: all, but of very many cells a part.
    bins
        Their lattice if they are drawn as one picture, a pixel each.
    """

    table: AnnData
    mpp: Mpp
    centers_um: FloatArray
    diameter_um: float
    rows: IntArray
    bins: Bins | None

    @classmethod
    def of(cls, table: AnnData, mpp: Mpp) -> Places:
        """Find out; takes a second for 2 million bins."""
        from napari_cpnn.spots import bins_of

        um, diameter = spatial_to_um(table.obsm["spatial"], mpp), diameter_um(table, mpp)
        return cls(table, mpp, um, diameter, drawn_rows(table), bins_of(table, mpp, diameter))


class SpotsController:
    """Spots on the slide of a viewer.

    Parameters
    ----------
    state
        State of the viewer.
    background, notify
        As for :class:`~napari_cpnn.ui.frame.tasks.Tasks`.
    hint
        Returns what to do next when the spots fit.

    Attributes
    ----------
    table
        The spots at their present positions; ``None`` before they are read.
    source, sources
        Their file, if it is known, and the other tables of the same Visium HD run.
    files
        Files to open them again: ``source``, and that of their positions if it is another one.
    places
        Where they are drawn; ``None`` before that is known.
    fit
        Their fit to the slide; ``None`` while unknown.
    reset
        Emitted when slide, model or spots have been replaced.
    spots_changed
        Emitted after ``reset``, and when places or fit are known.
    fitted
        Emitted when the spots fit the slide.
    """

    reset = Signal()
    spots_changed = Signal()
    fitted = Signal()

    def __init__(
        self,
        state: ExploreState,
        background: Background,
        notify: Callable[[CpnnError], None],
        hint: Callable[[], str] = lambda: "",
    ) -> None:
        self.state = state
        self.table: AnnData | None = None
        self.source: Path | None = None
        self.sources: list[SpotsSource] = []
        self.files: tuple[str, ...] = ()
        self.fit: SpotFit | None = None
        self.places: Places | None = None
        self._placing: tuple[AnnData, Mpp] | None = None
        self._slide_of_spots: tuple[str, bool] | None = None  # its identity, and whether they fit it
        self.tasks = Tasks(
            background, notify, lambda: message_of(self.state, self.table is not None, self.fit) or hint()
        )
        state.slide_changed.connect(self._slide_changed)
        self.tasks.update()

    @property
    def message(self) -> str:
        """The last problem, what is running, or what to do next."""
        return self.tasks.message

    def close(self) -> None:
        """Ignore results from now on."""
        self.state.measured = None
        self.tasks.close()
        self.state.history.forget(self)
        self.state.slide_changed.disconnect(self._slide_changed)

    def open(self, path: str | Path, positions: str | Path | None = None, library: str | None = None) -> None:
        """Read spots from a file or folder of :func:`~napari_cpnn.read_spots`.

        Of several sections none is read: they become the :attr:`sources`, and the user is asked to choose one.
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
                self.tasks.fail(SpotsError(f"{path.name} has the spots of several sections; choose one: {names}."))
                return
            self.use(self.moved_as_before(spots, source), source, positions)
            self.remember()

        self.tasks.run("spots", f"Reading {path.name} ...", work, ready)

    def recall(self) -> None:
        """Open the spots of the slide when it was last open, unless there are others."""
        memory = self.state.memory
        if memory is not None and memory.spots and self.table is None and all(Path(f).exists() for f in memory.spots):
            positions = memory.spots[1] if len(memory.spots) > 1 else None
            self.open(memory.spots[0], positions, memory.library or None)

    def moved_as_before(self, spots: AnnData, source: Path | None) -> AnnData:
        """Move spots as when they were last compared on this slide, unless they have been moved since."""
        from napari_cpnn.registration import apply_registration, registration_in
        from napari_cpnn.spots import SpotFix, is_warped, move_of

        memory = self.state.memory
        if memory is None or memory.spots[:1] != (str(source),) or memory.library != (library_of(spots) or ""):
            return spots
        if move_of(spots) is not None or is_warped(spots):
            return spots
        if memory.move is not None:
            name, numbers = memory.move
            spots = SpotFix(name, np.reshape(numbers, (2, 3)), np.nan).apply(spots)
        if memory.warp:
            spots = apply_registration(spots, registration_in(json.loads(memory.warp), "The memory of the slide"))
        return spots

    def remember(self) -> None:
        """Remember files and positions of the spots for the next time that the slide is opened."""
        from napari_cpnn.spots import WARPED, move_of

        if self.table is not None and self.files:
            move = move_of(self.table)
            numbers = None if move is None else tuple(float(number) for number in move.matrix.ravel())
            self.state.remember(
                spots=self.files,
                move=None if move is None else (move.name, numbers),
                library=library_of(self.table) or "",
                warp=str(dict(self.table.uns.get("napari_cpnn", {})).get(WARPED, "")),
            )

    def read_again(self) -> None:
        """Read the file again without what was remembered: a thin plate cannot be taken back by a move."""
        if self.files:
            self.state.remember(move=None, warp="")
            library = None if self.table is None else library_of(self.table)
            self.open(self.files[0], self.files[1] if len(self.files) > 1 else None, library)

    def take(self, name: str, work: Callable[[], AnnData]) -> None:
        """Use the spots that ``work`` returns, from something called ``name``."""
        self.tasks.run("spots", f"Reading the spots of {name} ...", work, self.use)

    def use(self, spots: AnnData | None, source: Path | None = None, positions: str | Path | None = None) -> None:
        """Use spots in memory, read from ``source`` and the file of their ``positions``; ``None``: no spots."""
        from napari_cpnn.spots import tables_of_run

        self.tasks.forget("spots")
        self.table, self.source, self.fit, self._slide_of_spots = spots, source, None, None
        self.state.measured = spots
        self.files = tuple(str(file) for file in (source, positions) if file is not None)
        library = None if spots is None else library_of(spots)
        self.sources = [] if source is None else tables_of_run(source, library)
        self.check_again()

    def apply_fix(self, fix: SpotFix) -> None:
        """Move the spots by a fix, as a choice that the user can undo."""
        before = self.table
        if before is None:
            return
        try:
            moved = fix.apply(before)
        except SpotsError as error:  # they were bent by a registration
            self.tasks.fail(error)
            return

        def undo() -> None:
            if self.table is moved:  # no other spots were opened meanwhile
                self._replace(before)

        self._replace(moved)
        self.state.history.add(fix.name, undo, owner=self)

    def _replace(self, spots: AnnData) -> None:
        """Use the same spots at other positions."""
        files = self.files
        self.use(spots, self.source)
        self.files = files
        self.remember()

    def fix_by(self, given: str | Path) -> None:
        """Move the spots by an affine map: a file (path) or its numbers (text)."""
        from napari_cpnn.spots import given_fix, parse_affine, read_affine

        slide, spots = self.state.slide, self.table
        if slide is None or spots is None:
            self.tasks.fail(SpotsError("There is nothing to move yet: open a slide and its spots first."))
            return

        def work() -> SpotFix:
            if isinstance(given, Path):
                return given_fix(slide, spots, read_affine(given, spots), f"the affine map of {given.name}")
            return given_fix(slide, spots, parse_affine(given), "the given affine map")

        self.tasks.run("fit", "Applying the affine map ...", work, self.apply_fix)

    def implied_mpp(self) -> float | None:
        """Return the pixel size by the pitch of the spots, if the slide itself has none."""
        from napari_cpnn.spots import estimate_mpp

        slide = self.state.slide
        if self.table is None or slide is None or slide.mpp is not None:
            return None
        mpp = estimate_mpp(self.table)
        return None if mpp is None else float(np.sqrt(mpp[0] * mpp[1]))

    def mpp(self) -> Mpp | None:
        """Return the pixel size of the slide."""
        return None if self.state.slide is None else self.state.slide.mpp

    @property
    def is_of_slide(self) -> bool:
        """Whether the spots lie on the slide that is explored, not on another one that they fit."""
        slide, of = self.state.slide, self._slide_of_spots
        return slide is None or of is None or of[0] == slide.identity

    def drawn_rows(self) -> IntArray:
        """Return the rows ``(n,)`` of the spots that are drawn: all, but of very many cells a part."""
        return np.empty(0, np.intp) if self.table is None else drawn_rows(self.table)

    @property
    def noun(self) -> str:
        """What the rows are: ``cells`` or ``spots``."""
        return noun_of(self.table)

    def _slide_changed(self) -> None:
        spots = self.table
        if spots is not None and (moved := self.moved_as_before(spots, self.source)) is not spots:
            self._replace(moved)
            return
        self.fit = None
        self.check_again()
        self.recall()

    def _place(self) -> None:
        """Find out where the spots are drawn, unless that is known."""
        table, mpp = self.table, self.mpp()
        if table is None or mpp is None:
            self.places = self._placing = None
            self.tasks.forget("places")
            return
        if self._placing is not None and self._placing[0] is table and self._placing[1] == mpp:
            return
        self.places, self._placing = None, (table, mpp)
        self.tasks.forget("places")
        if table.n_obs < _MANY:
            self.places = Places.of(table, mpp)
        else:
            text = f"Placing {table.n_obs:,} {self.noun} ..."
            self.tasks.run("places", text, lambda: Places.of(table, mpp), self._placed)

    def _placed(self, places: Places) -> None:
        self.places = places
        self.spots_changed.emit()

    def check_again(self) -> None:
        """Drop results for another slide, model or table, and check the fit if it is unknown."""
        self._place()
        self.reset.emit()
        self.tasks.forget("fit")
        self.tasks.set_problem(None)
        self.spots_changed.emit()
        slide, spots = self.state.slide, self.table
        if slide is None or spots is None or slide.mpp is None or self.fit is not None:
            if self.fit is not None and not self.fit.problem:
                self.fitted.emit()
            return
        from napari_cpnn.spots import check_fit

        self.tasks.run(
            "fit", "Checking how the spots fit the slide ...", lambda: check_fit(slide, spots), self._fit_checked
        )

    def _fit_checked(self, fit: SpotFit) -> None:
        from napari_cpnn.spots import note_fit

        if self.state.slide is not None and self.table is not None:
            note_fit(self.state.slide, self.table)  # so that predicting does not repeat the warning
        self.fit, slide, of = fit, self.state.slide, self._slide_of_spots
        if slide is not None and (of is None or (not of[1] and not fit.problem)):
            self._slide_of_spots = slide.identity, not fit.problem
        self.spots_changed.emit()
        if not fit.problem:
            self.fitted.emit()
