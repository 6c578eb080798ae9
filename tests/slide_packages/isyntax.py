"""Stand-in for pyisyntax: its interface, for archives of numpy with ``pixels`` (y, x, RGBA)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


class ISyntax:
    mpp_x, mpp_y = 0.25, 0.26

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.level_downsamples = [1, 2, 4]
        self.level_dimensions = [(pixels.shape[1] // n, pixels.shape[0] // n) for n in self.level_downsamples]

    @classmethod
    def open(cls, filename: str | Path, cache_size: int = 2000) -> ISyntax:
        head = Path(filename).read_bytes()[:8]
        if head.startswith(b"abort"):
            os.abort()
        if not head.startswith(b"PK"):
            raise OSError
        with np.load(filename) as held:
            return cls(held["pixels"])

    @property
    def barcode(self) -> str:
        raise AssertionError("nobody needs to know")

    def read_region(self, x: int, y: int, width: int, height: int, level: int = 0) -> np.ndarray:
        if self._pixels is None:
            raise ValueError("closed")
        step = self.level_downsamples[level]
        return self._pixels[::step, ::step][y : y + height, x : x + width].copy()

    def close(self) -> None:
        self._pixels = None
