"""Time from the start of mapping to the first coarse picture that covers the view, and from a pan to its first one.

    python benchmarks/first_picture.py [--backbone stnet] [--slide SLIDE] [--rounds 5]

The model is loaded and the slide open (what a viewer has when Live is pressed); finding the tissue, opening the cache
and moving the network to its device count. Target: a second.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import numpy as np

from common import print_table, random_model, sample_slide, scratch
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import LiveMapper, Viewport
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import open_slide


class Covered:
    """Waits until every tissue cell in view shows something."""

    def __init__(self, mapper: LiveMapper, rect: Rect) -> None:
        self.mapper, self.window = mapper, mapper.grid.window(rect)
        self.event = threading.Event()
        mapper.map.changed.connect(self.look)

    def look(self, _cells: object) -> None:
        if (self.mapper.map.donors()[self.window] >= 0)[self.mapper.map.tissue[self.window]].all():
            self.event.set()

    def wait(self) -> float:
        assert self.event.wait(120)
        self.mapper.map.changed.disconnect(self.look)
        return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="stnet")
    parser.add_argument("--slide", type=Path, default=sample_slide())
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = random_model(args.backbone)
    rows = []
    for _ in range(args.rounds):
        with scratch() as cache, open_slide(args.slide) as slide:
            height, width = (n * m for n, m in zip(slide.shape[:2], slide.mpp, strict=True))
            whole = Rect(0, 0, height, width)
            part = Rect(height * 0.4, width * 0.4, height * 0.6, width * 0.6)
            start = time.perf_counter()
            with LiveMapper(slide, model, MappingSettings(cache_dir=cache)) as mapper:
                built = time.perf_counter()
                covered = Covered(mapper, whole)
                mapper.set_viewport(Viewport(whole, 900 / height))
                first = covered.wait()
                covered = Covered(mapper, part)
                panned = time.perf_counter()
                mapper.set_viewport(Viewport(part, 900 / part.height))
                second = covered.wait() if not covered.event.is_set() else panned
                rows.append((built - start, first - built, first - start, second - panned))
    table = [[i + 1, *(f"{v:.2f}" for v in r)] for i, r in enumerate(rows)]
    table.append(["median", *(f"{v:.2f}" for v in np.median(rows, axis=0))])
    print_table(
        f"First coarse picture, {args.backbone}, {args.slide.name} (seconds)",
        ["round", "tissue, cache, device", "first batch", "start to picture", "pan to picture"],
        table,
    )


if __name__ == "__main__":
    main()
