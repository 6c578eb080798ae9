"""A slide of painted nuclei whose places are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from scipy import ndimage

from napari_cpnn.slides import Slide


class Painted(NamedTuple):
    """A slide and the centres of its nuclei in um."""

    slide: Slide
    centers_um: np.ndarray


def paint(side_px: int = 800, mpp: float = 0.5, seed: int = 3, margin_um: float = 60.0) -> Painted:
    """Pink tissue on glass, with dark ellipses about 16 um apart; one nucleus lies on the corner of four tiles."""
    rng = np.random.default_rng(seed)
    side_um = side_px * mpp
    at = np.arange(margin_um, side_um - margin_um, 16.0)
    centers = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2) + rng.uniform(
        -2.5, 2.5, (len(at) ** 2, 2)
    )
    centers = np.vstack([centers[np.linalg.norm(centers - 256, axis=1) > 16], [[256.0, 256.0]]])
    eosin, haematoxylin = np.zeros((side_px, side_px), np.float32), np.zeros((side_px, side_px), np.float32)
    edge = int((margin_um - 12) / mpp)
    eosin[edge:-edge, edge:-edge] = ndimage.gaussian_filter(rng.normal(0.35, 0.9, (side_px - 2 * edge,) * 2), 3 / mpp)
    y, x = np.mgrid[:side_px, :side_px].astype(np.float32)
    for cy, cx in (centers / mpp - 0.5).tolist():
        a, b, turn = rng.uniform(3.2, 4.2) / mpp, rng.uniform(2.6, 3.2) / mpp, rng.uniform(0, np.pi)
        box = tuple(slice(max(0, int(c) - 30), int(c) + 30) for c in (cy, cx))
        dy, dx = y[box] - cy, x[box] - cx
        along, across = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        haematoxylin[box] = np.maximum(haematoxylin[box], 0.75 * ((along / a) ** 2 + (across / b) ** 2 <= 1))
    haematoxylin = ndimage.gaussian_filter(haematoxylin, 0.5 / mpp)
    density = eosin[..., None] * [0.07, 0.60, 0.25] + haematoxylin[..., None] * [0.65, 0.70, 0.29]
    light = 240 * 10**-density + rng.normal(0, 2, density.shape)
    pixels = np.clip(light, 0, 255).astype(np.uint8)
    return Painted(Slide.from_arrays([pixels], mpp, name="painted"), centers)


@pytest.fixture(scope="session")
def painted() -> Painted:
    return paint()


@pytest.fixture(scope="session")
def paint_slide():
    """The painter, for slides of other sizes."""
    return paint
