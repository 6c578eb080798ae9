"""Pairs of landmarks, and the registration that follows from them. No Qt here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnError, RegistrationError
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.registration import (
    Kind,
    Moving,
    Registration,
    apply_registration,
    fit_landmarks,
    guess_registration,
    load_registration,
    open_moving,
    require_fixed,
    require_inside,
    save_registration,
    with_moving_mpp,
)
from napari_cpnn.storage import require_separate
from napari_cpnn.ui.align.words import hint
from napari_cpnn.ui.frame import Tasks
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Background

Point = tuple[float, float]

#: What lies on the slide is at most so many times as large.
_VAST = 30
LEAST: dict[Kind, int] = {"similarity": 2, "affine": 3, "thin-plate": 3}


@dataclass(frozen=True)
class Pair:
    """The same place in both pictures, um ``(y, x)``; None where it is not set yet."""

    moving: Point | None = None
    fixed: Point | None = None


class AlignController:
    """What is registered to the slide of a viewer, by which landmarks, and how well.

    Parameters
    ----------
    state
        State of the viewer; its slide is the fixed one.
    background, notify
        As for :class:`~napari_cpnn.ui.frame.tasks.Tasks`.

    Attributes
    ----------
    moving
        What is registered; None before it is opened.
    files
        Its file, and that of the positions of spots if it is another one; those that are known.
    pairs
        Landmarks; at most the last one lacks a side.
    found
        The registration by the landmarks, or else the one that was guessed or read; None if there is none.
    """

    moving_changed = Signal()
    changed = Signal()
    """Emitted when landmarks or registration have changed."""

    def __init__(self, state: ExploreState, background: Background, notify: Callable[[CpnnError], None]) -> None:
        self.state = state
        self.moving: Moving | None = None
        self.files: tuple[Path, ...] = ()
        self.pairs: tuple[Pair, ...] = ()
        self.kind: Kind = "similarity"
        self.mirror: bool | None = None
        self.given: Registration | None = None
        self.found: Registration | None = None
        self.tasks = Tasks(background, notify, self._hint)
        state.slide_changed.connect(self._slide_changed)
        self.tasks.update()

    def close(self) -> None:
        """Ignore results from now on."""
        self.tasks.close()
        self.state.history.forget(self)
        self.state.slide_changed.disconnect(self._slide_changed)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is running."""
        return not any(self.tasks.is_running(kind) for kind in ("open", "guess", "picture"))

    @property
    def complete(self) -> tuple[Pair, ...]:
        """Pairs with both sides."""
        return tuple(pair for pair in self.pairs if pair.moving is not None and pair.fixed is not None)

    @property
    def open_side(self) -> str:
        """The side that the last pair lacks: ``moving``, ``fixed`` or empty."""
        last = self.pairs[-1] if self.pairs else Pair((0, 0), (0, 0))
        return "moving" if last.moving is None else "fixed" if last.fixed is None else ""

    # -- what is registered --------------------------------------------------------------------------------

    def open(self, path: str | Path, positions: str | Path | None = None) -> None:
        """Open a slide or spots to register."""
        path = Path(path)
        files = (path,) if positions is None else (path, Path(positions))
        self.tasks.run(
            "open", f"Reading {path.name} ...", lambda: open_moving(path, positions), lambda one: self.use(one, files)
        )

    def take(self, name: str, work: Callable[[], Moving], files: tuple[Path, ...] = ()) -> None:
        """Register what ``work`` returns, such as the slide of a layer."""
        self.tasks.run("open", f"Reading {name} ...", work, lambda one: self.use(one, files))

    def use(self, moving: Moving | None, files: tuple[Path, ...] = ()) -> None:
        """Register this; landmarks of another picture are dropped."""
        self.tasks.forget("guess", "picture")
        self.moving, self.files, self.pairs, self.given = moving, files, (), None
        self.state.history.forget(self)
        self.moving_changed.emit()
        self.fit()

    # -- landmarks -----------------------------------------------------------------------------------------

    def click(self, side: str, at: Point) -> None:
        """Set one side of the pair that lacks it, or begin a new pair; a side that waits for the other is moved."""
        if self.moving is None or self.state.slide is None:
            return
        if side == "fixed":
            try:
                require_inside(np.array([at]), self.state.slide)
            except RegistrationError:
                self.tasks.set_problem(RegistrationError("That place is beside the slide; click where the slide is."))
                return
        last = self.pairs[-1] if self.open_side else None
        pairs = self.pairs[:-1] if last is not None else self.pairs
        changed = dataclasses.replace(last or Pair(), **{side: (float(at[0]), float(at[1]))})
        self._set((*pairs, changed), f"landmark {len(pairs) + 1}", self.given)

    def remove(self, rows: list[int]) -> None:
        """Remove some pairs."""
        gone = {row for row in rows if 0 <= row < len(self.pairs)}
        if gone:
            kept = tuple(pair for i, pair in enumerate(self.pairs) if i not in gone)
            self._set(kept, "removed landmarks", self.given)

    def clear(self) -> None:
        """Remove all landmarks, and what was guessed or read."""
        if self.pairs or self.given is not None:
            self._set((), "removed landmarks", None)

    def _set(self, pairs: tuple[Pair, ...], name: str, given: Registration | None) -> None:
        """Take other landmarks, and what was guessed or read; the step can be taken back."""
        before = self.pairs, self.given

        def undo() -> None:
            self.pairs, self.given = before
            self.fit()

        self.pairs, self.given = pairs, given
        self.state.history.add(name, undo, owner=self)
        self.fit()

    def set_kind(self, kind: Kind) -> None:
        """Fit another kind of map."""
        self.kind = kind
        self.fit()

    def set_mirror(self, mirror: bool | None) -> None:
        """Say whether the moving picture is mirrored; None: what fits better."""
        self.mirror = mirror
        self.fit()

    # -- the registration ----------------------------------------------------------------------------------

    def fit(self) -> None:
        """Fit the landmarks; with too few of them, what was guessed or read holds."""
        self.tasks.set_problem(None)
        self.found = self.given
        pairs, slide = self.complete, self.state.slide
        if self.moving is not None and slide is not None and slide.mpp is not None and len(pairs) >= LEAST[self.kind]:
            there, here = (np.array([getattr(pair, side) for pair in pairs]) for side in ("moving", "fixed"))
            names = self.moving.name, slide.name
            try:
                self.found = fit_landmarks(
                    there, here, self.kind, self.mirror, mpp=(self.moving.mpp, slide.mpp), names=names
                )
            except RegistrationError as error:  # the last good one would not be that of the landmarks
                self.found = None
                self.tasks.set_problem(error)
            else:
                self._refuse_vast(self.found, slide)
        self.changed.emit()
        self.tasks.update()

    def _refuse_vast(self, found: Registration, slide: Slide) -> None:
        """Refuse a map by which the moving picture is vastly larger than the slide, as of landmarks in one spot."""
        own = self.moving.slide if self.moving is not None else None
        corners = self.spots_um() if own is None else np.array([(0, 0), own.shape[:2]]) * found.moving_mpp
        corners = corners[np.isfinite(corners).all(axis=1)]
        if not len(corners) or slide.mpp is None:
            return
        size_um = float(max(slide.shape[0] * slide.mpp[0], slide.shape[1] * slide.mpp[1]))
        times = found.scale * float(np.ptp(corners, axis=0).max()) / size_um
        if times > _VAST:
            self.found = None
            self.tasks.set_problem(
                RegistrationError(
                    f"By these landmarks {found.moving_name} would be {times:,.0f} times as large as the slide; check "
                    "the pairs, and set them far apart."
                )
            )

    def guess(self) -> None:
        """Find a registration from the tissue and the pictures."""
        slide, moving = self.state.slide, self.moving
        if slide is None or moving is None:
            self.tasks.fail(RegistrationError("There is nothing to align yet: open a slide, and what lies on it."))
            return
        text = "Laying one tissue on the other at all angles ..."
        self.tasks.run("guess", text, lambda: guess_registration(slide, moving.content, moving.name), self._guessed)

    def _guessed(self, found: Registration) -> None:
        self._set((), "first guess", found)  # landmarks would override it; they come back with undo

    def read(self, path: str | Path) -> None:
        """Take a registration from its file; its landmarks become those of the dock."""
        try:
            found = load_registration(path)
            if self.state.slide is None or self.moving is None:
                raise RegistrationError("Open the slide, and what lies on it, before their registration is read.")
            require_fixed(found, self.state.slide)
            found = with_moving_mpp(found, self.moving.mpp)
        except CpnnError as error:
            self.tasks.fail(error)
            return
        self.tasks.forget("guess")
        if len(found.moving):
            # Two landmarks do not tell whether the picture is mirrored, but the file does.
            self.kind, self.mirror = found.kind, found.mirrored if found.kind == "similarity" else None
            pairs = zip(found.moving.tolist(), found.fixed.tolist(), strict=True)
            self._set(tuple(Pair((a[0], a[1]), (b[0], b[1])) for a, b in pairs), "landmarks of a file", None)
        else:
            self._set((), "registration of a file", found)

    def save(self, path: str | Path) -> None:
        """Write the registration; the dialog has asked whether a file may be replaced."""
        if self.found is None:
            return
        try:
            moving = None if self.moving is None else self.moving.slide
            read = [*self.files, *(slide.path for slide in (moving, self.state.slide) if slide is not None)]
            require_separate([Path(path)], read, RegistrationError)
            save_registration(self.found, path, overwrite=True)
        except CpnnError as error:
            self.tasks.fail(error)

    @property
    def suggested_file(self) -> str:
        """Where a registration is saved unless the user chooses another name: beside what is registered."""
        if not self.files:
            return "registration.json"
        return str(self.files[0].parent / f"{self.files[0].name.split('.')[0]}.registration.json")

    def moved_spots(self) -> AnnData | None:
        """Return a copy of the spots at their places on the slide; None if there are none."""
        if self.found is None or self.moving is None or self.moving.spots is None:
            return None
        try:
            return apply_registration(self.moving.spots, self.found, self.state.slide)
        except CpnnError as error:
            self.tasks.fail(error)
            return None

    def mapped_spots_um(self) -> FloatArray:
        """Return the places ``(N, 2)`` of the spots on the slide, um ``(y, x)``."""
        if self.found is None or self.moving is None or self.moving.spots is None:
            return np.empty((0, 2))
        return self.found.map(self.spots_um())

    def spots_um(self) -> FloatArray:
        """Return the places ``(N, 2)`` of the spots in their own picture, um ``(y, x)``."""
        if self.moving is None or self.moving.spots is None:
            return np.empty((0, 2))
        spatial: Any = np.asarray(self.moving.spots.obsm["spatial"], dtype=np.float64)
        return spatial_to_um(spatial, self.moving.mpp)

    def _slide_changed(self) -> None:
        """Landmarks of another slide, and a guess that is under way, say nothing about this one."""
        self.tasks.forget("guess")
        self.pairs, self.given = (), None
        self.state.history.forget(self)
        self.fit()

    def _hint(self) -> str:
        return hint(
            has_slide=self.state.slide is not None,
            has_moving=self.moving is not None,
            n_pairs=len(self.complete) if self.given is None else LEAST[self.kind],
            open_side=self.open_side,
            least=LEAST[self.kind],
        )
