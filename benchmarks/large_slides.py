"""Generated slides of 20,000 to 150,000 px a side, 30 % tissue: times, memory, disk; and one view on all of them.

    python benchmarks/large_slides.py [--side 20000 50000 100000 150000] [--backbone squeezenet] [--seconds 600]

The first table is of whole slides. The full map stops after ``--seconds``; what it would take is then extrapolated,
and called so. Peak memory is that of a fresh process above what it had with all libraries loaded and the model on its
device (target: 1.5 GiB above the idle viewer). Re-opening is a second mapper of the same slide until its map is back.

The second is of one view of the same area, within tissue, on each slide: what it costs must not depend on the slide.
Slides are deleted after their run; the largest takes 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from common import print_table, random_model, scratch, sparse_slide
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import DONE, LiveMapper, Viewport
from napari_cpnn.prediction import Predictor
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import FileReader, Slide, open_slide

SCREEN_PX = 900


class Reads:
    """Counts what is read of a file: one read is one tile that is decoded."""

    def __init__(self) -> None:
        self.n = self.n_bytes = 0
        lock, read = threading.Lock(), FileReader.read

        def counted(file: FileReader, offset: int, count: int) -> bytes:
            with lock:
                self.n, self.n_bytes = self.n + 1, self.n_bytes + count
            return read(file, offset, count)

        FileReader.read = counted  # type: ignore[method-assign]


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def wait_for_picture(mapper: LiveMapper, rect: Rect) -> float:
    """Show ``rect``; seconds until every tissue cell in it shows something, its own value or that of a coarse block."""
    window, event = mapper.grid.window(rect), threading.Event()

    def look(_cells: object) -> None:
        if (mapper.map.donors()[window] >= 0)[mapper.map.tissue[window]].all():
            event.set()

    mapper.map.changed.connect(look)
    start = time.perf_counter()
    mapper.set_viewport(Viewport(rect, SCREEN_PX / rect.height))
    assert event.wait(300)
    seconds = time.perf_counter() - start
    mapper.map.changed.disconnect(look)
    return seconds


def n_done(mapper: LiveMapper) -> int:
    return int((mapper.map.state == DONE).sum())


def whole(path: Path, backbone: str, seconds: float) -> dict[str, object]:
    """Of a process of its own: one slide from opening to re-opening."""
    model = random_model(backbone)
    Predictor(model).predict(np.zeros((16, 224, 224, 3), dtype=np.uint8))
    idle, reads = peak_gib(), Reads()
    start = time.perf_counter()
    with scratch() as cache, open_slide(path) as slide:
        opened = time.perf_counter() - start
        settings = MappingSettings(cache_dir=cache)
        start = time.perf_counter()
        with LiveMapper(slide, model, settings) as mapper:
            built = time.perf_counter() - start
            picture = wait_for_picture(mapper, extent(slide))
            reads.n = 0
            done, start = n_done(mapper), time.perf_counter()
            mapper.map_whole_slide()
            finished = mapper.wait_until_mapped(seconds)
            took = time.perf_counter() - start
            rate = (n_done(mapper) - done) / took
            n = int(mapper.map.tissue.sum())
            per_patch = reads.n / (n_done(mapper) - done)
        known = n_done(mapper)
        size = sum(f.stat().st_size for f in Path(cache).rglob("*") if f.is_file())
        start = time.perf_counter()
        with LiveMapper(slide, model, settings) as mapper:
            reopened = time.perf_counter() - start
            assert n_done(mapper) == known
        grid = mapper.grid.shape
        with LiveMapper(slide, model, settings.replace(cache=False)) as mapper:  # as `predict` maps a slide
            reads.n = 0
            mapper.map_whole_slide()
            mapper.wait_until_mapped(seconds)
            alone = reads.n / max(n_done(mapper), 1)
    return {
        "grid": f"{grid[0]} x {grid[1]}",
        "open s": f"{opened:.2f}",
        "tissue, cache, device s": f"{built:.2f}",
        "first picture s": f"{picture:.2f}",
        "patches": f"{n:,}",
        "patches/s": f"{rate:.0f}",
        "full map s": f"{took:.0f}" if finished else f"{n / rate:.0f} (extrapolated)",
        "tiles read per patch after the view": f"{per_patch:.2f}",
        "without a view": f"{alone:.2f}",
        "peak above idle GiB": f"{peak_gib() - idle:.2f}",
        "cache MB": f"{size / 1e6:.1f}",
        "re-open s": f"{reopened:.2f}",
    }


def view(path: Path, backbone: str, side_um: float) -> dict[str, object]:
    """Of a process of its own: a view of ``side_um`` a side in the middle of the largest piece of tissue."""
    from scipy.ndimage import distance_transform_edt

    model = random_model(backbone)
    Predictor(model).predict(np.zeros((16, 224, 224, 3), dtype=np.uint8))
    reads = Reads()
    with (
        open_slide(path) as slide,
        LiveMapper(slide, model, MappingSettings(cache=False, margin=0)) as mapper,
    ):
        depth = distance_transform_edt(np.pad(mapper.map.tissue, 1))[1:-1, 1:-1]
        y, x = mapper.grid.centers_um([np.unravel_index(depth.argmax(), depth.shape)])[0]
        rect = Rect(y - side_um / 2, x - side_um / 2, y + side_um / 2, x + side_um / 2)
        reads.n = reads.n_bytes = 0
        start = time.perf_counter()
        picture = wait_for_picture(mapper, rect)
        assert mapper.wait_until_mapped(300)
        took = time.perf_counter() - start
        wanted = mapper.progress().wanted
    return {
        "patches wanted": wanted,
        "first picture s": f"{picture:.2f}",
        "finished s": f"{took:.2f}",
        "tiles read": reads.n,
        "MB read": f"{reads.n_bytes / 1e6:.1f}",
    }


def extent(slide: Slide) -> Rect:
    assert slide.mpp is not None
    return Rect(0, 0, slide.shape[0] * slide.mpp[0], slide.shape[1] * slide.mpp[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, nargs="+", default=[20_000, 50_000, 100_000, 150_000])
    parser.add_argument("--backbone", default="squeezenet")
    parser.add_argument("--seconds", type=float, default=600, help="stop the full map of a slide after this")
    parser.add_argument("--view-um", type=float, default=2_000, help="side of the view of the second table")
    parser.add_argument("--glass", choices=("stored", "left out"), default="stored")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        kind, path = args.child[0], Path(args.child[1])
        found = whole(path, args.backbone, args.seconds) if kind == "whole" else view(path, args.backbone, args.view_um)
        print(json.dumps(found))
        return

    def in_child(kind: str, path: Path) -> dict[str, object]:
        options = ["--backbone", args.backbone, "--seconds", str(args.seconds), "--view-um", str(args.view_um)]
        command = [sys.executable, __file__, "--child", kind, str(path), *options]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(result.stdout.splitlines()[-1])

    tables: dict[str, list[dict[str, object]]] = {"whole": [], "view": []}
    for side in args.side:
        with scratch() as folder:
            start = time.perf_counter()
            path = sparse_slide(Path(folder), side, glass=args.glass)
            made = {"side px": f"{side:,}", "file GB": f"{path.stat().st_size / 1e9:.2f}"}
            print(f"{path.name} made in {time.perf_counter() - start:.0f} s", file=sys.stderr)
            tables["whole"].append(made | in_child("whole", path))
            tables["view"].append(made | in_child("view", path))
    area = (args.view_um / 1000) ** 2
    for kind, title in (("whole", "Large slides"), ("view", f"The same view of {area:g} mm2 of tissue")):
        rows = tables[kind]
        print_table(
            f"{title}, {args.backbone}, glass {args.glass}", list(rows[0]), [list(row.values()) for row in rows]
        )


if __name__ == "__main__":
    main()
