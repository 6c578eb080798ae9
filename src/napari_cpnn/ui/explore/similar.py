"""Tissue like a clicked patch: features in the background, then similarity at once. No Qt here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_cpnn.errors import CpnnError
from napari_cpnn.mapping import SimilarTissue, TissueFeatures, tissue_features
from napari_cpnn.settings import MappingSettings
from napari_cpnn.texts import duration
from napari_cpnn.ui.frame import Tasks
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari_cpnn.arrays import Picture
    from napari_cpnn.mapping import LiveMapper
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Background

_N = 20
#: Side of a picture in the gallery, in px.
PICTURE_PX = 72


class _StoppedError(CpnnError):
    """The features are no longer wanted."""


class Similar:
    """Compares the tissue of the slide with a patch that the user clicks.

    Attributes
    ----------
    active
        Whether a click chooses a patch.
    found
        The result; None while there is none.
    pictures
        The chosen patch, then the most similar ones, ``(k + 1, P, P, 3)`` uint8; None until they are read.
    message
        What to do, how far the features are, or what went wrong.
    """

    changed = Signal()
    pictures_changed = Signal()

    def __init__(
        self,
        state: ExploreState,
        background: Background,
        notify: Callable[[CpnnError], None],
        settings: Callable[[], MappingSettings],
    ) -> None:
        self._state, self._settings = state, settings
        self._tasks = Tasks(background, notify)
        self.active = False
        self.found: SimilarTissue | None = None
        self.pictures: list[Picture] | None = None
        self._problem = self._progress = ""
        self._features: tuple[LiveMapper, TissueFeatures] | None = None
        self._at_um: tuple[float, float] | None = None
        self._wanted: LiveMapper | None = None
        for changed in (state.mapper_changed, state.slide_changed):
            changed.connect(self._map_changed)

    @property
    def message(self) -> str:
        """What to do, how far the features are, or what went wrong."""
        if not self.active:
            return ""
        if self._problem:
            return self._problem
        if self._tasks.is_running("features"):
            return f"Looking at all tissue, once per slide: {self._progress or 'starting'} ..."
        if self._state.mapper is None:
            return "Open a slide and a model first."
        if self.found is None:
            return "Click a place on the tissue."
        return f"{len(self.found.places)} most similar places; click a picture to go there."

    @property
    def is_running(self) -> bool:
        """True while features or similarities are computed."""
        return any(self._tasks.is_running(kind) for kind in ("features", "like", "pictures"))

    def set_active(self, on: bool) -> None:
        """Choose patches by clicks from now on, or no longer; features are computed at once."""
        self.active = on
        if on:
            self._compute()
        else:
            self._stop()
        self.changed.emit()

    def pick(self, at_um: tuple[float, float]) -> None:
        """Compare with the patch at a point (y, x) in slide um."""
        if not self.active:
            return
        self._at_um, self._problem = at_um, ""
        if self._features is None:
            self._compute()
        else:
            self._compare()
        self.changed.emit()

    def center_um(self, row: int) -> tuple[float, float] | None:
        """Return the place of a picture of the gallery (0: the chosen patch), slide um."""
        if self.found is None or self._features is None:
            return None
        patch = self.found.at if row == 0 else tuple(self.found.places[row - 1])
        y, x = self._features[1].grid.centers_um([patch])[0]
        return float(y), float(x)

    def update(self) -> None:
        """Show the progress; called a few times a second."""
        if self._tasks.is_running("features"):
            self.changed.emit()

    def close(self) -> None:
        """Stop computing and ignore results."""
        self._stop()
        self._tasks.close()
        for changed in (self._state.mapper_changed, self._state.slide_changed):
            changed.disconnect(self._map_changed, missing_ok=True)

    def _stop(self) -> None:
        self._wanted, self._features, self.found, self.pictures, self._at_um = None, None, None, None, None
        self._tasks.forget("features", "like", "pictures")

    def _map_changed(self) -> None:
        mapper = self._state.mapper
        if mapper is not None and mapper is self._wanted:
            return
        self._stop()
        if self.active and mapper is not None:
            self._compute()
        self.changed.emit()

    def _compute(self) -> None:
        slide, model, mapper = self._state.slide, self._state.model, self._state.mapper
        if slide is None or model is None or mapper is None or mapper is self._wanted:
            return
        self._wanted, self._problem, self._progress = mapper, "", ""

        began = time.monotonic()

        def progress(text: str, done: float) -> None:
            if self._wanted is not mapper:
                raise _StoppedError("The features are no longer wanted.")
            left = (time.monotonic() - began) * (1 - done) / done if done > 0 else 0.0
            self._progress = f"{text}, about {duration(left)} left" if done > 0 else text

        def work() -> TissueFeatures:
            return _features(slide, model, mapper, self._settings(), progress)

        def ready(features: TissueFeatures) -> None:
            self._features = mapper, features
            if self._at_um is not None:
                self._compare()
            self.changed.emit()

        self._run("features", work, ready)

    def _compare(self) -> None:
        at_um, features, slide = self._at_um, self._features, self._state.slide
        if at_um is None or features is None or slide is None:
            return

        def ready(found: SimilarTissue) -> None:
            self.found, self.pictures = found, None
            self.changed.emit()
            patches = np.concatenate([np.array([found.at]), found.places])
            centers, size = features[1].grid.centers_um(patches), features[0].predictor.model.patch.size_um
            self._run("pictures", lambda: [_picture(slide, center, size) for center in centers], self._pictured)

        self._run("like", lambda: features[1].like(at_um, _N), ready)

    def _pictured(self, pictures: list[Picture]) -> None:
        self.pictures = pictures
        self.pictures_changed.emit()

    def _run(self, kind: str, work: Callable[[], object], ready: Callable[..., None]) -> None:
        def guarded() -> object:
            try:
                return work()
            except CpnnError as error:
                return error

        def done(result: object) -> None:
            if isinstance(result, CpnnError):
                self._problem = "" if isinstance(result, _StoppedError) else str(result)
                self.changed.emit()
            else:
                ready(result)

        self._tasks.run(kind, "", guarded, done)


def _features(
    slide: Slide,
    model: CPNN,
    mapper: LiveMapper,
    settings: MappingSettings,
    progress: Callable[[str, float], None],
) -> TissueFeatures:
    return tissue_features(slide, model, mapper.map, settings, mapper.predictor, progress)


def _picture(slide: Slide, center_um: tuple[float, float], size_um: float) -> Picture:
    """Return the tissue around a place, `PICTURE_PX` wide."""
    from napari_cpnn.geometry import PatchSpec
    from napari_cpnn.slides import read_patches

    (picture,) = read_patches(slide, [center_um], PatchSpec(PICTURE_PX, size_um / PICTURE_PX))
    return np.asarray(picture)
