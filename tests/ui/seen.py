"""What a user sees on the canvas."""

from __future__ import annotations


def texts_on_canvas(viewer) -> dict[str, str]:
    """Return our texts over the canvas by the names of their overlays; not letters that are drawn ahead unseen."""
    overlays = viewer.canvas.overlays
    names = sorted((name for name in overlays if name.startswith("napari_cpnn_")), key=lambda name: (len(name), name))
    shown = {name: overlays[name] for name in names if overlays[name].visible and getattr(overlays[name], "text", "")}
    return {name: one.text for name, one in shown.items() if one.color is None or one.color[3] > 0}


def legend_on_canvas(viewer) -> list[str]:
    """Return the lines of the map's legend from above, without its colour bar."""
    return [text for name, text in texts_on_canvas(viewer).items() if name[-1].isdigit()]
