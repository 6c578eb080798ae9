"""Code of the panels on screen, as one figure. No Qt here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.texts import shown as one_line
from napari_cpnn.ui.export import settings_on_screen
from napari_cpnn.ui.sessions.code_parts import call_code, given_if, literal, number_code, tuple_code, whole_um

if TYPE_CHECKING:
    from napari_cpnn.ui.sessions.script import Script
    from napari_cpnn.ui.sessions.session import ModelFile, PanelOnScreen, SlideFile


def add_panels(script: Script) -> None:
    """Add the figure that *Export figure ...* of the Panels dock writes; other slides and models are opened first."""
    session, look = script.session, script.session.memory.look
    if not session.panels:
        return
    script.add("", "# The panels on screen.")
    has_spots = bool(session.has_spots and session.memory.spots)
    drawn = []
    for one in session.panels:
        why = one.missing or ("its spots have no file" if one.kind == "spots" and not has_spots else "")
        if why:
            script.add(f"# Left out: {one_line(one.title, 60)}, since {one_line(why, 60)}.")
        else:
            drawn.append(one)
    if not drawn:
        return
    sources = _Sources(script)
    outlined = any(one.slide is None for one in drawn) and script.outlines()
    calls = [_panel(script, sources, number, one, outlined=outlined) for number, one in enumerate(drawn, start=1)]
    settings = [] if look is None else [script.settings(settings_on_screen(look, None, None))]
    path = f"out / {literal(f'{script.stem}_panels.png')}"
    script.add("panels = [")
    script.add(*(f"    {line}" for call in calls for line in f"{call},".splitlines()), "]")
    script.add(call_code(script.use("export", "panels_to_figure"), "panels", path, *settings, "overwrite=True"))


class _Sources:
    """Names of slides, models and maps in the script; those that are new are opened in it."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._slides: dict[SlideFile | None, str] = {None: "slide"}
        self._models: dict[ModelFile | None, str] = {None: "model"}
        self._maps: dict[tuple[SlideFile | None, ModelFile | None], str] = {(None, None): "cmap"}

    def slide(self, file: SlideFile | None) -> str:
        """Return the name of a slide."""
        if file not in self._slides and file is not None:
            name, script = f"slide_{len(self._slides) + 1}", self._script
            self._slides[file] = name
            size = number_code(file.mpp[0]) if file.mpp[0] == file.mpp[1] else tuple_code(file.mpp)
            script.add(call_code(f"{name} = nc.open_slide", script.file(file.path), f"mpp={size}"))
        return self._slides[file]

    def map(self, panel: PanelOnScreen) -> str:
        """Return the name of the map of a panel: what is in view of its slide, by its model."""
        key = panel.slide, panel.model
        if key not in self._maps:
            script, slide = self._script, self.slide(panel.slide)
            if panel.model is not None and panel.model not in self._models:
                name = f"model_{len(self._models) + 1}"
                self._models[panel.model] = name
                file = literal(panel.model.name) if panel.model.name else script.file(Path(panel.model.named))
                script.add(f"{name} = nc.load_model({file})")
            self._maps[key] = f"cmap_{len(self._maps) + 1}"
            region = dataclasses.astuple(whole_um([script.around(panel.rect)]))
            given = [slide, self._models[panel.model], f"region={tuple_code(region)}"]
            script.add(call_code(f"{self._maps[key]} = nc.predict_map", *given, *script.map_settings()))
        return self._maps[key]


def _panel(script: Script, sources: _Sources, number: int, one: PanelOnScreen, *, outlined: bool) -> str:
    """Return a panel as code."""
    slide = sources.slide(one.slide)
    given = [slide, script.area(one.rect)]
    if one.kind == "map" and one.shown is not None:
        given += [sources.map(one), script.shown(one.shown)]
    limits = [] if one.limits is None else [f"limits={tuple_code(one.limits)}"]
    if one.kind == "spots" and one.shown is not None and one.limits is not None:
        look = script.session.memory.look
        values = f"{script.use('spots', 'expression')}(spots, [{literal(one.shown.name)}])[:, 0]"
        colormap = [] if look is None else [literal(look.colormap)]
        circles = ["spots", slide, values, tuple_code(one.limits), *colormap, f"name={literal(one.title)}"]
        name = f"circles_{number}"
        script.add(call_code(f"{name} = " + script.use("export", "measured_spots"), *circles))
        given.append(f"spots={name}")
    given += limits
    marks = f"outlines={script.use('export', 'Marks')}(outlines=outlines)" if outlined and one.slide is None else ""
    given += [*given_if(bool(marks), marks), f"title={literal(one.title)}"]
    return call_code(script.use("export", "FigurePanel"), *given, indent=4)
