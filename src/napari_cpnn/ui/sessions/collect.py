"""Read from a viewer what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cpnn.errors import SessionError
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import UNKNOWN
from napari_cpnn.painting import scale_of
from napari_cpnn.palette import chosen_color
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import copy_identity
from napari_cpnn.ui.cells import FOUND
from napari_cpnn.ui.export import marks_on_screen
from napari_cpnn.ui.layers import SPOTS_KEY, TABLE_KEY, holds_regions, read_viewport
from napari_cpnn.ui.regions import regions_of
from napari_cpnn.ui.sessions.session import CellsOnScreen, ModelFile, PanelOnScreen, Session, SlideFile, View
from napari_cpnn.ui.viewer import Memory, state_of

if TYPE_CHECKING:
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.geometry import Mpp
    from napari_cpnn.models import CPNN
    from napari_cpnn.regions import Region
    from napari_cpnn.ui.viewer import ExploreState


def dock_of(viewer: Any, page: str) -> Any | None:
    """Return the dock of a viewer with a page of the guide, such as ``explore``; ``None`` if it is not open."""
    docks = state_of(viewer).docks.values()
    return next((dock for dock in docks if dock.page == page and not dock.has_ended), None)


def session_of(viewer: Any, explore: Any) -> Session:
    """Return what a viewer shows, with its Explore dock.

    Raises
    ------
    SessionError
        If no slide is open, or it has no pixel size, or no file.
    """
    state = state_of(viewer)
    layer, slide = state.layer, state.slide
    if layer is None or slide is None:
        raise SessionError("No slide is open yet: open one, and choose it in the Explore dock.")
    if slide.mpp is None:
        raise SessionError(f"The pixel size of {slide.name} is not known: enter it in the Explore dock first.")
    if slide.path is None:
        raise SessionError(f"{slide.name} has no file, so that it could not be opened again; save it as a TIFF first.")
    regions, dock = regions_on(viewer, layer, slide.mpp), dock_of(viewer, "regions")
    compare = dock_of(viewer, "compare")
    memory = state.memory or Memory()
    if not regions and memory.regions and dock is None:  # the Regions dock was not opened this time
        regions = _remembered(memory)
    viewport, marks = read_viewport(viewer, layer, slide.mpp), marks_on_screen(viewer, layer, slide.mpp)
    return Session(
        slide=SlideFile(slide.path.absolute(), slide.name, "", slide.mpp),
        memory=Memory(
            shown=state.shown,
            look=state.look,
            spots=memory.spots,
            move=memory.move,
            library=memory.library,
            warp=memory.warp,
        ),
        model=_model_of(state.model, explore.controller.model_path),
        view=None if viewport is None else View(viewport.rect, viewport.px_per_um),
        level=state.level,
        limits=state.limits,
        colors=_chosen_colors(state),
        hierarchy=dict(explore.controller.hierarchy),
        regions=tuple(regions),
        outlined=tuple(name for name, _ in marks.outlines),
        draws_spots=bool(marks.spots),
        painted=None if compare is None else compare.painted,
        region_genes=() if dock is None else dock.controller.genes,
        pair=None if dock is None else dock.controller.pair,
        has_spots=bool(memory.spots) and any({SPOTS_KEY, TABLE_KEY} & set(one.metadata) for one in viewer.layers),
        settings=MappingSettings() if state.mapper is None else state.mapper.settings,
        finer=explore.finer.parts,
        exports=tuple(state.exports),
        panels=_panels_of(dock_of(viewer, "panels")),
        cells=_cells_of(dock_of(viewer, "cells")),
        **_of_map(state, viewport),
    )


def identified(session: Session) -> Session:
    """Return a session with the identity of its slide's file, which is read.

    Raises
    ------
    SessionError
        If it cannot be read.
    """
    import dataclasses

    try:
        identity = copy_identity(session.slide.path)
    except OSError as error:
        raise SessionError(f"{session.slide.path} cannot be read: {error.strerror or error}.") from error
    return dataclasses.replace(session, slide=dataclasses.replace(session.slide, identity=identity))


def regions_on(viewer: ViewerModel, slide_layer: Layer, mpp: Mpp) -> list[Region]:
    """Return the regions of all layers of shapes."""
    found: list[Region] = []
    for proxy in viewer.layers:
        layer = getattr(proxy, "__wrapped__", proxy)
        if holds_regions(layer):
            found += regions_of(layer, slide_layer, mpp)[1]
    return found


def _remembered(memory: Memory) -> list[Region]:
    import shapely

    from napari_cpnn.regions import Region

    return [Region(name, shapely.from_wkt(outline)) for name, outline in memory.regions]


def _model_of(model: CPNN | None, path: Path | None) -> ModelFile | None:
    from napari_cpnn.models import ZOO

    if model is None:
        return None
    name = "" if path is None else next((name for name, model in ZOO.items() if model.path == path), "")
    return ModelFile(None if path is None else path.absolute(), name, model.title, model.fingerprint)


def _panels_of(dock: Any | None) -> tuple[PanelOnScreen, ...]:
    """Return the panels on screen, as the figure of the Panels dock has them."""
    if dock is None or not dock.are_shown:
        return ()
    sources, found = dock.controller.sources, []
    for job, painted, limits, title in dock.controller.rows():
        spec, slide, missing = job.spec, job.slide, job.missing
        if not missing and (slide is None or job.view is None):
            missing = "the slide is being opened"
        other = None
        if spec.source.slide and slide is not None:
            if slide.path is None:
                missing = "its slide has no file"
            else:
                other = SlideFile(slide.path.absolute(), slide.name, "", slide.mpp)
        model = None if spec.source.model is None else _model_of(sources.model(spec.source), spec.source.model)
        if spec.kind == "spots" and not missing:
            missing = painted.note if painted.centers_um is None else ""
        rect = job.view or Rect(0, 0, 1, 1)
        found.append(PanelOnScreen(spec.kind, spec.shown, rect, limits, title, other, model, missing))
    return tuple(found)


def _cells_of(dock: Any | None) -> CellsOnScreen | None:
    """Return the cells on screen: by their file, or as those that were found on the slide."""
    if dock is None or dock.controller.content is None:
        return None
    controller, file = dock.controller, dock.controller.sources.file
    missing = "" if file is not None or controller.source == FOUND else "they have no file yet"
    return CellsOnScreen(file, controller.shown, dock.visible.isChecked(), missing)


def _chosen_colors(state: ExploreState) -> dict[str, str]:
    if state.model is None:
        return {}
    names = dict.fromkeys([*state.model.hierarchy.values(), *state.model.cell_types])
    chosen = {name: chosen_color(name) for name in names}
    return {name: color for name, color in chosen.items() if color is not None}


def _of_map(state: ExploreState, viewport: Any) -> dict[str, Any]:
    """Return what a session says of the map."""
    cmap, shown = state.map, state.shown
    if cmap is None:
        return {}
    missing = (cmap.state == UNKNOWN) & cmap.tissue
    window = ... if viewport is None else cmap.grid.window(viewport.rect)
    return {
        "scale_um": 0.0 if shown is None else scale_of(cmap, shown, state.look.scale_um),
        "stride_um": float(cmap.grid.stride_um),
        "marks": tuple((places.gene, places.side, places.fdr) for places in cmap.marked.values()),
        "is_whole": not missing.any(),
        "is_coarse": bool(missing[window].any()),
    }
