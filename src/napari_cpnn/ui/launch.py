"""napari with a slide, the Explore dock and a running map: ``napari-cpnn open``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.errors import MappingError
from napari_cpnn.geometry import Mpp
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import open_slide

if TYPE_CHECKING:
    import napari

    from napari_cpnn.ui.explore import Explore

_WINDOW = (1500, 940)
_TIMEOUT_S = 600.0


def open_viewer(
    slide_path: str | Path,
    *,
    model_path: str | Path | None = None,
    mpp: float | Mpp | None = None,
    screenshot: str | Path | None = None,
    gene: str | None = None,
    cell_type: str | None = None,
    settings: MappingSettings | None = None,
) -> None:
    """Open napari on a slide and map what is in view; returns when the window is closed.

    Parameters
    ----------
    slide_path, mpp
        As for :func:`napari_cpnn.open_slide`.
    model_path
        A ``.safetensors`` model; without it the dock asks for one.
    screenshot
        Wait until the view is mapped, write this PNG (canvas and docks) and return.
    gene, cell_type
        What to show first.
    settings
        How maps are made.

    Raises
    ------
    CpnnError
        When the slide or, with ``screenshot``, the model or the gene cannot be used.
    MappingError
        When the view is not mapped in ten minutes (with ``screenshot``).
    """
    slide = open_slide(slide_path, mpp=mpp)

    import napari

    from napari_cpnn.ui.explore import Explore
    from napari_cpnn.ui.reader import slide_layer

    viewer = napari.Viewer(show=True)
    try:
        data, keywords, _ = slide_layer(slide)
        viewer.add_image(data, **keywords)
        dock = Explore(viewer, settings)
        viewer.window.add_dock_widget(dock, name="Explore (napari-cpnn)", area="right")
        if model_path is not None:
            dock.open_model(Path(model_path))
        dock.controller.show_first(gene=gene, cell_type=cell_type)
        if screenshot is None:
            napari.run()
            return
        _write_screenshot(viewer, dock, Path(screenshot))
    finally:
        if screenshot is not None:
            viewer.close()


def _write_screenshot(viewer: napari.Viewer, dock: Explore, path: Path) -> None:
    viewer.window.resize(*_WINDOW)
    _pump(0.5)
    viewer.reset_view()
    deadline = time.monotonic() + _TIMEOUT_S
    while not dock.is_settled():
        mapper = dock.state.mapper
        if dock.controller.problem is not None:
            raise dock.controller.problem
        if mapper is not None and mapper.error is not None:
            raise MappingError(f"Mapping stopped: {mapper.error}") from mapper.error
        if time.monotonic() > deadline:
            raise MappingError(
                f"{viewer.layers[0].name}: the view was not mapped in {_TIMEOUT_S:.0f} s "
                f"({dock.controller.progress_text() or dock.state.message or 'no model is loaded'})."
            )
        _pump(0.05)
    dock.session.overlays.paint_now()
    _pump(1.0)  # texts and legend follow a little later
    path.parent.mkdir(parents=True, exist_ok=True)
    viewer.screenshot(str(path), canvas_only=False, flash=False)


def _pump(seconds: float) -> None:
    """Let Qt work for a while."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)
