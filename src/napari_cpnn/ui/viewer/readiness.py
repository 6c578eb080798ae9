"""What is made ready for later actions: for the first dock once a slide is there, then for the others.

Most of it is done beside the event loop. Shaders can be compiled in the window's thread only, so this is done piece by
piece while the window is at rest.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from qtpy.QtCore import QObject
from superqt.utils import qdebounced

from napari_cpnn.ui.frame import WARM_UP, WhenStill, imports
from napari_cpnn.ui.viewer.preferences import wants_tour
from napari_cpnn.ui.viewer.state import state_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

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
        _make_colors,
        *imports("napari_cpnn.ui.sessions", "session_of"),
        *imports("napari_cpnn.ui.regions", "Regions"),
        *imports("napari_cpnn.ui.compare", "Compare"),
        *imports("napari_cpnn.evaluation", "SignaturePair"),
        _compile_shapes,
        *imports("napari_cpnn.ui.finetune", "FineTune"),
        *imports("napari_cpnn.ui.prototypes", "PrototypesDock"),
    )


_DRAWING_AHEAD: WeakKeyDictionary[Any, WhenStill] = WeakKeyDictionary()


def draw_ahead(viewer: ViewerModel) -> WhenStill | None:
    """Have shaders of the docks compiled while the window of a viewer is at rest, once; without a window do nothing."""
    viewer = getattr(viewer, "__wrapped__", viewer)
    window = getattr(viewer, "window", None)
    if viewer not in _DRAWING_AHEAD and window is not None:
        main = window._qt_window  # noqa: SLF001 -- napari has no public name for it
        if not main.isVisible():
            return None
        seen, state = weakref.ref(viewer), state_of(viewer)

        def steps() -> Iterator[str]:
            from napari_cpnn.ui.explore import drawings_ahead  # loaded beside the event loop by now

            viewer = seen()
            return iter(()) if viewer is None else drawings_ahead(viewer)

        _DRAWING_AHEAD[viewer] = WhenStill(main, steps, lambda: WARM_UP.is_running or state.awaits_picture)
    return _DRAWING_AHEAD.get(viewer)


class GetReady:
    """Calls :func:`ready_for_more` soon, but not while a first picture is awaited, which it would delay.

    Parameters
    ----------
    viewer
        The viewer, for :func:`draw_ahead`.
    awaits_picture
        Returns whether a first picture is awaited.
    parent
        Qt's owner of the timer.
    """

    def __init__(self, viewer: ViewerModel, awaits_picture: Callable[[], bool], parent: QObject) -> None:
        self._viewer, self._awaits_picture, self._turns = viewer, awaits_picture, 0
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
            draw_ahead(self._viewer)


def _make_colors() -> None:
    from napari_cpnn.painting import Look, color_table

    color_table(Look().colormap)


def _compile_shapes() -> None:
    from napari_cpnn.ui.regions import compile_shapes

    compile_shapes()
