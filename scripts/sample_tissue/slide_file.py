"""Writes the slide as a plain tiled, pyramidal JPEG TIFF that tifffile, OpenSlide, Bio-Formats and QuPath open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from sample_tissue.layout import MPP

TILE = 512
FACTOR = 4


def write_slide(path: Path, image: np.ndarray, quality: int = 60) -> None:
    """Write ``(h, w, 3)`` uint8 and its levels, each a quarter of the one before, down to one tile.

    The pixel size stands in the resolution tags (pixels per centimetre) of every level. No date and no id, so that
    the same picture gives the same bytes.
    """
    levels = [image]
    while max(levels[-1].shape[:2]) > 2 * TILE:
        levels.append(_quarter(levels[-1]))
    with tifffile.TiffWriter(path) as tiff:
        for i, level in enumerate(levels):
            pixel_um = MPP * FACTOR**i
            tiff.write(
                level,
                photometric="rgb",
                subsampling=(2, 2),  # stored as YCbCr 4:2:0
                compression="jpeg",
                compressionargs={"level": quality, "optimize": True},
                tile=(TILE, TILE),
                subfiletype=0 if i == 0 else 1,
                resolution=(1e4 / pixel_um, 1e4 / pixel_um),
                resolutionunit="CENTIMETER",
                description="Synthetic H&E section of napari-cpnn; no tissue of any person" if i == 0 else None,
                metadata=None,
                software=None,
            )


def _quarter(image: np.ndarray) -> np.ndarray:
    h, w = (-(-n // FACTOR) * FACTOR for n in image.shape[:2])
    padded = np.pad(image, ((0, h - image.shape[0]), (0, w - image.shape[1]), (0, 0)), mode="edge")
    blocks = padded.reshape(h // FACTOR, FACTOR, w // FACTOR, FACTOR, 3)
    return np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
