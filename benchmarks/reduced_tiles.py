"""JPEG tiles decoded at reduced scale: how much faster patches are read, and how far maps move by it.

    python benchmarks/reduced_tiles.py [SLIDE ...] [--model breast-her2st] [--patches 300] [--rounds 7]

Patches of tissue of each slide are read from its finest level, which is shrunk by the patch (*today*), and from levels
that are decoded at a half, a quarter or an eighth (*reduced*), in turns; patches per second are of processor time,
medians, of patches that touch. Then both kinds, of patches that overlap, go through the model, torch in float32:
*grey* is the mean deviation of pixels and its 99th percentile, *features* the median correlation of the network's
features over patches and the lowest, *genes* that of the predicted genes, and *shares* the largest deviation of a cell
type's share and its 99th percentile. Beside it stand two deviations that nobody chose: *moved*, patches a quarter of a
micrometre to the side, and *means*, the same pixels in a file without coarser levels, of which the overviews are means
of 2 x 2 pixels. (A slide of more than 2,048 px that has no coarser level is read from such overviews today.)

A plain picture (JPEG, PNG) is first written in tiles of 256 px (JPEG 85, chroma at half the size) as of half the
patch's pixel size.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from common import print_table, sample_slide, scratch
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.geometry import Grid
from napari_cpnn.models import load_model
from napari_cpnn.prediction import Predictor
from napari_cpnn.slides import PatchReader, Slide, find_tissue, open_slide


def means(pixels: np.ndarray, n: int) -> np.ndarray:
    rows, cols = (side // n for side in pixels.shape[:2])
    blocks = pixels[: rows * n, : cols * n].reshape(rows, n, cols, n, 3)
    return (blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)


def tiled(path: Path, folder: Path, mpp: float) -> Path:
    """A picture as a slide in tiles, in steps of four."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    out = folder / f"{path.stem}.tif"
    with tifffile.TiffWriter(out) as tif:
        for step, level in ((1, pixels), (4, means(pixels, 4))):
            tif.write(
                level,
                tile=(256, 256),
                photometric="rgb",
                subsampling=(2, 2),
                compression="jpeg",
                compressionargs={"level": 85},
                resolution=(10_000 / mpp / step,) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=int(step > 1),
                metadata=None,
            )
    return out


def centres(slide: Slide, stride_um: float, most: int) -> np.ndarray:
    """Of at most so many patches of tissue, row by row."""
    grid = Grid.over(slide.shape[:2], slide.require_mappable(), stride_um)
    cells = np.argwhere(find_tissue(slide).coverage(grid) >= 0.5)
    chosen = np.sort(np.random.default_rng(0).permutation(len(cells))[:most])
    return grid.centers_um(cells[chosen])


def open_as(path: Path, kind: str) -> Slide:
    slide = open_slide(path)
    return slide.with_reduced_levels() if kind == "reduced" else slide


def rate(path: Path, kind: str, spec, centers: np.ndarray) -> float:
    with open_as(path, kind) as slide:
        reader = PatchReader(slide, spec)
        images = np.empty((64, spec.size_px, spec.size_px, 3), np.uint8)
        reader.read_into(centers[-1:], images[:1])
        start = time.thread_time()
        for first in range(0, len(centers), 64):
            part = centers[first : first + 64]
            assert reader.read_into(part, images[: len(part)]).all()
        return len(centers) / (time.thread_time() - start)


def correlation(a: np.ndarray, b: np.ndarray) -> str:
    a, b = (x.astype(np.float64) - x.mean(axis=0) for x in (a, b))
    with np.errstate(invalid="ignore"):
        r = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return f"{np.nanmedian(r):.5f}, {np.nanmin(r):.5f}"


class Maps:
    """What a model makes of patches."""

    def __init__(self, name: str) -> None:
        self.model = load_model(name)
        self.predictor = Predictor(self.model, "cpu", "float32", engine="torch")

    def of(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        found = self.predictor.predict(images)
        genes = self.model.decoder().expression(found.weights, found.programs, self.model.genes)
        return images, self.predictor.features(images), genes, found.weights

    def row(self, name: str, way: str, today: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> list[str]:
        grey = np.abs(today[0].astype(np.int16) - other[0])
        share = np.abs(today[3] - other[3])
        return [
            *(name, way, f"{grey.mean():.2f}, {np.percentile(grey, 99):.0f}"),
            *(correlation(a, b) for a, b in zip(today[1:3], other[1:3], strict=True)),
            f"{share.max():.3f}, {np.percentile(share, 99):.3f}",
        ]


def compare(path: Path, maps: Maps, most: int, rounds: int) -> tuple[list[str], list[list[str]]]:
    spec = maps.model.patch
    with open_slide(path) as slide:
        touching, centers = (centres(slide, spec.size_um / parts, most) for parts in (1, 4))
        whole = slide.read_region(0, 0, *slide.shape[:2])
        mpp = slide.mpp
    turns = [[rate(path, kind, spec, touching) for kind in ("today", "reduced")] for _ in range(rounds)]
    before, now = (statistics.median(turn[i] for turn in turns) for i in (0, 1))
    speed = [path.stem, f"{len(touching)}", f"{before:.0f}", f"{now:.0f}"]
    speed.append(f"{statistics.median(b / a for a, b in turns):.2f}")
    ways = {}
    for kind in ("today", "reduced"):
        with open_as(path, kind) as slide:
            ways[kind] = maps.of(PatchReader(slide, spec).read(centers)[0])
            if kind == "today":
                ways["moved"] = maps.of(PatchReader(slide, spec).read(centers + np.array([0, 0.25]))[0])
    flat = Slide.from_arrays([whole, means(whole, 2)], mpp)
    ways["means"] = maps.of(PatchReader(flat, spec).read(centers)[0])
    today = ways.pop("today")
    return speed, [maps.row(path.stem, way, today, other) for way, other in ways.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="*", type=Path, default=[sample_slide()])
    parser.add_argument("--model", default="breast-her2st")
    parser.add_argument("--patches", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CpnnWarning)
    maps = Maps(args.model)
    speeds, rows = [], []
    with scratch() as folder:
        for path in args.slides:
            is_picture = path.suffix.lower() in (".jpg", ".jpeg", ".png")
            slide = tiled(path, Path(folder), maps.model.patch.mpp / 2) if is_picture else path
            speed, found = compare(slide, maps, args.patches, args.rounds)
            speeds.append(speed)
            rows += found
    patch = f"patches of {maps.model.patch.size_px} px at {maps.model.patch.mpp:g} um/px"
    print_table(f"Reading, {patch}, per second", ["slide", "patches", "today", "reduced", "reduced / today"], speeds)
    header = ["slide", "way", "grey", "features", "genes", "shares"]
    print_table(f"Deviation from today, {args.model}", header, rows)


if __name__ == "__main__":
    main()
