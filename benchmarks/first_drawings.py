"""What napari's visuals cost when they are drawn for the first time, a second time, and after being drawn ahead.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/first_drawings.py

Processor time of the window's thread while a frame is drawn in which a text, scale bar, map, ... is new. Each column is
a process of its own: with the shader cache of the graphics driver empty, and off (these two settings are of Mesa); and
with an empty one after all was drawn ahead, as in a window at rest. Of this, the longest piece is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from common import print_table, scratch

WAYS = ("cache empty", "cache off", "drawn ahead")


class Window:
    """A napari window with a picture, and the times of what is added."""

    def __init__(self) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        self.viewer = napari.Viewer()
        self.viewer.window.resize(1366, 768)
        self.app, self.n_frames = QApplication.instance(), 0
        canvas = self.viewer.window._qt_viewer.canvas._scene_canvas  # noqa: SLF001
        canvas.events.draw.connect(self.drawn, position="last")
        self.viewer.add_image(np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8))
        self.wait(2)
        self.took: dict[str, float] = {}

    def drawn(self, _event: object) -> None:
        self.n_frames += 1

    def wait(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.app.processEvents()
            time.sleep(0.003)

    def add(self, name: str, action: Callable[[], object]) -> None:
        self.wait(0.3)
        action()
        start, before = time.thread_time(), self.n_frames
        while self.n_frames == before:
            self.app.processEvents()
        self.took[name] = 1e3 * (time.thread_time() - start)

    def ahead(self) -> None:
        from napari_cpnn.ui.explore import drawings_ahead

        pieces, longest = drawings_ahead(self.viewer), 0.0
        while True:
            start = time.thread_time()
            kind = next(pieces, None)
            longest = max(longest, 1e3 * (time.thread_time() - start))
            if kind is None:
                break
            self.app.processEvents()
        self.took["longest piece"] = longest


def one(*, ahead: bool) -> dict[str, float]:
    """Draw everything twice."""
    from napari.components.overlays import TextOverlay
    from napari.layers import Points, Shapes

    from napari_cpnn.ui import explore
    from napari_cpnn.ui.canvas import Vectors

    explore.drawings_ahead  # noqa: B018 -- its modules are loaded with the name
    window, overlay = Window(), explore.overlay
    viewer, overlays, layers = window.viewer, window.viewer.canvas.overlays, window.viewer.layers
    if ahead:
        window.ahead()
    corners = np.array([[0.0, 0.0], [0.0, 99.0], [99.0, 99.0], [99.0, 0.0]])
    for k in (1, 2):
        text = TextOverlay(text="ERBB2", box=True, position="top_left", visible=True)
        of_map = overlay.map_layer((60, 60), "map")
        of_map.interpolation2d = "linear"
        overlay.style_bar(of_map, "viridis")
        window.add(f"text {k}", lambda k=k, text=text: overlays.update({f"text {k}": text}))
        if k == 1:
            overlays.scale_bar.box = True
            window.add("scale bar 1", lambda: setattr(overlays.scale_bar, "visible", True))
        window.add(f"map {k}", lambda of_map=of_map: layers.append(of_map))
        window.add(f"colour bar {k}", lambda of_map=of_map: setattr(of_map.colorbar, "visible", True))
        lines = Vectors(np.stack([corners, corners], axis=1), vector_style="line")
        for name, layer in (("lines", lines), ("points", Points(corners)), ("shapes", Shapes([corners]))):
            window.add(f"{name} {k}", lambda layer=layer: layers.append(layer))
    viewer.close()
    return window.took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(ahead=args.one == "drawn ahead")))
        return
    found = {}
    for way in WAYS:
        with scratch() as folder:
            cache = {"XDG_CACHE_HOME": folder, "MESA_SHADER_CACHE_DIR": folder}
            cache["MESA_SHADER_CACHE_DISABLE"] = str(way == "cache off").lower()
            command = [sys.executable, __file__, "--one", way]
            printed = subprocess.run(
                command, check=True, env=os.environ | cache, stdout=subprocess.PIPE, text=True
            ).stdout
            found[way] = json.loads(printed.strip().splitlines()[-1])
    rows = []
    for name in ("text", "scale bar", "map", "colour bar", "lines", "points", "shapes"):
        firsts = [f"{found[way][f'{name} 1']:.0f}" for way in WAYS]
        seconds = [f"{found[way].get(f'{name} 2', np.nan):.0f}".replace("nan", "-") for way in WAYS[:2]]
        rows.append([name, firsts[0], seconds[0], firsts[1], seconds[1], firsts[2]])
    columns = ["", "cache empty: first", "second", "cache off: first", "second", "drawn ahead: first"]
    print_table("Drawing a frame in which this is new, processor time (ms)", columns, rows)
    print(f"\nLongest piece drawn ahead: {found['drawn ahead']['longest piece']:.0f} ms")


if __name__ == "__main__":
    main()
