"""What the docks draw later is drawn once ahead, unseen: its shaders are compiled before somebody waits for them.

vispy compiles a program for each visual. Graphics drivers keep what they have compiled by its source text, so a second
visual of the same kind costs a small part of the first. Nothing of it reaches the screen: the layers are in no list,
their visuals are invisible to napari, and the scissor test keeps each pixel out of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components.overlays import ScaleBarOverlay, TextOverlay
from napari.layers import Points, Shapes

from napari_cpnn.painting import Look
from napari_cpnn.ui.canvas import Vectors, read_programs_once
from napari_cpnn.ui.explore.hatching import hatching_of
from napari_cpnn.ui.explore.overlay import map_layer, style_bar

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

#: A side that is a power of two has programs of its own in some drivers, and few maps have one.
_SHAPE = (5, 7)
#: Letters that legends and scale bars begin with.
_TEXT = "50 µm"


def drawings_ahead(viewer: Viewer) -> Iterator[str]:
    """Draw one of each kind of visual of the docks for the first time, a piece between two steps of the iterator.

    A piece is the build of a visual, or one of its shader programs compiled, or drawn. The iterator must go on in the
    thread of the window; closing it early leaves nothing behind.

    Parameters
    ----------
    viewer
        Viewer with a window that is shown.

    Yields
    ------
    str
        The kind of visual that was worked on.
    """
    read_programs_once()
    studio = _Studio(viewer)
    yield from studio.overlay("text", TextOverlay(text=_TEXT, box=True, font_size=9, visible=True))
    yield from studio.overlay("scale bar", ScaleBarOverlay(box=True, visible=True))
    of_map = map_layer(_SHAPE, "map")
    of_map.interpolation2d = "linear"
    yield from studio.layer("map", of_map, lambda: setattr(of_map, "interpolation2d", "nearest"))
    style_bar(of_map, Look().colormap)
    of_map.colorbar.visible = True
    yield from studio.overlay("colour bar", of_map.colorbar, layer=of_map)
    yield from studio.layer("hatching", hatching_of(np.ones(_SHAPE, np.uint8)))
    corners = np.array([[0.0, 0.0], [0.0, 4.0], [4.0, 4.0], [4.0, 0.0]])
    yield from studio.layer("lines", Vectors(np.stack([corners, corners], axis=1), vector_style="line"))
    yield from studio.layer("points", Points(corners, size=1.0))
    named = {"features": {"name": ["A"]}, "text": {"string": "{name}", "size": 11}}
    yield from studio.layer("shapes", Shapes([corners], shape_type="polygon", edge_width=1.0, **named))


class _Studio:
    """Where visuals of napari are drawn unseen, in the graphics context of a window."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._canvas: Any = viewer.window._qt_viewer.canvas  # noqa: SLF001 -- napari has no public name for it
        self._scene_canvas = self._canvas._scene_canvas  # noqa: SLF001

    def layer(self, name: str, layer: Layer, *changes: Callable[[], object]) -> Iterator[str]:
        """Draw a layer that is in no viewer, and again after each change."""
        from napari._vispy.utils.visual import create_vispy_layer

        visual = create_vispy_layer(layer, font_info=self._canvas.font_info())
        yield from self._drawn(name, visual, self._canvas.view.scene, changes)

    def overlay(self, name: str, overlay: Any, **of_layer: Layer) -> Iterator[str]:
        """Draw an overlay that is on no canvas."""
        from napari._vispy.utils.visual import create_vispy_overlay

        view = self._canvas.view
        keywords = {"overlay": overlay, "font_info": self._canvas.font_info(), "viewer": self._viewer}
        visual = create_vispy_overlay(**keywords, parent=view, **of_layer)
        yield from self._drawn(name, visual, view)

    def _drawn(
        self, name: str, visual: Any, parent: Any, changes: Iterable[Callable[[], object]] = ()
    ) -> Iterator[str]:
        nodes = [node for node in (getattr(visual, "box", None), visual.node) if node is not None]
        try:
            for node in nodes:
                node.visible = False  # napari draws it with none of its frames
                node.parent = parent
            yield name
            for change in (lambda: None, *changes):
                change()
                for node in nodes:
                    for part in self._parts(node):
                        yield from self._draw(name, part)
        finally:
            self._end(visual)

    def _draw(self, name: str, part: Any) -> Iterator[str]:
        program, context = part.view_program, self._scene_canvas.context
        program.build_if_needed()
        yield name
        with self._unseen():  # compiles
            context.glir.associate(program.glir)
        yield name
        with self._unseen():
            part._configure_gl_state()  # noqa: SLF001
            program.draw(part._draw_mode, part._index_buffer)  # noqa: SLF001
        yield name

    def _parts(self, node: Any) -> Iterator[Any]:
        """The visuals with a shader program of their own, made ready to be drawn."""
        self._scene_canvas.set_current()
        if hasattr(node, "_prepare_draw") and node._prepare_draw(view=node) is False:  # noqa: SLF001
            return
        if hasattr(node, "view_program"):
            yield node
        for part in getattr(node, "_subvisuals", ()):
            if part.visible:
                yield from self._parts(part)
        for child in getattr(node, "children", ()):
            yield from self._parts(child)

    @contextmanager
    def _unseen(self) -> Iterator[None]:
        """Keep what is drawn out of the picture."""
        context = self._scene_canvas.context
        self._scene_canvas.set_current()
        context.set_state(scissor_test=True)
        context.set_scissor(0, 0, 0, 0)
        try:
            yield
        finally:
            context.set_state(scissor_test=False)
            context.flush_commands()

    def _end(self, visual: Any) -> None:
        from napari.utils.events import disconnect_events

        visual.close()
        viewer = self._viewer  # whose events some visuals of napari stay connected to
        for events in (viewer.scene.camera.events, viewer.dims.events, viewer.canvas.overlay_tiling.events):
            disconnect_events(events, visual)
