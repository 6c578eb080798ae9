"""Time to switch the gene of a 450 x 450 map with 49 cell types, 16 programs and 10,000 genes (target: 16 ms).

    python benchmarks/gene_switch.py [--side 450] [--processor-time]
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/gene_switch.py --canvas

Beside it, what it would cost to decode from the float16 arrays of the file each time, and decoding with painting the
overlay, of single patches and averaged over discs of 600 um. With ``--canvas``, from the key (N, the next gene) to the
drawn frame in a napari window with the Explore dock (target: 33 ms), processor time of the window's thread, and its
parts. Drawing includes the upload of the texture; under a virtual display it is done in software.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import threading
import time
from typing import Any

import numpy as np

from common import print_table, random_model
from napari_cpnn import painting
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap, MapProgress
from napari_cpnn.models import Decoder
from napari_cpnn.slides import Slide

C, R, G = 49, 16, 10_000


def filled_map(side: int) -> CompositionMap:
    rng = np.random.default_rng(0)
    decoder = Decoder(
        tuple(f"GENE{i}" for i in range(G)),
        tuple(f"Type {i}" for i in range(C)),
        rng.dirichlet(np.ones(G), C).astype(np.float32),
        np.full(G, 1e4, np.float32),
        rng.random(G).astype(np.float32),
        rng.normal(size=(R, G)).astype(np.float32),
    )
    cmap = CompositionMap(Grid((side, side), 112.0), decoder)
    n = side**2
    cmap.fill(np.arange(n), rng.dirichlet(np.ones(C), n), rng.normal(size=(n, R)))
    return cmap


class KeptMap:
    """What the docks ask of a mapper, of a map that is complete."""

    device, arithmetic, error, n_computed = "cpu", "float32", None, 0

    def __init__(self, cmap: CompositionMap, slide: Slide) -> None:
        self.map, self.slide, self.grid = cmap, slide, cmap.grid

    def progress(self) -> MapProgress:
        n = int(self.map.tissue.sum())
        return MapProgress(n, n, 0, 0.0, running=True, idle=True, message="")

    def nothing(self, *_: object) -> None:
        pass

    set_viewport = map_whole_slide = map_areas = pause = resume = stop = nothing


class Parts:
    """Processor time of the window's thread in some functions, in ms, without that of others inside."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._inside = [0.0]

    def watch(self, owner: Any, function: str, part: str) -> None:
        plain = getattr(owner, function)

        def watched(*args: Any, **keywords: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return plain(*args, **keywords)
            self._inside.append(0.0)
            start = time.thread_time()
            try:
                return plain(*args, **keywords)
            finally:
                took = time.thread_time() - start
                self.ms[part] = self.ms.get(part, 0.0) + 1e3 * (took - self._inside.pop())
                self._inside[-1] += took

        setattr(owner, function, watched)


def watched_parts() -> Parts:
    """Start to measure what a switch consists of."""
    from napari.layers import Image
    from vispy.visuals import ImageVisual, MeshVisual, TextVisual

    from napari_cpnn.ui import explore

    dock = explore.Explore

    parts = Parts()
    for owner, function, part in (
        (MeshVisual, "draw", "drawing: boxes"),
        (TextVisual, "draw", "drawing: texts"),
        (ImageVisual, "draw", "drawing: pictures, with their upload"),
        (CompositionMap, "expression", "values"),
        (painting, "paint", "painting"),
        (painting, "magnified", "painting"),
        (explore.overlay.Overlay, "paint", "painting"),
        (explore.overlays.Overlays, "_set_limits", "limits of the layer"),
        (Image, "refresh", "refreshing the layer"),
        (explore.overlays.Overlays, "_shown_changed", "our reactions on the canvas"),
        (dock, "_update", "texts and lists of the dock, legend"),
        (dock, "_shown_changed", "the dock besides"),
    ):
        parts.watch(owner, function, part)
    return parts


class Window:
    """A napari window with the Explore dock, a blank slide and a complete map on it."""

    def __init__(self, cmap: CompositionMap) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        from napari_cpnn.ui.explore import Explore
        from napari_cpnn.ui.layers import slide_layer

        self.parts = watched_parts()
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1500, 940)
        self.app = QApplication.instance()
        side = cmap.grid.shape[0] * 224
        levels = [np.broadcast_to(np.uint8(235), (side >> k, side >> k, 3)) for k in range(0, 8, 2)]
        slide = Slide.from_arrays(levels, (0.5, 0.5))
        data, keywords, _ = slide_layer(slide)
        layer = self.viewer.add_image(data, **keywords)
        self.dock = Explore(self.viewer)
        self.viewer.window.add_dock_widget(self.dock, name="Explore")
        self.native = self.viewer.window._qt_viewer.canvas.native  # noqa: SLF001
        self.canvas = self.viewer.window._qt_viewer.canvas._scene_canvas  # noqa: SLF001
        self.drawn: list[tuple[float, float, dict[str, float]]] = []
        self.canvas.events.draw.connect(self.note, position="last")
        self.wait(1)
        self.dock.state.set_slide(layer, slide)
        self.dock.state.set_model(random_model("squeezenet", n_types=C, n_genes=G, n_programs=R))
        self.dock.state.set_mapper(KeptMap(cmap, slide))
        self.dock.controller.show_gene("GENE100")
        self.wait(10)  # letters and shaders
        self.native.setFocus()

    def note(self, _event: object) -> None:
        self.drawn.append((time.thread_time(), time.perf_counter(), dict(self.parts.ms)))

    def wait(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.app.processEvents()
            time.sleep(0.005)

    def frame(self) -> float:
        """Draw a frame in which nothing has changed; its time in ms."""
        self.drawn.clear()
        start = time.thread_time()
        self.canvas.update()
        while not self.drawn:
            self.app.processEvents()
        return 1e3 * (self.drawn[0][0] - start)

    def switch(self) -> dict[str, float]:
        """Press the key of the next gene; times in ms until its frame is drawn."""
        from qtpy.QtTest import QTest

        shown = self.dock.state.shown
        self.parts.ms.clear()
        self.drawn.clear()
        begun, start = time.perf_counter(), time.thread_time()
        QTest.keyClick(self.native, "N")
        while not self.drawn or self.dock.state.shown == shown:
            self.app.processEvents()
        busy, now, inside = self.drawn[-1]
        took = {"key to drawn frame": 1e3 * (busy - start), "the same by the clock": 1e3 * (now - begun)}
        rest = took["key to drawn frame"] - sum(inside.values())
        return took | inside | {"the rest, such as events of Qt and napari": rest}


def in_window(cmap: CompositionMap, repeats: int, *, profile: bool) -> None:
    window, profiler = Window(cmap), cProfile.Profile(time.thread_time)
    found: list[dict[str, float]] = []
    for _ in range(repeats):
        window.wait(0.05)
        plain = {"a frame in which nothing has changed": window.frame()}
        window.wait(0.1)
        if profile:
            profiler.enable()
        one = window.switch()
        profiler.disable()
        found.append(plain | one)
    window.viewer.close()
    rows = []
    for name in dict.fromkeys(name for one in found for name in one):
        times = np.array([one.get(name, 0.0) for one in found])
        rows.append([name, *(f"{np.percentile(times, q):.1f}" for q in (50, 99)), f"{times.max():.1f}"])
    print_table(f"Another gene of a {cmap.grid.shape[0]} x {cmap.grid.shape[1]} map in a window, processor time (ms)",
                ["part", "median", "p99", "max"], rows)  # fmt: skip
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
        pstats.Stats(profiler).sort_stats("cumtime").print_stats(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=450)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--canvas", action="store_true", help="in a napari window, from the key to the drawn frame")
    parser.add_argument("--profile", action="store_true", help="of the window: print where its time goes")
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine")
    args = parser.parse_args()
    clock = time.process_time if args.processor_time else time.perf_counter
    cmap = filled_map(args.side)
    if args.canvas:
        in_window(cmap, args.repeats, profile=args.profile)
        return
    rng, decoder = np.random.default_rng(0), cmap.decoder
    weights, programs = cmap.weights, cmap.programs
    painter, n_px = painting.Painter(cmap.tissue), painting.pixels_per_patch(cmap.grid)
    painting.catch_up(painter, cmap)
    allowed = painting.paintable_pixels(cmap, n_px, None)

    def paint(gene: str, scale_um: float) -> None:
        shown = painting.Shown("gene", (gene,))
        painting.paint(painter, cmap, shown, painting.Look(scale_um=scale_um), painting.auto_range(shown))
        painting.magnified(painter.extended(), n_px, allowed, smooth=True)

    rows = []
    for name, switch in (
        ("ours (CompositionMap.expression)", cmap.expression),
        ("from the float16 arrays", lambda gene: decoder.expression(weights, programs, [gene])),
        ("ours, and painting", lambda gene: paint(gene, 0.0)),
        ("ours, averaging over 600 um and painting", lambda gene: paint(gene, 600.0)),
    ):
        times = []
        for i in rng.integers(G, size=args.repeats):
            start = clock()
            switch(f"GENE{i}")
            times.append(1e3 * (clock() - start))
        rows.append([name, *(f"{np.percentile(times, q):.1f}" for q in (50, 99)), f"{max(times):.1f}"])
    print_table(
        f"Switching the gene of a {args.side} x {args.side} map, {C} types, {R} programs, {G:,} genes (ms)",
        ["way", "median", "p99", "max"],
        rows,
    )


if __name__ == "__main__":
    main()
