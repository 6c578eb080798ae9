"""What is made ready beside the event loop: for the first dock once a slide is there, then for the others."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject
from superqt.utils import qdebounced

from napari_cpnn.ui.frame import WARM_UP, imports
from napari_cpnn.ui.viewer.preferences import wants_tour
from napari_cpnn.ui.viewer.state import ExploreState

_REST_MS = 1000  # the dock is drawn before anything else is made ready
_MOST_TURNS = 60


def ready_for_explore() -> None:
    """Load what the Explore dock needs; a slide is on screen, and the dock is likely to be opened next."""
    WARM_UP.add(*imports("napari_cpnn.ui.explore", "Explore"), wants_tour, _make_colors)


def ready_for_more() -> None:
    """Load what the next actions in the Explore dock and the other docks need: torch, charts, shapes."""
    WARM_UP.add(
        *imports("napari_cpnn.models", "load_model"),
        *imports("napari_cpnn.mapping", "LiveMapper"),
        *imports("scipy.signal", "fftconvolve"),
        *imports("napari_cpnn.ui.regions", "Regions"),
        *imports("napari_cpnn.ui.compare", "Compare"),
        _compile_shapes,
        *imports("napari_cpnn.ui.finetune", "FineTune"),
        *imports("napari_cpnn.ui.prototypes", "PrototypesDock"),
    )


class GetReady:
    """Calls :func:`ready_for_more` soon, but not while a first picture is awaited, which it would delay.

    Parameters
    ----------
    state
        State of the viewer.
    is_loading
        Returns whether a model is being loaded.
    parent
        Qt's owner of the timer.
    """

    def __init__(self, state: ExploreState, is_loading: Callable[[], bool], parent: QObject) -> None:
        self._state, self._is_loading, self._turns = state, is_loading, 0
        self._look_later = qdebounced(self._look, timeout=_REST_MS, parent=parent)

    def __call__(self) -> None:
        self._turns = _MOST_TURNS
        self._look_later()

    def cancel(self) -> None:
        """Load nothing."""
        self._look_later.cancel()

    def _look(self) -> None:
        self._turns -= 1
        if self._turns > 0 and self._awaits_picture():
            self._look_later()
        else:
            ready_for_more()

    def _awaits_picture(self) -> bool:
        state, mapper = self._state, self._state.mapper
        if mapper is None:
            return self._is_loading() or (state.model is not None and state.slide is not None)
        progress = mapper.progress()
        return progress.running and not progress.idle and progress.done == 0


def _make_colors() -> None:
    from napari_cpnn.painting import Look, color_table

    color_table(Look().colormap)


def _compile_shapes() -> None:
    from napari_cpnn.ui.regions import compile_shapes

    compile_shapes()
