"""What napari and vispy compute anew for each viewer although it is always the same, computed once for all tests.

Half of what a test of a dock takes is to open and close its viewer. Nothing here changes what a viewer is or shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def read_plugins_once(patch: pytest.MonkeyPatch) -> None:
    """Read the manifests of the installed plugins, and make their pages of the preferences, once."""
    from napari import settings
    from npe2 import PluginManager, PluginManifest

    manager, discover, make = PluginManager.instance(), PluginManifest.discover, settings.plugin_configuration_generator
    found: list[Any] = []
    pages: dict[frozenset[str], Any] = {}

    def discovered(paths: Any = ()) -> Any:
        if paths:
            return discover(paths)
        if not found:
            found.extend(discover())
        return iter(found)

    def pages_of_preferences(other: PluginManager | None = None) -> Any:
        """They follow from the manifests; their values are of each test."""
        if other is not None or PluginManager.instance() is not manager:
            return make(other)
        manager.discover()
        names = frozenset(manifest.name for manifest in manager.iter_manifests(disabled=False))
        if names not in pages:
            pages[names] = make()
        return pages[names]

    patch.setattr(PluginManifest, "discover", discovered)
    patch.setattr(settings, "plugin_configuration_generator", pages_of_preferences)


def draw_letters_once(patch: pytest.MonkeyPatch) -> None:
    """Make the distance field of each letter, which takes milliseconds, once."""
    from vispy.visuals.text.text import SDFRendererCPU

    render, letters = SDFRendererCPU.render_to_texture, {}

    def render_once(self: Any, data: np.ndarray, texture: Any, offset: tuple[int, int], size: tuple[int, int]) -> None:
        letter = data.shape, size, hashlib.sha256(data).digest()
        if letter not in letters:
            letters[letter] = np.zeros((size[1], size[0], 3), dtype=np.uint8)
            render(self, data, letters[letter], (0, 0), size)
        (x, y), (width, height) = offset, size
        texture[y : y + height, x : x + width, :] = letters[letter]

    patch.setattr(SDFRendererCPU, "render_to_texture", render_once)


def inspect_callbacks_once(patch: pytest.MonkeyPatch) -> None:
    """Look up once how many arguments a function takes that is connected to many events."""
    from napari.utils.events import EventEmitter

    check: Callable[[Any], bool] = EventEmitter._check_signature
    known: dict[tuple[Any, bool], bool] = {}

    def check_once(function: Any) -> bool:
        plain = getattr(function, "__func__", function)
        code = getattr(plain, "__code__", None)
        if code is None or hasattr(plain, "__wrapped__"):
            return check(function)
        kind = code, plain is function
        if kind not in known:
            known[kind] = check(function)
        return known[kind]

    patch.setattr(EventEmitter, "_check_signature", staticmethod(check_once))


def keep_settings_in_memory(patch: pytest.MonkeyPatch) -> None:
    """Write no file for each of napari's own settings that changes; those of plugins are written."""
    from napari.settings import NapariSettings

    patch.setattr(NapariSettings, "_maybe_save", lambda _self: None)
