"""Session files (``.cpnn.json``): what a window shows, to be opened elsewhere. No Qt here."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, cast, get_args

from napari_cpnn._version import __version__
from napari_cpnn.errors import SessionError
from napari_cpnn.geometry import Rect, as_mpp
from napari_cpnn.palette import as_level
from napari_cpnn.regions import geojson_of, regions_in
from napari_cpnn.slides import copy_identity, resolve_path
from napari_cpnn.storage import whole_file
from napari_cpnn.ui.cells import CellKind, CellShown
from napari_cpnn.ui.explore import STEPS
from napari_cpnn.ui.panels import MOST_PANELS, Kind
from napari_cpnn.ui.sessions.session import CellsOnScreen, ModelFile, PanelOnScreen, Session, SlideFile, View
from napari_cpnn.ui.viewer import memory_in, shown_in
from napari_cpnn.untrusted import parse_json, read_bytes, reading, to_path

ENDING = ".cpnn.json"
FORMAT, VERSION = "napari-cpnn session", 1

_MOST_BYTES = 64 * 2**20
_MOST_VIEW_UM = 1e7
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
_ADVICE = "it is no session of napari-cpnn, or it is damaged."


def save_session(session: Session, path: str | Path) -> Path:
    """Write a session, atomically; files are named absolutely, and relative to the folder of the session.

    Raises
    ------
    SessionError
        If the file cannot be written.
    """
    path = Path(path)
    if not path.name.lower().endswith(ENDING):
        path = path.with_name(f"{path.name.removesuffix('.json')}{ENDING}")
    facts = _facts(session, path)
    with whole_file(path, SessionError) as part:
        part.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return path


def _facts(session: Session, path: Path) -> dict[str, Any]:
    memory = dataclasses.asdict(dataclasses.replace(session.memory, regions=(), model="", mpp=None))
    slide, model, view = session.slide, session.model, session.view
    return {
        "format": FORMAT,
        "version": VERSION,
        "program": f"napari-cpnn {__version__}",
        "slide": {
            **_place(slide.path, path),
            "name": slide.name,
            "identity": slide.identity,
            "mpp": list(slide.mpp),
        },
        "model": None
        if model is None
        else {
            **({} if model.path is None else _place(model.path, path)),
            "name": model.name,
            "title": model.title,
            "fingerprint": model.fingerprint,
        },
        "view": None if view is None else {"um": list(dataclasses.astuple(view.rect)), "px_per_um": view.px_per_um},
        "shown": memory["shown"],
        "look": memory["look"],
        "level": session.level,
        "finer": session.finer,
        "colors": session.colors,
        "hierarchy": session.hierarchy,
        "regions": geojson_of(session.regions, slide.mpp),
        "spots": [_place(Path(file), path) for file in session.memory.spots],
        "library": memory["library"],
        "move": memory["move"],
        "warp": memory["warp"],
        "cells": None if session.cells is None or session.cells.missing else _cells(session.cells, path),
        "panels": [_panel(one, path) for one in session.panels if not one.missing],
    }


def _cells(cells: CellsOnScreen, path: Path) -> dict[str, Any]:
    place = {} if cells.path is None else _place(cells.path, path)
    return {**place, "shown": dataclasses.asdict(cells.shown), "visible": cells.visible}


def _panel(panel: PanelOnScreen, path: Path) -> dict[str, Any]:
    """Return what a panel shows; slide and model only where they are not those of the session."""
    slide, model = panel.slide, panel.model
    return {
        "kind": panel.kind,
        "shown": None if panel.shown is None else dataclasses.asdict(panel.shown),
        "title": panel.title,
        "slide": None if slide is None else {**_place(slide.path, path), "name": slide.name, "mpp": list(slide.mpp)},
        "model": None
        if model is None or model.path is None
        else {**_place(model.path, path), "name": model.name, "title": model.title, "fingerprint": model.fingerprint},
    }


def _place(file: Path, session: Path) -> dict[str, str]:
    """Return where a file is: absolutely, and from the folder of the session, with ``/`` on every system."""
    place = {"path": str(file.absolute())}
    with suppress(ValueError):  # another drive of Windows
        place["relative"] = Path(os.path.relpath(file.absolute(), session.absolute().parent)).as_posix()
    return place


def is_session(path: str | Path) -> bool:
    """Return whether a file has the name of a session."""
    return Path(path).name.lower().endswith(ENDING)


def read_session(path: str | Path) -> Session:
    """Read a session; of each file, the path that exists is taken, or else the absolute one.

    Warns
    -----
    CpnnWarning
        If a region is damaged and left out.

    Raises
    ------
    SessionError
        If the file cannot be read, is no session, or was written by a later version.
    RegionsError
        If none of its regions can be used.
    """
    file = to_path(path, SessionError)
    with reading(file, SessionError, _ADVICE):
        content = read_bytes(file, _MOST_BYTES, SessionError)
        facts = parse_json(content, file, SessionError)
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise SessionError(f"{file} is not a session of napari-cpnn.")
        if not isinstance(facts["version"], int) or facts["version"] > VERSION:
            raise SessionError(f"{file} was written by a later version of napari-cpnn; update it to open this session.")
        return _session_in(facts, file)


def _session_in(facts: dict[str, Any], file: Path) -> Session:
    mpp = as_mpp((float(facts["slide"]["mpp"][0]), float(facts["slide"]["mpp"][1])))
    spots = tuple(str(_found(place, file)) for place in facts.get("spots") or [])
    memory = memory_in(
        {
            "shown": facts.get("shown"),
            "look": facts.get("look"),
            "mpp": mpp,
            "spots": spots[:2],
            "library": facts.get("library", ""),
            "move": facts.get("move"),
            "warp": facts.get("warp"),
        }
    )
    slide = SlideFile(
        _found(facts["slide"], file), _text(facts["slide"]["name"]), _text(facts["slide"]["identity"]), mpp
    )
    model = facts.get("model")
    outlines = facts.get("regions") or {}
    regions = regions_in(outlines, file, mpp) if outlines.get("features") else []
    return Session(
        slide=slide,
        memory=dataclasses.replace(memory, regions=tuple((one.name, one.outline.wkt) for one in regions)),
        model=None if model is None else _model_in(model, file),
        view=_view_in(facts.get("view")),
        level=as_level(facts.get("level", "minor")),
        finer=_finer_in(facts.get("finer", 1)),
        colors=_colors_in(facts.get("colors") or {}),
        hierarchy={_text(minor): _text(major) for minor, major in (facts.get("hierarchy") or {}).items()},
        regions=tuple(regions),
        has_spots=bool(spots),
        cells=_cells_in(facts.get("cells"), file),
        panels=tuple(_panel_in(one, file) for one in (facts.get("panels") or [])[:MOST_PANELS]),
    )


def _cells_in(facts: Any, file: Path) -> CellsOnScreen | None:
    if facts is None:
        return None
    shown, visible = facts["shown"], facts.get("visible", True)
    kind, genes = cast("CellKind", shown["kind"]), tuple(_text(gene) for gene in shown.get("genes") or ())
    if kind not in get_args(CellKind) or not isinstance(visible, bool):
        raise ValueError("the cells are coloured by nothing that is known")
    path = _found(facts, file) if facts.get("path") else None
    return CellsOnScreen(path, CellShown(kind, _text(shown.get("name", "")), genes), visible)


def _panel_in(facts: Any, file: Path) -> PanelOnScreen:
    kind, shown, slide, model = facts["kind"], shown_in(facts.get("shown")), facts.get("slide"), facts.get("model")
    if kind not in get_args(Kind) or (shown is None) != (kind == "tissue"):
        raise ValueError("a panel shows nothing that is known")
    other = None
    if slide is not None:
        mpp = as_mpp((float(slide["mpp"][0]), float(slide["mpp"][1])))
        other = SlideFile(_found(slide, file), _text(slide["name"]), "", mpp)
    by = None if model is None else _model_in(model, file)
    return PanelOnScreen(kind, shown, Rect(0, 0, 1, 1), None, _text(facts.get("title", "")), other, by)


def _model_in(facts: Any, file: Path) -> ModelFile:
    path = _found(facts, file) if facts.get("path") else None
    return ModelFile(path, *(_text(facts.get(name, "")) for name in ("name", "title", "fingerprint")))


def _found(place: Any, session: Path) -> Path:
    """Return the path of a file that exists: beside the session first, where the two were moved together."""
    absolute = to_path(_text(place["path"]), SessionError)
    if place.get("relative"):
        beside = to_path(session.absolute().parent / _text(place["relative"]), SessionError)
        if beside.exists():
            return Path(os.path.normpath(beside))
    return absolute


def _view_in(facts: Any) -> View | None:
    if facts is None:
        return None
    y0, x0, y1, x1 = (float(value) for value in facts["um"])
    px_per_um = float(facts["px_per_um"])
    if not (0 < y1 - y0 < _MOST_VIEW_UM and 0 < x1 - x0 < _MOST_VIEW_UM and 0 < px_per_um < 1e6):
        raise ValueError("the view has no size")
    if max(abs(value) for value in (y0, x0, y1, x1)) > _MOST_VIEW_UM:
        raise ValueError("the view is far from the slide")
    return View(Rect(y0, x0, y1, x1), px_per_um)


def _finer_in(facts: Any) -> int:
    if isinstance(facts, bool) or facts not in STEPS:
        raise ValueError("the stride is not a part of the patch")
    return int(facts)


def _colors_in(facts: Any) -> dict[str, str]:
    colors = {_text(name): _text(color).upper() for name, color in facts.items()}
    if not all(_COLOR.fullmatch(color) for color in colors.values()):
        raise ValueError("a colour is not of the form #RRGGBB")
    return colors


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def differs(session: Session) -> str:
    """Return a sentence if the file of the slide is not the one of the session; empty if it is, or is a copy.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    slide = session.slide
    if not slide.identity or copy_identity(resolve_path(slide.path)) == slide.identity:
        return ""
    return f"{slide.path} is not the slide {slide.name} of this session: its content differs, and so may its map."
