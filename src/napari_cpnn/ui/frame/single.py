"""One dock of a kind per viewer, however it is opened, always under the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from qtpy.QtWidgets import QDockWidget, QWidget

from napari_cpnn.errors import CpnnError

_PLUGIN = "napari-cpnn"
_SUFFIXES = (" (CPNN)", " (napari-cpnn)")


if TYPE_CHECKING:
    _QtMeta = type
else:
    _QtMeta = type(QWidget)  # of the binding


class OnePerViewer(_QtMeta):
    """Metaclass of docks: calling the class again for the same viewer returns the dock that is there.

    napari builds the widgets of plugins itself, from its menus, the command palette and
    ``Window.add_plugin_dock_widget``. All of them call the class and put what they get into a dock; so it is here that
    a second one is avoided. A dock that has ended is not returned.
    """

    def __call__(cls, napari_viewer: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 -- of a metaclass
        there = docks_of(napari_viewer).get(cls.__name__)
        if there is not None and not there.has_ended:
            return there
        made = super().__call__(napari_viewer, *args, **kwargs)
        docks_of(napari_viewer)[cls.__name__] = made
        return made


def docks_of(viewer: Any) -> WeakValueDictionary[str, Any]:
    """Return the docks of a viewer that still exist, by the name of their class."""
    from napari_cpnn.ui.viewer import state_of

    docks: WeakValueDictionary[str, Any] = state_of(viewer).docks
    return docks


def show_dock(viewer: Any, title: str) -> Any:
    """Show a dock of this plugin by its name in the menus, such as ``"Explore"``; open it if it is not there.

    It is opened under the name that napari's menus give it, so that these find it.

    Returns
    -------
    Dock
        The dock, in front of the others in its place.

    Raises
    ------
    CpnnError
        When the plugin is not installed, or disabled in napari.
    """
    from npe2 import PluginManager

    widgets = PluginManager.instance().iter_widgets()
    found = next((w for w in widgets if w.plugin_name == _PLUGIN and w.display_name == title), None)
    if found is None:
        raise CpnnError(
            f"napari does not know the dock {title}: enable {_PLUGIN} in Plugins > Install/Uninstall Plugins."
        )
    return place_dock(found.get_callable()(napari_viewer=viewer), title)


def place_dock(dock: Any, title: str) -> Any:
    """Put a dock into the window of its viewer, unless it is there, and show it in front; return it."""
    frame = frame_of(dock)
    if frame is None:
        frame = dock.viewer.window.add_dock_widget(dock, name=f"{title}{_SUFFIXES[0]}")
    frame.show()
    frame.raise_()
    return dock


def frame_of(widget: QWidget) -> QDockWidget | None:
    """Return the dock widget that contains a widget."""
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent


def is_opened_by_user(frame: QDockWidget) -> bool:
    """Return whether a dock has the name that napari's menus and :func:`show_dock` give it; scripts use others."""
    return frame.objectName().endswith(_SUFFIXES[0])


def short_title(title: str) -> str:
    """Return the title of a dock without the name of the plugin: five tabs lie side by side."""
    for suffix in _SUFFIXES:
        title = title.removesuffix(suffix)
    return title
