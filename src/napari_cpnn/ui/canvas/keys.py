"""Keys of the canvas.

napari 0.9 does not read ``keybindings`` of a manifest, and no command of it can be held. So the keys are bound to the
viewer, which gets what the selected layer does not use; :data:`KEYS` avoids every key of napari and its layers. The
manifest lists them all the same, with their commands, which the command palette offers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from app_model.types import KeyBinding

if TYPE_CHECKING:
    from napari.components import ViewerModel


class Actions(Protocol):
    """What keys do."""

    def peek(self, on: bool) -> None: ...
    def change_opacity(self, by: float) -> None: ...
    def step(self, by: int) -> None: ...
    def toggle_live(self) -> None: ...
    def toggle_legend(self) -> None: ...
    def next_style(self) -> None: ...
    def toggle_lens(self) -> None: ...


@dataclass(frozen=True)
class Key:
    """A key, the command of the manifest that it stands for, and what it does; a held one has ``release``, too."""

    key: str
    command: str
    words: str
    press: Callable[[Actions], None]
    release: Callable[[Actions], None] | None = None


KEYS = (
    Key("H", "peek", "while held: H&E alone", lambda a: a.peek(True), lambda a: a.peek(False)),
    Key(",", "less_opaque", "map less opaque", lambda a: a.change_opacity(-0.1)),
    Key(".", "more_opaque", "map more opaque", lambda a: a.change_opacity(0.1)),
    Key("N", "next_quantity", "next cell type or gene", lambda a: a.step(1)),
    Key("Shift-N", "previous_quantity", "previous cell type or gene", lambda a: a.step(-1)),
    Key("W", "next_style", "wash, contours, outlines of patches", lambda a: a.next_style()),
    Key("U", "live", "live mapping on or off", lambda a: a.toggle_live()),
    Key("K", "legend", "legend on or off", lambda a: a.toggle_legend()),
    Key("G", "lens", "lens on or off; Shift and wheel: its size", lambda a: a.toggle_lens()),
)


class CanvasKeys:
    """Binds the keys to a viewer until it is stopped; keys that the user has bound to it stay the user's."""

    def __init__(self, viewer: ViewerModel, actions: Actions) -> None:
        self._viewer = viewer
        self._bound: dict[KeyBinding, Callable[..., Any]] = {}
        for key in KEYS:
            binding = KeyBinding.from_str(key.key.replace("Shift-", "Shift+"))
            if binding not in viewer.keymap:
                self._bound[binding] = _callback(key, actions)
                viewer.bind_key(binding, self._bound[binding])

    def stop(self) -> None:
        """Release the keys."""
        for binding, callback in self._bound.items():
            if self._viewer.keymap.get(binding) is callback:
                self._viewer.bind_key(binding, None)
        self._bound = {}


def _callback(key: Key, actions: Actions) -> Callable[..., Any]:
    """Return what napari calls: a generator for a key that is held."""
    release = key.release
    if release is None:

        def pressed(_viewer: Any) -> None:
            key.press(actions)

        return pressed

    def held(_viewer: Any) -> Iterator[None]:
        key.press(actions)
        yield
        release(actions)

    return held


def help_text() -> str:
    """Return all keys, one a line."""
    return "\n".join(f"{key.key}   {key.words}" for key in KEYS)
