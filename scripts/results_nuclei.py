"""How well nuclei are found: ``python scripts/results_nuclei.py [held-out] [sample] [speed] [tiling]``.

* ``held-out``: organs of NuInsSeg that neither trained the network nor chose a threshold (``train_nuclei.HELD_OUT``),
  as slides of several pixel sizes; both detectors;
* ``sample``: the packaged slide, whose nuclei are known from the layout that it is painted from, without its artefacts;
* ``speed``: processor seconds per mm2 of the sample's tissue, one thread;
* ``tiling``: nuclei of the sample when the tiles are shifted.

Rows of Markdown tables are printed. The data folder is ``$NAPARI_CPNN_DATA``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

import napari_cpnn as nc
from napari_cpnn.geometry import Grid
from napari_cpnn.nuclei import detection_scores
from napari_cpnn.slides import find_tissue
from sample_tissue.layout import CELL_TYPES, make_layout
from train_nuclei import HELD_OUT, centers_of, is_in, nuclei_of, numbers, slide_of, whole

METHODS = ("network", "classical")
#: Organs of ``HELD_OUT`` as they look.
ORGANS = ("cerebellum", "kidney, human", "pancreas", "rectum", "tonsil", "heart, mouse", "kidney, mouse")
#: Part of the sample, y0 x0 y1 x1 in um.
PART = (2000.0, 1000.0, 3200.0, 2200.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser.add_argument("what", nargs="*", default=["held-out", "sample", "speed", "tiling"])
    parser.add_argument("--data", type=Path, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.what:
        {"held-out": held_out, "sample": sample, "speed": speed, "tiling": tiling}[name](args.data / "nuinsseg")


def pooled(scores: Iterable[dict[str, float]]) -> tuple[float, float, float]:
    """F1, precision and recall of all nuclei together."""
    matched, found, true = (sum(one[key] for one in scores) for key in ("matched", "found", "true"))
    return 2 * matched / max(found + true, 1), matched / max(found, 1), matched / max(true, 1)


def held_out(folder: Path) -> None:
    known = {number: centers_of(nuclei_of(folder, number)) for number in numbers(folder, "held-out")}
    print(f"{len(known)} images, {sum(map(len, known.values())):,} nuclei\n")
    print("| pixel size of the slide | detector | F1 | precision | recall |\n|---|---|---|---|---|")
    by_organ = {}
    for mpp in (0.25, 0.5, 1.0):
        for method in METHODS:
            settings = nc.NucleiSettings(method=method, outlines=False)
            scores = {}
            for number, truth in known.items():
                slide = slide_of(folder, number, mpp)
                found = nc.detect_nuclei(slide, settings=settings, tissue=whole(slide), progress=False)
                scores[number] = detection_scores(found.centers_um, truth)
            by_organ[mpp, method] = scores
            print(f"| {mpp} um | {method} | {' | '.join(f'{v:.3f}' for v in pooled(scores.values()))} |", flush=True)
    print("\n| organ, at 0.5 um/px | images | nuclei | F1, network | F1, classical |\n|---|---|---|---|---|")
    for organ, images in zip(ORGANS, HELD_OUT, strict=True):
        mine = [number for number in known if is_in(number, (images,))]
        f1 = (pooled(by_organ[0.5, method][n] for n in mine)[0] for method in METHODS)
        print(
            f"| {organ} | {len(mine)} | {sum(len(known[n]) for n in mine):,} | {' | '.join(f'{v:.3f}' for v in f1)} |"
        )


def sample(_folder: Path) -> None:
    slide, layout = nc.open_slide(nc.sample_folder() / "slide.tiff"), make_layout(12000, 7)
    truth = np.load(nc.sample_folder() / "truth.npz")
    grid = Grid(truth["artefact"].shape, float(truth["stride_um"]))

    def clear(centers: np.ndarray) -> np.ndarray:
        at = (centers // grid.stride_um).astype(int)
        inside = (centers >= PART[:2]).all(axis=1) & (centers < PART[2:]).all(axis=1)
        return inside & ~truth["artefact"][tuple(at.clip(0, np.array(grid.shape) - 1).T)]

    there = clear(layout.cells.points)
    print(f"\n{there.sum():,} nuclei\n\n| detector | F1 | precision | recall | recall of each type |")
    print("|---|---|---|---|---|")
    for method in METHODS:
        found = nc.detect_nuclei(
            slide, PART, nc.NucleiSettings(method=method, outlines=False), progress=False
        ).centers_um
        found = found[clear(found)]
        scores = pooled([detection_scores(found, layout.cells.points[there])])
        recalls = []
        for number, name in enumerate(CELL_TYPES):
            mine = layout.cells.points[there & (layout.cells.types == number)]
            recalls.append(f"{name} {detection_scores(found, mine)['recall']:.2f}")
        print(f"| {method} | {' | '.join(f'{v:.3f}' for v in scores)} | {', '.join(recalls)} |", flush=True)


def speed(_folder: Path) -> None:
    slide = nc.open_slide(nc.sample_folder() / "slide.tiff")
    tissue, area = find_tissue(slide), (2048.0, 1024.0, 3072.0, 2048.0)
    print("\n| detector | outlines | mm2 per minute and core | nuclei per mm2 |\n|---|---|---|---|")
    for method, outlines in (("network", True), ("network", False), ("classical", True)):
        settings, start = nc.NucleiSettings(method=method, outlines=outlines), time.process_time()
        nuclei = nc.detect_nuclei(slide, area, settings, tissue=tissue, progress=False)
        mm2 = (area[2] - area[0]) * (area[3] - area[1]) / 1e6
        rate = 60 * mm2 / (time.process_time() - start)
        print(f"| {method} | {'yes' if outlines else 'no'} | {rate:.1f} | {len(nuclei) / mm2:,.0f} |", flush=True)


def tiling(_folder: Path) -> None:
    slide, (y0, x0, y1, x1) = nc.open_slide(nc.sample_folder() / "slide.tiff"), PART
    pixels = slide.read_region(int(2 * y0), int(2 * x0), int(2 * (y1 - y0)), int(2 * (x1 - x0)))
    counts = []
    for down, right in ((0, 0), (203, 77), (6, 401)):
        cut = nc.Slide.from_arrays([pixels[down:, right:]], 0.5, name="cut")
        settings = nc.NucleiSettings(outlines=False)
        centers = nc.detect_nuclei(cut, settings=settings, tissue=whole(cut), progress=False).centers_um
        centers = centers + np.array([down, right]) / 2
        counts.append(int(((centers > 250) & (centers < y1 - y0 - 50)).all(axis=1).sum()))
    print(f"\ntiles shifted: {counts} nuclei, at most {max(abs(n / counts[0] - 1) for n in counts):.2%} apart")


if __name__ == "__main__":
    main()
