"""Time to pan over single cells, and to draw another view of them, with 1,000,000 cells on a slide.

    xvfb-run -a python benchmarks/cells_in_view.py [--cells 1000000]

Cells with outlines of 20 vertices lie on a slide of 20 x 20 mm, as dense as tissue is, in a viewer of 1400 x 900 px.
Times are medians of processor time, which other programs change little: of a frame, in the thread of the window, while
the view moves inside of what is drawn, with and without cells; and of another view, in the background and in that
thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import dask.array as da
import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from common import print_table
from napari_cpnn.cells import CellMap
from napari_cpnn.mapping import Viewport
from napari_cpnn.models import Decoder
from napari_cpnn.nuclei import Nuclei, Outlines
from napari_cpnn.slides import Slide
from napari_cpnn.ui.cells import CellContent, CellsController, CellShown, CellsOnCanvas, color_cells, draw_view, grid_of
from napari_cpnn.ui.frame import QtBackground
from napari_cpnn.ui.viewer import pump, state_of

MPP, SIDE_UM = 0.5, 20_000.0
TYPES, GENES, PROGRAMS, VERTICES = 12, 1000, 8, 20
#: Heights of views in um.
VIEWS = (150.0, 500.0, 1500.0, 20_000.0)
WINDOW = (1400, 900)


def make(n: int) -> CellMap:
    """Round nuclei of 12 types in clusters."""
    rng = np.random.default_rng(0)
    centers = rng.uniform(0, SIDE_UM, (n, 2)).astype(np.float32)
    angles = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    ring = np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    radii = rng.uniform(2.5, 5, (n, 1, 1)).astype(np.float32)
    vertices = (centers[:, None] + radii * ring).reshape(-1, 2)
    nuclei = Nuclei(centers, Outlines(vertices, np.arange(0, VERTICES * n + 1, VERTICES)), source="generated")
    decoder = Decoder(
        tuple(f"GENE{i}" for i in range(GENES)),
        tuple(f"Type {i}" for i in range(TYPES)),
        rng.dirichlet(np.ones(GENES), TYPES).astype(np.float32),
        np.full(GENES, 1e3, np.float32),
        rng.random(GENES).astype(np.float32),
        rng.normal(size=(PROGRAMS, GENES)).astype(np.float32),
    )
    shares = rng.dirichlet(np.full(TYPES, 0.3), n).astype(np.float16)
    return CellMap(nuclei, decoder, shares, rng.normal(size=(n, PROGRAMS)).astype(np.float16), {"mpp": (MPP, MPP)})


def timed(call: Callable[[], object], repeats: int = 3) -> float:
    """Median processor time of a call in ms."""
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        call()
        times.append(1000 * (time.thread_time() - start))
    return float(np.median(times))


def frames(viewer: napari.Viewer, view: tuple[float, float, float], n: int = 20) -> float:
    """Median processor time of a frame in ms, in the thread of the window, while the view is moved to and fro."""
    y, x, height = view
    times = []
    for step in range(n):
        start = time.thread_time()
        viewer.scene.camera.center = (y, x + 0.1 * height * np.sin(step))
        QApplication.processEvents()
        times.append(1000 * (time.thread_time() - start))
    return float(np.median(times[3:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000)
    n = parser.parse_args().cells
    start = time.perf_counter()
    cells = make(n)
    print(f"{cells}, {(cells.nuclei.n_bytes + cells.weights.nbytes + cells.programs.nbytes) / 2**20:,.0f} MB, "
          f"made in {time.perf_counter() - start:.1f} s")  # fmt: skip
    side = round(SIDE_UM / MPP)
    levels = [da.full((side // f, side // f, 3), 235, dtype=np.uint8, chunks=(512, 512, 3)) for f in (1, 4, 16, 64)]
    slide = Slide.from_arrays(levels, MPP, name="generated")
    content = CellContent(cells.nuclei, cells)
    grid = grid_of(slide)
    quantities = (CellShown("type"), CellShown("gene", "GENE7"), CellShown("area"))
    taken = [timed(lambda one=shown: color_cells(content, one, "viridis", grid), 1) for shown in quantities]
    rows = [(shown.title, f"{ms:.0f}") for shown, ms in zip(quantities, taken, strict=True)]
    print_table(f"Colours of {n:,} cells, in the background", ("by", "ms"), rows)

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*WINDOW)
    layer = viewer.add_image(
        levels, rgb=True, multiscale=True, contrast_limits=(0, 255), scale=(MPP, MPP), translate=(MPP / 2, MPP / 2),
        units=("um", "um"),
    )  # fmt: skip
    state = state_of(viewer)
    state.set_slide(layer, slide)
    background = QtBackground()
    controller = CellsController(state, background, print)
    pump(0.5)
    middle = SIDE_UM / 2
    alone = {}
    for height in VIEWS:
        viewer.scene.camera.center = (middle, middle)
        viewer.scene.camera.zoom = min(viewer.canvas.viewbox_size(viewer.layers)) / height
        pump(0.3)
        alone[height] = frames(viewer, (middle, middle, height))
    canvas = CellsOnCanvas(viewer, controller)
    controller.set_content(content, "generated")
    table = []
    for height in VIEWS:
        viewer.scene.camera.center = (middle, middle)
        viewer.scene.camera.zoom = min(viewer.canvas.viewbox_size(viewer.layers)) / height
        canvas.read_view()
        end = time.monotonic() + 60
        pump(0.3)
        while not (controller.is_settled and controller.drawing is not None) and time.monotonic() < end:
            pump(0.1)
        view: Viewport = controller.sources.view
        drawing = draw_view(controller.colored, view)
        drawn = timed(lambda v=view: draw_view(controller.colored, v))
        shown = timed(lambda: (canvas.show(), QApplication.processEvents()))
        frame = frames(viewer, (middle, middle, height))
        table.append((f"{height:,.0f}", drawing.style, f"{len(content.nuclei.query(view.rect)):,}", f"{drawn:.0f}",
                      f"{shown:.0f}", f"{frame:.1f}", f"{alone[height]:.1f}"))  # fmt: skip
    print_table(
        f"Views of {n:,} cells",
        ("view (um)", "drawn as", "cells in view", "draw, background (ms)", "show, window (ms)", "frame (ms)",
         "frame without cells (ms)"), table,
    )  # fmt: skip
    canvas.stop(viewer_lives=True)
    controller.close()
    background.close(wait=True)
    viewer.close()


if __name__ == "__main__":
    main()
