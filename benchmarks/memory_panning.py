"""Memory of a viewer while one pans and zooms over a large slide with a live map.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/memory_panning.py [--minutes 10] [--side 50000]

A generated slide (30 % tissue) with Explore and SqueezeNet; twice a second the view jumps, glides or zooms, and every
ten seconds another gene is shown. Given are the resident memory at the end of each minute, above that before the slide
was opened, and the patches that were mapped by then. Caches fill during the first minutes; a leak would go on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import psutil

from common import print_table, random_model, scratch, sparse_slide
from napari_cpnn.mapping import DONE
from napari_cpnn.settings import MappingSettings

STEP_S = 0.5
GENE_EVERY = 20


def resident_gib() -> float:
    return psutil.Process().memory_info().rss / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--side", type=int, default=50_000)
    parser.add_argument("--backbone", default="squeezenet")
    args = parser.parse_args()

    import napari
    from qtpy.QtWidgets import QApplication

    from napari_cpnn.slides import open_slide
    from napari_cpnn.ui.explore import Explore
    from napari_cpnn.ui.layers import slide_layer

    rng, rows = np.random.default_rng(0), []
    with scratch() as folder, open_slide(sparse_slide(Path(folder), args.side)) as slide:
        model = random_model(args.backbone)
        viewer = napari.Viewer()
        viewer.window.resize(1500, 940)
        before = resident_gib()
        data, keywords, _ = slide_layer(slide)
        viewer.add_image(data, **keywords)
        dock = Explore(viewer, MappingSettings(cache_dir=Path(folder) / "cache"))
        viewer.window.add_dock_widget(dock, name="Explore")
        dock.controller.use_model(model)

        def wait(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                QApplication.processEvents()
                time.sleep(0.002)

        while dock.state.mapper is None:
            wait(0.2)
        side_um = args.side * 0.5
        camera = viewer.scene.camera
        far, step, start = float(camera.zoom), 0, time.monotonic()
        for minute in range(1, args.minutes + 1):
            while time.monotonic() - start < 60 * minute:
                step += 1
                if step % 4 == 0:
                    camera.center = (0.0, *rng.uniform(0.1, 0.9, 2) * side_um)
                elif step % 4 == 2:
                    camera.zoom = far * float(np.exp(rng.uniform(0, np.log(60))))
                else:
                    camera.center = (0.0, *(np.array(camera.center[1:]) + rng.normal(0, 100 / camera.zoom, 2)))
                if step % GENE_EVERY == 0:
                    dock.controller.show_gene(model.genes[int(rng.integers(len(model.genes)))])
                wait(STEP_S)
            done = int((dock.state.mapper.map.state == DONE).sum())
            rows.append((minute, f"{resident_gib() - before:.2f}", f"{done:,}"))
        dock.end(viewer_lives=False)
        viewer.close()
    title = f"Memory while panning, a slide of {args.side:,} px, {args.backbone}"
    print_table(title, ("minute", "GiB above the empty viewer", "patches mapped"), rows)


if __name__ == "__main__":
    main()
