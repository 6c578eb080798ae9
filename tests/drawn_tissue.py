"""Drawn pictures of tissue whose outline has no symmetry, and the same turned or mirrored."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_cpnn import Slide
from napari_cpnn.arrays import FloatArray

#: um per pixel of the pictures that are drawn here, and their side in pixels.
UM, SIDE = 6.0, 700
WHITE = 244


def similarity(degrees: float, mirror: bool, scale: float = 1.0) -> FloatArray:
    """(2, 2) on (y, x): mirrored left to right, then turned."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return scale * np.array([[c, -s], [s, c]]) @ np.diag([1.0, -1.0 if mirror else 1.0])


def snail(angle):
    return 0.35 + 0.6 * (angle + np.pi) / (2 * np.pi)


def picture(seed: int, outline=snail) -> np.ndarray:
    """Pink tissue with purple spots, of an outline (radius by angle) that has no symmetry."""
    rng = np.random.default_rng(seed)
    y, x = (np.indices((SIDE, SIDE)) - SIDE / 2) / (SIDE / 2)
    inside = np.hypot(y, x) < outline(np.arctan2(y, x)) * 0.9
    noise = [ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), sigma) for sigma in (2, 6, 20)]
    dark = sum(one / one.std() for one in noise)
    tissue = np.stack([215 - 22 * dark, 150 - 26 * dark, 190 - 10 * dark], axis=-1)
    shown = np.where(inside[..., None], tissue, WHITE + rng.normal(0, 1, (SIDE, SIDE, 1)))
    return shown.clip(0, 255).astype(np.uint8)


def turned_picture(pixels: np.ndarray, linear: FloatArray, um: tuple[float, float]) -> tuple[Slide, FloatArray]:
    """A picture turned about its middle, square pixels of ``um[0]``; and the (2, 3) from its um back to the first."""
    side = int(max(pixels.shape) * 1.45)
    middle = np.array(pixels.shape[:2]) / 2 * um
    shift = middle - linear @ np.full(2, side / 2 * um[0]) + (90, -60)
    into = linear * um[0] / np.array(um)[:, None]
    offset = (linear @ np.full(2, um[0] / 2) + shift) / np.array(um) - 0.5
    planes = [
        ndimage.affine_transform(pixels[..., k].astype(float), into, offset, (side, side), order=1, cval=WHITE)
        for k in range(3)
    ]
    new = np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)
    return Slide.from_arrays([new], um[0], name="turned"), np.column_stack([linear, shift])


def spots_on(slide: Slide, pitch: float = 200.0) -> FloatArray:
    """(x, y) pixels of an array of spots on the drawn tissue."""
    grid = np.stack(np.meshgrid(*[np.arange(0, SIDE * UM, pitch)] * 2), axis=-1).reshape(-1, 2) / UM
    pixels = np.asarray(slide.levels[0])
    return grid[pixels[grid[:, 1].astype(int), grid[:, 0].astype(int), 1] < 220]
