"""Time to switch the gene of a 450 x 450 map with 49 cell types, 16 programs and 10,000 genes (target: 16 ms).

    python benchmarks/gene_switch.py [--side 450] [--processor-time]

Beside it, what it would cost to decode from the float16 arrays of the file each time, and decoding with painting the
overlay, of single patches and averaged over discs of 600 um.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from common import print_table
from napari_cpnn import painting
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.models import Decoder

C, R, G = 49, 16, 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=450)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine")
    args = parser.parse_args()
    clock = time.process_time if args.processor_time else time.perf_counter
    rng = np.random.default_rng(0)
    decoder = Decoder(
        tuple(f"GENE{i}" for i in range(G)),
        tuple(f"Type {i}" for i in range(C)),
        rng.dirichlet(np.ones(G), C).astype(np.float32),
        np.full(G, 1e4, np.float32),
        rng.random(G).astype(np.float32),
        rng.normal(size=(R, G)).astype(np.float32),
    )
    cmap = CompositionMap(Grid((args.side, args.side), 112.0), decoder)
    n = args.side**2
    cmap.fill(np.arange(n), rng.dirichlet(np.ones(C), n), rng.normal(size=(n, R)))
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
