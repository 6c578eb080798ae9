"""Colours of the stains of H&E, for deconvolution of colours (Ruifrok & Johnston 2001)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array

#: Optical densities (R, G, B) of haematoxylin and of eosin, rows ``(2, 3)`` of unit length.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
STAINS.setflags(write=False)


def optical_density(images: npt.NDArray[np.uint8]) -> Float32Array:
    """Decadic optical density ``-log10((I + 1) / 256)`` of images of any shape, float32."""
    return np.asarray(-np.log10((images.astype(np.float32) + 1) / 256), dtype=np.float32)
