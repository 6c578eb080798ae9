"""Time to show a gene of all slides of a run in the Cohort dock (target: 200 slides in less than 1 s).

    python benchmarks/cohort_gallery.py [--slides 200] [--side 60] [--folder FOLDER]

Maps of a generated cohort, with 29 cell types, 16 programs and 2,000 genes each, are written into a folder as a run
would write them; then they are read as the dock reads them, and painted with a gene and a cell type.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from common import print_table
from napari_cpnn.cohort_run import RunFolder
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.models import Decoder
from napari_cpnn.painting import Shown
from napari_cpnn.ui.cohort import Gallery, decoder_of, read_small

C, R, G, STRIDE_UM = 29, 16, 2000, 112.0
FINGERPRINT = "generated"


def make(folder: RunFolder, n: int, side: int) -> None:
    """Write maps, thumbnails and summaries; those that are there are kept."""
    rng = np.random.default_rng(0)
    decoder = Decoder(
        tuple(f"GENE{i}" for i in range(G)),
        tuple(f"Type {i}" for i in range(C)),
        rng.dirichlet(np.ones(G), C).astype(np.float32),
        np.full(G, 1e4, np.float32),
        rng.random(G).astype(np.float32),
        rng.normal(size=(R, G)).astype(np.float32),
    )
    grid = Grid((side, round(1.3 * side)), STRIDE_UM)
    tissue = np.zeros(grid.shape, dtype=bool)
    tissue[side // 10 : -side // 10, side // 10 : -side // 10] = True
    patches = np.flatnonzero(tissue)
    for i in range(n):
        files = folder.slide(f"slide {i:03d}")
        if files.summary.is_file():
            continue
        files.path.mkdir(parents=True, exist_ok=True)
        cmap = CompositionMap(grid, decoder, tissue, {"model_fingerprint": FINGERPRINT})
        cmap.fill(patches, rng.dirichlet(np.full(C, 0.3), len(patches)), rng.normal(size=(len(patches), R)))
        cmap.save(files.map)
        picture = rng.integers(120, 255, (512, round(1.3 * 512), 3), dtype=np.uint8)
        Image.fromarray(picture).save(files.thumbnail, quality=85)
        shape = [round(n_cells * STRIDE_UM / 0.5) for n_cells in grid.shape]
        facts = {"quality": {}, "composition": {}, "file": {"shape": shape, "mpp": [0.5, 0.5]}}
        files.summary.write_text(json.dumps(facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--side", type=int, default=60, help="rows of the grid of each map")
    parser.add_argument("--folder", type=Path, help="where to keep the cohort (default: nowhere)")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(args.folder or temporary)
        make(folder, args.slides, args.side)
        names = [f"slide {i:03d}" for i in range(args.slides)]
        gallery, rows = Gallery(FINGERPRINT), []

        def timed(text: str, act, repeats: int = args.repeats) -> None:
            wall, cpu = [], []
            for _ in range(repeats):
                start, used = time.perf_counter(), time.process_time()
                act()
                wall.append(time.perf_counter() - start)
                cpu.append(time.process_time() - used)
            rows.append((text, f"{np.median(wall):.2f}", f"{np.median(cpu):.2f}"))

        def read() -> None:
            with ThreadPoolExecutor(4) as pool:
                found = dict(zip(names, pool.map(lambda name: read_small(folder.slide(name)), names), strict=True))
            gallery.add(found, decoder_of([folder.slide(names[0])], FINGERPRINT))

        genes = iter(f"GENE{i}" for i in range(G))
        timed("reading all maps and thumbnails, once when the run is opened", read, 1)
        timed("a gene on all slides", lambda: gallery.paint(Shown("gene", (next(genes),)), "viridis"))
        timed("a cell type on all slides", lambda: gallery.paint(Shown("type", ("Type 3",)), "viridis"))
        timed("dominant cell types on all slides", lambda: gallery.paint(Shown("dominant"), "viridis"))
    print_table(f"{args.slides} slides, grids of {args.side} rows", ("", "seconds", "of a processor"), rows)


if __name__ == "__main__":
    main()
