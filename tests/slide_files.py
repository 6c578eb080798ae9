"""Synthetic slides for the tests of this part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from napari_cpnn.slides import Slide


def picture(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """A smooth random RGB picture: no symmetry, so that a flip or a shift shows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (channels, height // 8 + 2, width // 8 + 2), dtype=np.uint8)
    size = (8 * coarse.shape[2], 8 * coarse.shape[1])
    smooth = [Image.fromarray(c).resize(size, Image.Resampling.BILINEAR) for c in coarse]
    return np.ascontiguousarray(np.stack([np.asarray(s) for s in smooth], axis=-1)[:height, :width])


def write_tiff(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """One page, RGB, no metadata of tifffile's own."""
    options = {"photometric": "rgb", "metadata": None, **options}
    tifffile.imwrite(path, pixels, **options)
    return path


def whole(slide: Slide, level: int = 0) -> np.ndarray:
    return slide.read_region(0, 0, *slide.level_shapes[level], level=level)
