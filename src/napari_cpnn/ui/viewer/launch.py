"""Open napari with a slide, the Explore dock and a running map: ``napari-cpnn open``."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QCoreApplication
from qtpy.QtWidgets import QMainWindow

from napari_cpnn.errors import ExportError, MappingError
from napari_cpnn.geometry import Mpp
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import open_slide
from napari_cpnn.storage import whole_file
from napari_cpnn.ui.frame import place_dock, show_dock
from napari_cpnn.ui.viewer.display import checking_display
from napari_cpnn.ui.viewer.first_frame import FirstFrame
from napari_cpnn.ui.viewer.state import state_of
from napari_cpnn.untrusted import to_path

if TYPE_CHECKING:
    import napari

    from napari_cpnn.ui.explore import Explore

_WINDOW = (1500, 940)
_TIMEOUT_S = 600.0
_RESIZING_S = 2.0
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True)
class First:
    """What a window shows first: a gene, a cell type, or gene sets (see :func:`~napari_cpnn.mapping.gene_sets_of`)."""

    gene: str | None = None
    cell_type: str | None = None
    signature: str | None = None


def open_viewer(
    slide_path: str | Path,
    *,
    model_path: str | Path | None = None,
    mpp: float | Mpp | None = None,
    screenshot: str | Path | None = None,
    first: First | None = None,
    hierarchy: Mapping[str, str] | None = None,
    settings: MappingSettings | None = None,
    retry: str | None = None,
) -> None:
    """Open napari on a slide and map what is in view; returns when the window is closed.

    Parameters
    ----------
    slide_path, mpp
        As for :func:`napari_cpnn.open_slide`.
    model_path
        A ``.safetensors`` model; without one, the dock asks for it.
    screenshot
        Picture of canvas and docks to write when the view is mapped, before returning.
    first
        What is shown first; by default the dominant types.
    hierarchy
        Major type by cell type, for models without.
    settings
        Settings of maps.
    retry
        Command that makes a picture without a screen, for the message that there is none; by default one that opens
        the slide.

    Raises
    ------
    CpnnError
        When there is no display, or the slide or, with ``screenshot``, the model or the gene cannot be used.
    ExportError
        When the screenshot cannot be written.
    MappingError
        When the view is not mapped in ten minutes (with ``screenshot``).
    """
    if screenshot is not None:
        require_picture(Path(screenshot))
    needs_map = screenshot is not None and model_path is not None
    viewer, dock = start_viewer(
        slide_path,
        model_path=model_path,
        mpp=mpp,
        hierarchy=hierarchy,
        settings=settings,
        needs_map=needs_map,
        retry=retry,
    )
    try:
        if screenshot is not None:
            dock.controller.be_quiet()  # the problem is raised, and need not be a notification as well
            dock.make_nothing_ready()
        if first is not None:
            dock.controller.show_first(gene=first.gene, cell_type=first.cell_type)
        if first is not None and first.signature is not None:
            dock.signatures.show_first(first.signature)
        if screenshot is None:
            import napari

            dock.offer_tour()
            napari.run()
            return
        _resize(viewer)
        viewer.reset_view()
        wait_until_mapped(viewer, dock)
        save_screenshot(viewer, Path(screenshot))
    finally:
        dock.end(viewer_lives=False)
        if screenshot is not None:
            viewer.close()


def start_viewer(
    slide_path: str | Path,
    *,
    model_path: str | Path | None = None,
    mpp: float | Mpp | None = None,
    hierarchy: Mapping[str, str] | None = None,
    settings: MappingSettings | None = None,
    needs_map: bool = False,
    retry: str | None = None,
) -> tuple[napari.Viewer, Explore]:
    """Open a window with the slide and the Explore dock, which starts mapping if there is a model.

    With ``needs_map``, a slide that cannot be mapped as it is, such as one without pixel size, is an error.
    """
    model = "" if model_path is None else f" --model {shlex.quote(str(model_path))}"
    retry = retry or f"napari-cpnn open {shlex.quote(str(slide_path))}{model} --screenshot picture.png"
    with checking_display(retry) if QCoreApplication.instance() is None else nullcontext():
        slide = open_slide(slide_path, mpp=mpp)
        if needs_map:
            slide.require_mappable()

        import napari.window  # with all of napari that a window needs

        from napari_cpnn.ui.canvas import canvas_of
        from napari_cpnn.ui.explore import Explore
        from napari_cpnn.ui.layers import slide_layer

    viewer = napari.Viewer(show=False)  # a window that is visible is drawn at each change
    first_frame = FirstFrame()
    state_of(viewer).before_loading = first_frame.wait
    dock = Explore(viewer, settings)
    dock.controller.hierarchy = dict(hierarchy or {})
    dock.is_quiet = True
    place_dock(dock, "Explore")
    if model_path is not None:
        dock.open_model(Path(model_path))
    data, keywords, _ = slide_layer(slide)
    viewer.add_image(data, **keywords)  # when the model is known, so that no other is loaded for a slide that has one
    window = dock.window()
    first_frame.watch(canvas_of(window) if isinstance(window, QMainWindow) else None)
    viewer.show()
    return viewer, dock


def explore_sample(path: Path, model: str, gene: str) -> None:
    """Explore a slide that is about to be added to napari's current viewer, with a model and at first a gene of it.

    The Explore dock is opened if there is none. Without a window nothing is done.
    """
    import napari

    from napari_cpnn.ui.layers import path_of

    viewer = napari.current_viewer()
    if viewer is None:
        return
    dock: Explore = show_dock(viewer, "Explore")
    dock.open_model(Path(model))
    if dock.state.model is None:
        dock.controller.show_first(gene=gene)

    def choose(event: Any) -> None:
        if path_of(event.value) == path:
            viewer.layers.events.inserted.disconnect(choose)
            if dock.state.layer is not event.value:
                dock.session.choose(event.value)

    viewer.layers.events.inserted.connect(choose)


def wait_until_mapped(viewer: napari.Viewer, dock: Explore, timeout_s: float = _TIMEOUT_S) -> None:
    """Process Qt events until the view is mapped and drawn, on the canvas and in the dock.

    Raises
    ------
    CpnnError
        The problem shown in the dock.
    MappingError
        When mapping stopped, or takes longer than ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if dock.is_settled() and not dock.signatures.is_choosing:
            dock.finish_drawing()
            viewer.screenshot(flash=False)  # napari lays texts out while it draws, which may move the view
            pump(0.0)
            if dock.is_settled() and dock.is_drawn():
                return
        mapper = dock.state.mapper
        if dock.controller.problem is not None:
            raise dock.controller.problem
        if dock.signatures.problem is not None:
            raise dock.signatures.problem
        if mapper is not None and mapper.error is not None:
            raise MappingError(f"Mapping stopped: {mapper.error}") from mapper.error
        if time.monotonic() > deadline:
            raise MappingError(
                f"{viewer.layers[0].name}: the view was not mapped in {timeout_s:.0f} s "
                f"({dock.controller.progress_text() or dock.state.message or 'no model is loaded'})."
            )
        pump(0.05)


def _resize(viewer: napari.Viewer) -> None:
    """Give the window its size, and wait until the canvas has followed, a screen that is too small no longer."""
    viewer.window.resize(*_WINDOW)
    deadline = time.monotonic() + _RESIZING_S
    while tuple(viewer.window.geometry()[2:]) != _WINDOW and time.monotonic() < deadline:
        pump(0.01)
    pump(0.0)


def save_screenshot(viewer: napari.Viewer, path: Path) -> None:
    """Write a picture of the whole window; its suffix is one of :func:`require_picture`."""
    with whole_file(path, ExportError) as temporary:
        viewer.screenshot(str(temporary), canvas_only=False, flash=False)


def require_picture(path: Path) -> None:
    """Check the file name of a screenshot before anything is opened.

    Raises
    ------
    ExportError
        When the suffix is not that of a picture, or the name is not valid on this system.
    """
    to_path(path, ExportError)
    if path.suffix.lower() not in _PICTURES:
        raise ExportError(f"{path} is not the name of a picture; its ending must be one of {', '.join(_PICTURES)}.")


def pump(seconds: float) -> None:
    """Process Qt events for some seconds."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    QApplication.processEvents()
    while time.monotonic() < end:
        time.sleep(0.01)
        QApplication.processEvents()
