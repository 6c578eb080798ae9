"""How long the Compare dock holds the GUI thread: the table of genes, the scatter, the spots on the slide.

    xvfb-run -a python benchmarks/compare_dock.py

"held" is the longest time in which the window answered nothing, from a timer that should tick every 2 ms; "done" is
when the picture was there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import napari
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_cpnn.evaluation import SpotPair
from napari_cpnn.slides import Slide
from napari_cpnn.ui.compare import Compare, GeneTable, Scatter, SpotsLayer
from napari_cpnn.ui.frame import QtBackground

TICK_MS = 2


def held(act: Callable[[], object], is_done: Callable[[], bool]) -> tuple[float, float]:
    """Longest gap between ticks from ``act`` until all is drawn, and the time it took, both in ms."""
    app = QApplication.instance()
    ticks: list[float] = []
    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start(TICK_MS)
    start = time.perf_counter()
    while time.perf_counter() - start < 0.05:
        app.processEvents()
    ticks.append(time.perf_counter())
    begun = ticks[-1]
    act()
    while not is_done():
        app.processEvents()
        time.sleep(0.0005)
    end = time.perf_counter()
    while time.perf_counter() - end < 0.05:
        app.processEvents()
    timer.stop()
    times = np.array([t for t in ticks if t >= begun])
    return 1000 * float(np.diff(times).max()), 1000 * (end - begun)


def row(what: str, result: tuple[float, float]) -> None:
    print(f"| {what} | {result[0]:.0f} | {result[1]:.0f} |")


def table_rows(n_genes: int) -> None:
    rng = np.random.default_rng(0)
    names = ("pcc", "scc", "ceiling", "mean_expression", "detected")
    scores = pd.DataFrame(
        {name: rng.uniform(size=n_genes) for name in names}, index=[f"GENE{i}" for i in range(n_genes)]
    )
    table = GeneTable()
    table.resize(360, 400)
    table.show()

    def now() -> bool:
        return True

    row(f"table of {n_genes:,} genes: new scores", held(lambda: table.set_scores(scores), now))
    for column, name in ((0, "name"), (2, "SCC")):
        act = lambda c=column: table.view.sortByColumn(c, Qt.SortOrder.AscendingOrder)  # noqa: E731
        row(f"table of {n_genes:,} genes: sort by {name}", held(act, now))
    for text in ("9", "gene99", ""):
        row(f"table of {n_genes:,} genes: filter {text!r}", held(lambda t=text: table.search.setText(t), now))
    table.close()


def scatter_rows(n_spots: int) -> None:
    rng = np.random.default_rng(0)
    background = QtBackground()
    scatter = Scatter(background)
    scatter.resize(360, 215)
    scatter.show()
    measured = rng.gamma(2, 0.5, n_spots).astype(np.float32)
    pair = SpotPair("G", "log1p CP10k", measured, measured + rng.normal(0, 0.3, n_spots).astype(np.float32))
    scatter.set_pair(pair)
    held(lambda: None, lambda: scatter.is_settled)  # fonts are read once
    row(f"scatter of {n_spots:,} spots: another gene", held(lambda: scatter.set_pair(pair), lambda: scatter.is_settled))
    half = np.array([(0.0, -9.0), (9, -9), (9, 9), (0, 1)])
    row(f"scatter of {n_spots:,} spots: lasso", held(lambda: scatter.lasso(half), lambda: scatter.is_settled))
    scatter.stop()
    scatter.close()
    background.close(wait=True)


def layer_rows(n_spots: int) -> None:
    rng = np.random.default_rng(0)
    viewer = napari.Viewer(show=True)
    slide = viewer.add_image(np.full((2000, 2000, 3), 200, dtype=np.uint8), rgb=True)
    spots = SpotsLayer(viewer)
    um = rng.uniform(0, 2000, (n_spots, 2))

    def now() -> bool:
        return True

    row(f"{n_spots:,} spots on the slide: placed", held(lambda: spots.place(slide, (1.0, 1.0), um, 8.0), now))
    colors = rng.uniform(0, 1, (n_spots, 4)).astype(np.float32)
    row(f"{n_spots:,} spots on the slide: another gene", held(lambda: spots.paint(colors, "G"), now))
    row(f"{n_spots:,} spots on the slide: half of them marked", held(lambda: spots.mark(np.arange(0, n_spots, 2)), now))
    viewer.close()


def measured(n: int, of: str, n_genes: int = 300, per_cell: int = 40) -> AnnData:
    """Cells or bins in rows of 10 um, with counts of genes as of a Xenium panel."""
    rng = np.random.default_rng(0)
    columns = np.sort(rng.integers(0, n_genes, (n, per_cell), dtype=np.int32), axis=1)
    counts = sp.csr_matrix(
        (np.ones(n * per_cell, np.int32), columns.ravel(), np.arange(0, n * per_cell + 1, per_cell)), (n, n_genes)
    )
    counts.sum_duplicates()
    side = int(np.ceil(np.sqrt(n)))
    places = np.stack(np.divmod(np.arange(n), side), axis=1)[:, ::-1] * 10.0 + 5
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(n_genes)])
    cells = AnnData(sp.csr_matrix((n, n_genes), dtype=np.int32), var=var, obsm={"spatial": places})
    cells.layers["counts"] = counts
    cells.uns["napari_cpnn"] = {"of": of}
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 10.0}
    cells.uns["spatial"] = {"section": {"images": {}, "scalefactors": factors}}
    return cells


def million_rows(n: int, of: str) -> None:
    """Another gene of measured cells or bins in the Compare dock, from the click in the table to the drawn frame."""
    cells = measured(n, of)
    side = int(np.ceil(np.sqrt(n))) * 10
    picture = np.full((side // 8, side // 8, 3), 200, dtype=np.uint8)
    viewer = napari.Viewer(show=True)
    layer = viewer.add_image(picture, rgb=True, scale=(8.0, 8.0))
    dock = Compare(viewer)
    viewer.window.add_dock_widget(dock, name="Compare")
    dock.state.set_slide(layer, Slide.from_arrays([np.broadcast_to(np.uint8(200), (side, side, 3))], (1.0, 1.0)))
    placed = held(lambda: dock.controller.spots.use(cells), lambda: dock.spots_layer.layer is not None)
    print(f"{n:,} {of} are placed in {placed[1]:.0f} ms, for {placed[0]:.0f} ms of which the window is held")
    canvas = viewer.window._qt_viewer.canvas._scene_canvas  # noqa: SLF001
    drawn: list[int] = []
    canvas.events.draw.connect(lambda _event: drawn.append(1), position="last")
    tasks = dock.controller.spots.tasks
    held(lambda: None, lambda: dock.controller.measured is not None and not tasks.is_running("fit"))
    times, app = [], QApplication.instance()
    for gene in [f"GENE{k}" for k in range(3, 15)]:

        def choose(gene: str = gene) -> None:
            drawn.clear()
            dock.controller.choose_gene(gene)

        def is_done(gene: str = gene) -> bool:
            return dock.controller.comparison.gene_alone == gene and bool(drawn)

        begun, busy, gui = time.perf_counter(), time.process_time(), time.thread_time()
        choose()
        while not is_done():
            app.processEvents()
            time.sleep(0.002)
        took = time.perf_counter() - begun, time.process_time() - busy, time.thread_time() - gui
        times.append([1000 * seconds for seconds in took])
    took, busy, gui = np.median(times[2:], axis=0)
    print(
        f"{n:,} measured {of}: another gene is drawn after {took:.0f} ms, {busy:.0f} ms of processor time in all "
        f"threads, {gui:.0f} ms of it in that of the window"
    )
    viewer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=18_000)
    parser.add_argument("--spots", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--cells", type=int, default=1_000_000, help="measured cells and bins; 0: leave them out")
    args = parser.parse_args()
    app = QApplication.instance() or QApplication([])
    print("| what | held, ms | done, ms |\n|---|---|---|")
    table_rows(args.genes)
    for n in args.spots:
        scatter_rows(n)
    for n in args.spots:
        layer_rows(n)
    for of in ("cells", "bins") if args.cells else ():
        million_rows(args.cells, of)
    app.processEvents()


if __name__ == "__main__":
    main()
