"""The user's preferences, from our page of napari's dialog (File > Preferences > CPNN).

napari makes the page from ``configurations`` in the manifest and keeps the values in ``napari-cpnn.yaml`` beside its
own settings. Environment variables ``NAPARI_MAPPING_...`` override the file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_cpnn.errors import CpnnError, SettingsError
from napari_cpnn.painting import Look
from napari_cpnn.palette import choose_colors, folded, read_colors, write_colors
from napari_cpnn.settings import MappingSettings

_NAME = "napari-cpnn"
_NO_GROUP = "none"
_READING = threading.Lock()

_of_session: dict[str, str] = {}
"""Colours of an opened session, which come before those of the preferences until the program ends."""


@dataclass(frozen=True)
class Preferences:
    """The user's preferences, or the defaults.

    Parameters
    ----------
    mapping
        Settings of maps.
    look
        Colours and opacity of maps when a viewer opens.
    colors
        Colours that the user chose, ``#RRGGBB`` by name of the cell type.
    """

    mapping: MappingSettings = MappingSettings()
    look: Look = Look()
    colors: Mapping[str, str] = field(default_factory=dict)


def read_preferences(notify: Callable[[CpnnError], None]) -> Preferences:
    """Read the preferences, and use their colours from now on.

    Parameters
    ----------
    notify
        Called with an error for each part that cannot be used, which is replaced by the default.
    """
    page = _page()
    if page is None:
        return Preferences()
    mapping, colors = MappingSettings(), {}
    try:
        mapping = _mapping(page.mapping)
    except CpnnError as error:
        notify(SettingsError(f"The preferences of CPNN, Mapping: {error}"))
    try:
        colors = read_colors(page.colors.cell_types)
    except CpnnError as error:
        notify(SettingsError(f"The preferences of CPNN, Colours: {error}"))
    choose_colors(_with_session(colors))
    look = Look(colormap=page.colors.colormap, fade=page.colors.fade, fade_from=float(page.colors.fade_from))
    return Preferences(mapping, look, colors)


def keep_color(cell_type: str, color: str | None) -> None:
    """Use a colour for a cell type and save it in the preferences; ``None``: that of the palette."""
    page = _page()
    colors = {} if page is None else _readable(page.colors.cell_types)
    colors = {name: kept for name, kept in colors.items() if folded(name) != folded(cell_type)}
    for name in [name for name in _of_session if folded(name) == folded(cell_type)]:
        del _of_session[name]
    if color is not None:
        colors[cell_type] = color.upper()
    choose_colors(_with_session(colors))
    if page is not None:
        page.colors.cell_types = write_colors(colors)


def use_colors(colors: Mapping[str, str]) -> None:
    """Use the colours of a session, ``#RRGGBB`` by name of the cell type; the preferences stay as they are."""
    _of_session.clear()
    _of_session.update(colors)
    page = _page()
    choose_colors(_with_session({} if page is None else _readable(page.colors.cell_types)))


def _with_session(colors: Mapping[str, str]) -> dict[str, str]:
    """Return colours with those of the session, which replace other spellings of the same type."""
    taken = {folded(name) for name in _of_session}
    return {**{name: color for name, color in colors.items() if folded(name) not in taken}, **_of_session}


def wants_tour() -> bool:
    """Return whether the tour is to start when the Explore dock opens."""
    page = _page()
    return page is not None and bool(page.window.tour)


def keep_tour(wanted: bool) -> None:
    """Save in the preferences whether the tour is to start."""
    page = _page()
    if page is not None:
        page.window.tour = wanted


def open_groups() -> list[str] | None:
    """Return the titles of the groups of controls in Explore that the user left open; None: nothing was chosen yet."""
    page = _page()
    text = "" if page is None else page.window.open_groups.strip()
    return [title.strip() for title in text.split(";")] if text else None


def keep_groups(titles: Sequence[str]) -> None:
    """Save in the preferences which groups of controls are open."""
    page = _page()
    if page is not None:
        page.window.open_groups = "; ".join(titles) or _NO_GROUP


def _page() -> Any | None:
    """Return napari's model of our page; ``None`` where the plugin is unknown, for example disabled."""
    from napari.settings import get_plugin_settings

    with _READING:  # it may be read for the first time beside the event loop; napari has no lock there
        return get_plugin_settings().get(_NAME)


def _mapping(page: Any) -> MappingSettings:
    folder = page.cache_dir.strip()
    if os.environ.get("NAPARI_CPNN_CACHE"):  # a cache folder for this run overrides the preferences
        folder = ""
    return MappingSettings(
        device=page.device,
        engine=page.engine,
        max_batch=page.max_batch,
        readers=page.readers,
        cache=page.keep_maps,
        cache_gb=page.cache_gb,
        cache_dir=str(Path(folder).expanduser()) if folder else None,
    )


def _readable(text: str) -> dict[str, str]:
    try:
        return read_colors(text)
    except SettingsError:  # was reported when the viewer opened
        return {}
