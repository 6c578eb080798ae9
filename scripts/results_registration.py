"""How well registrations are guessed on the sections of her2st with a picture; the table of docs/results.md.

    python scripts/results_registration.py --data FOLDER      # default: NAPARI_CPNN_DATA; a minute on one core

Known similarities are applied to the pictures and to the spots and must be found again; neighbouring sections are
registered from one to the other and back; sections of another patient must not be believed.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path

import numpy as np
from anndata import AnnData
from scipy import ndimage

from napari_cpnn import Slide, open_slide, read_spots
from napari_cpnn.registration import guess_registration

MPP = (0.686, 0.690)
SECTIONS = ("B4", "C2", "C3", "C4")
#: Angle in degrees, and whether mirrored.
TURNS = ((0.0, False), (23.0, True), (-117.0, False), (180.0, True))
#: Pictures are made so many times smaller before they are turned.
SMALLER = 8


def similarity(degrees: float, mirror: bool) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]]) @ np.diag([1.0, -1.0 if mirror else 1.0])


def turned(slide: Slide, degrees: float, mirror: bool) -> tuple[Slide, np.ndarray]:
    """The picture of a slide, turned about its middle; and the map (2, 3) from its um back to those of the slide."""
    small = slide.thumbnail(max(slide.shape[:2]) // SMALLER)
    um = np.array([n * size / m for n, size, m in zip(slide.shape, slide.mpp, small.shape, strict=False)])
    side, linear = int(1.45 * max(small.shape)), similarity(degrees, mirror)
    shift = np.array(small.shape[:2]) * um / 2 - linear @ np.full(2, side / 2 * um[0]) + (150, -80)
    offset = (linear @ np.full(2, um[0] / 2) + shift) / um - 0.5
    glass = np.median(small[:20, :20].reshape(-1, 3), axis=0)
    planes = [
        ndimage.affine_transform(
            small[..., k].astype(float), linear * um[0] / um[:, None], offset, (side, side), order=1, cval=glass[k]
        )
        for k in range(3)
    ]
    new = np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)
    return Slide.from_arrays([new], float(um[0]), name=slide.name), np.column_stack([linear, shift])


def spots_of(name: str, folder: Path) -> AnnData:
    counts, positions = folder / f"ST-cnts/{name}.tsv.gz", folder / f"ST-spotfiles/{name}_selection.tsv"
    return read_spots(counts, positions, check=False)


def pictures(slides: dict[str, Slide]) -> None:
    points = np.random.default_rng(0).uniform(1000, 6000, (200, 2))
    for (name, slide), (degrees, mirror) in zip(slides.items(), TURNS, strict=True):
        other, truth = turned(slide, degrees, mirror)
        found = guess_registration(slide, other)
        off = np.linalg.norm(found.map(points) - (points @ truth[:, :2].T + truth[:, 2]), axis=1)
        what = f"{name}, its picture turned by {degrees:+.0f}°{', mirrored' if mirror else ''}"
        print(f"| {what} | {found.summary} | {off.mean():.0f} ({off.max():.0f}) | {'yes' if found.trusted else 'no'} |")


def outlines(slides: dict[str, Slide], folder: Path) -> None:
    for (name, slide), (degrees, mirror) in itertools.product(slides.items(), ((0.0, False), (-60.0, True))):
        spots = spots_of(name, folder)
        here = spots.obsm["spatial"] * MPP[::-1]
        spots.obsm["spatial"] = (here[:, ::-1] @ similarity(degrees, mirror).T)[:, ::-1] * 3 + 20_000
        found = guess_registration(slide, spots, name)
        off = np.linalg.norm(found.map_px(spots.obsm["spatial"]) * MPP[::-1] - here, axis=1)
        what = f"{name}, its spots turned by {degrees:+.0f}°{', mirrored' if mirror else ''}"
        print(f"| {what} | {found.summary} | {off.mean():.0f} ({off.max():.0f}) | {'yes' if found.trusted else 'no'} |")


def sections(slides: dict[str, Slide]) -> None:
    points = np.random.default_rng(0).uniform(1500, 5000, (200, 2))
    for a, b in itertools.combinations(slides, 2):
        there, back = guess_registration(slides[b], slides[a]), guess_registration(slides[a], slides[b])
        off = np.linalg.norm(back.map(there.map(points)) - points, axis=1)
        away = f"{off.mean():.0f} ({off.max():.0f}), there and back" if there.trusted and back.trusted else "–"
        said = f"{'yes' if there.trusted else 'no'}, {'yes' if back.trusted else 'no'}"
        print(f"| {a} on {b}, and {b} on {a} | {there.summary} | {away} | {said} |")


def others(slides: dict[str, Slide], folder: Path) -> None:
    """Spots of another section, by their outline alone."""
    for a, b in itertools.permutations(slides, 2):
        spots = spots_of(a, folder)
        found = guess_registration(slides[b], spots, a)
        print(f"| spots of {a} on {b} | {found.summary} | – | {'yes' if found.trusted else 'no'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("NAPARI_CPNN_DATA"), required=False)
    args = parser.parse_args()
    if args.data is None:
        parser.error("say where the data are with --data, or with NAPARI_CPNN_DATA")
    folder = Path(args.data) / "her2st/data"
    slides = {
        name: open_slide(next((folder / f"ST-imgs/{name[0]}/{name}").glob("*.jpg")), mpp=MPP) for name in SECTIONS
    }
    print("| moving | found | off by, µm: mean (largest) | believed |\n|---|---|---|---|")
    pictures(slides)
    outlines(slides, folder)
    sections(slides)
    others(slides, folder)


if __name__ == "__main__":
    main()
