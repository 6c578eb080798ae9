"""What is made ready beside the event loop: for the first dock once a slide is there, then for the others."""

from __future__ import annotations

from napari_cpnn.ui.frame import WARM_UP, imports
from napari_cpnn.ui.viewer.preferences import wants_tour


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


def _make_colors() -> None:
    from napari_cpnn.painting import Look, color_table

    color_table(Look().colormap)


def _compile_shapes() -> None:
    from napari_cpnn.ui.regions import compile_shapes

    compile_shapes()
