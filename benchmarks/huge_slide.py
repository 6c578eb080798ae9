"""Mapping a view of a generated 100,000 x 100,000 px slide: time and memory.

    python benchmarks/huge_slide.py [--side 100000] [--seconds 60]

Peak memory is that of a fresh process above what it had with all libraries loaded and the model on its device.
Target: 1.5 GiB above the idle viewer.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from common import huge_slide, print_table, random_model, scratch
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import DONE, LiveMapper, Predictor, Viewport
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import open_slide


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(path: Path, seconds: float) -> None:
    """In a process of its own: prints idle and peak memory, and times."""
    import numpy as np

    model = random_model("stnet")
    Predictor(model).predict(np.zeros((16, 224, 224, 3), dtype=np.uint8))
    idle = peak_mib()
    start = time.perf_counter()
    with scratch() as cache, open_slide(path) as slide:
        opened = time.perf_counter()
        height, width = (n * m for n, m in zip(slide.shape[:2], slide.mpp, strict=True))
        with LiveMapper(slide, model, MappingSettings(cache_dir=cache)) as mapper:
            built = time.perf_counter()
            first = []
            mapper.map.changed.connect(lambda _: first.append(time.perf_counter()))
            mapper.set_viewport(Viewport(Rect(0, 0, height, width), 900 / height))
            mapper.wait_until_mapped(seconds / 2)
            part = Rect(height * 0.4, width * 0.4, height * 0.42, width * 0.42)
            mapper.set_viewport(Viewport(part, 900 / part.height))
            mapper.map_whole_slide()
            mapper.wait_until_mapped(seconds / 2)
            n = int((mapper.map.state == DONE).sum())
            shape = mapper.grid.shape
    print(idle, peak_mib(), opened - start, built - opened, first[0] - built, n, *shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.seconds)
        return
    rows = []
    for side in args.side:
        with scratch() as folder:
            path = huge_slide(Path(folder), side)
            command = [sys.executable, __file__, "--child", str(path), "--seconds", str(args.seconds)]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            idle, peak, opened, built, first, n, rows_, cols = map(float, result.stdout.split())
            rows.append(
                [
                    f"{side:,}",
                    f"{int(rows_)} x {int(cols)}",
                    f"{path.stat().st_size / 2**30:.2f}",
                    f"{opened:.2f}",
                    f"{built:.2f}",
                    f"{first:.2f}",
                    int(n),
                    f"{idle / 1024:.2f}",
                    f"{(peak - idle) / 1024:.2f}",
                ]
            )
    print_table(
        "Large slides (ST-Net)",
        [
            "side px",
            "grid",
            "file GiB",
            "open s",
            "tissue s",
            "first batch s",
            "patches",
            "idle GiB",
            "peak above idle GiB",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
