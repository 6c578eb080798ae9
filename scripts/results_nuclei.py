"""How well nuclei are found: ``python scripts/results_nuclei.py [held-out] [sample] [speed] [tiling]``.

* ``held-out``: organs of NuInsSeg that neither trained the network nor chose a threshold (``train_nuclei.HELD_OUT``),
  as slides of several pixel sizes; both detectors;
* ``sample``: the packaged slide, whose nuclei are known from the layout that it is painted from, without its artefacts;
* ``speed``: processor seconds per mm2 of the sample's tissue, one thread;
* ``tiling``: nuclei of real tissue and of the sample when the tiles are shifted by any number of pixels.

Rows of Markdown tables are printed. The data folder is ``$NAPARI_CPNN_DATA``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import napari_cpnn as nc
from napari_cpnn.nuclei import detection_scores
from napari_cpnn.slides import find_tissue
from sample_tissue.layout import CELL_TYPES, make_layout
from sample_tissue.nuclei import drawn_nuclei
from sample_tissue.render import Painter
from train_nuclei import HELD_OUT, centers_of, is_in, nuclei_of, numbers, slide_of, whole

METHODS = ("network", "classical")
#: Organs of ``HELD_OUT`` as they look.
ORGANS = ("cerebellum", "kidney, human", "pancreas", "rectum", "tonsil", "heart, mouse", "kidney, mouse")
#: Part of the sample, y0 x0 y1 x1 in um.
PART, RIM = (2000.0, 1000.0, 3200.0, 2200.0), 50.0
#: Rows and columns of the slide that are cut off to shift the tiles; 8 px of 0.5 um are what the network halves to one.
SHIFTS = (3, 5, 13)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser.add_argument("what", nargs="*", default=["held-out", "sample", "speed", "tiling"])
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--card", type=Path, help="file of weights into whose card the scores of held-out organs go")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.card:
        write_scores(args.card, held_out(args.data / "nuinsseg"))
        return
    for name in args.what:
        {"held-out": held_out, "sample": sample, "speed": speed, "tiling": tiling}[name](args.data / "nuinsseg")


def pooled(scores: Iterable[dict[str, float]]) -> tuple[float, float, float]:
    """F1, precision and recall of all nuclei together."""
    scores = list(scores)
    matched, found, true = (sum(one[key] for one in scores) for key in ("matched", "found", "true"))
    return 2 * matched / max(found + true, 1), matched / max(found, 1), matched / max(true, 1)


def write_scores(path: Path, scores: dict[str, dict[str, float]]) -> None:
    """Put scores of the network into the card of its weights."""
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["napari_cpnn"])
    save_file(load_file(path), path, metadata={"napari_cpnn": json.dumps({**card, "held_out": scores})})


def held_out(folder: Path) -> dict[str, dict[str, float]]:
    """Return F1, precision and recall of the network by pixel size."""
    known = {number: centers_of(nuclei_of(folder, number)) for number in numbers(folder, "held-out")}
    print(f"{len(known)} images, {sum(map(len, known.values())):,} nuclei\n")
    print("| pixel size of the slide | detector | F1 | precision | recall |\n|---|---|---|---|---|")
    by_organ, summary = {}, {}
    for mpp in (0.25, 0.5):
        for method in METHODS:
            settings = nc.NucleiSettings(method=method, outlines=False)
            scores = {}
            for number, truth in known.items():
                slide = slide_of(folder, number, mpp)
                found = nc.detect_nuclei(slide, settings=settings, tissue=whole(slide), progress=False)
                scores[number] = detection_scores(found.centers_um, truth)
            by_organ[mpp, method] = scores
            values = [round(v, 3) for v in pooled(scores.values())]
            if method == "network":
                summary[f"{mpp} um/px"] = dict(zip(("f1", "precision", "recall"), values, strict=True))
            print(f"| {mpp} um | {method} | {' | '.join(f'{v:.3f}' for v in values)} |", flush=True)
    print("\n| organ, at 0.5 um/px | images | nuclei | F1, network | F1, classical |\n|---|---|---|---|---|")
    for organ, images in zip(ORGANS, HELD_OUT, strict=True):
        mine = [number for number in known if is_in(number, (images,))]
        f1 = (pooled(by_organ[0.5, method][n] for n in mine)[0] for method in METHODS)
        print(
            f"| {organ} | {len(mine)} | {sum(len(known[n]) for n in mine):,} | {' | '.join(f'{v:.3f}' for v in f1)} |"
        )
    return summary


def sample(_folder: Path) -> None:
    slide = nc.open_slide(nc.sample_folder() / "slide.tiff")
    truth = np.load(nc.sample_folder() / "truth.npz")
    artefact, stride = truth["artefact"], float(truth["stride_um"])
    # Drawn with a rim, so that nuclei at the border of the part are whole.
    y0, x0, y1, x1 = (round(2 * v) for v in (PART[0] - RIM, PART[1] - RIM, PART[2] + RIM, PART[3] + RIM))
    nuclei = drawn_nuclei(Painter(make_layout(12000, 7), 7), y0, x0, y1 - y0, x1 - x0)

    def clear(centers: np.ndarray) -> np.ndarray:
        inside = (centers >= PART[:2]).all(axis=1) & (centers < PART[2:]).all(axis=1)
        at = (np.nan_to_num(centers) // stride).astype(int).clip(0, np.array(artefact.shape) - 1)
        return inside & ~artefact[tuple(at.T)]

    there = clear(nuclei.centers_um) & (nuclei.shown >= 0.5)
    print(f"\n{there.sum():,} nuclei\n")
    print("| detector | F1 | precision | recall | recall of each type |\n|---|---|---|---|---|")
    for method in METHODS:
        settings = nc.NucleiSettings(method=method, outlines=False)
        found = nc.detect_nuclei(slide, PART, settings, progress=False).centers_um
        found = found[clear(found)]
        scores = pooled([detection_scores(found, nuclei.centers_um[there])])
        recalls = []
        for number, name in enumerate(CELL_TYPES):
            mine = nuclei.centers_um[there & (nuclei.types == number)]
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


def tiling(folder: Path) -> None:
    """Nuclei when the lattice of tiles begins elsewhere."""
    c4 = next((folder.parent / "her2st/data/ST-imgs/C/C4").glob("*.jpg"))
    print("\n| tissue | nuclei | shift, px | change of their number | nuclei that change |\n|---|---|---|---|---|")
    for name, path, mpp, (y, x) in (
        ("her2st C4", c4, 0.69, (3000, 4000)),
        ("CMU-1", folder.parent / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs", None, (200, 200)),
    ):
        slide = nc.open_slide(path, mpp=mpp)
        pixels, um = slide.read_region(y, x, 1000, 1000), np.array(slide.mpp)
        first, *others = (inner_nuclei(pixels, um, shift) for shift in (0, *SHIFTS))
        for shift, centers in zip(SHIFTS, others, strict=True):
            same = detection_scores(centers, first, 1.5)["f1"]
            change = len(centers) / len(first) - 1
            print(f"| {name} | {len(first):,} | {shift} | {change:+.2%} | {1 - same:.1%} |", flush=True)


def inner_nuclei(pixels: np.ndarray, um: np.ndarray, shift: int) -> np.ndarray:
    """Centres of nuclei of a picture from which some rows and columns are cut off, away from its borders."""
    cut = nc.Slide.from_arrays([pixels[shift:, shift:]], tuple(um), name="cut")
    settings = nc.NucleiSettings(outlines=False)
    centers = nc.detect_nuclei(cut, settings=settings, tissue=whole(cut), progress=False).centers_um + shift * um
    return centers[((centers > 40 * um) & (centers < 960 * um)).all(axis=1)]


if __name__ == "__main__":
    main()
