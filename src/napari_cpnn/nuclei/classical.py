"""The classical detector: haematoxylin, blobs, a watershed; a baseline that needs no training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, Picture
from napari_cpnn.nuclei.separation import Maps
from napari_cpnn.slides import STAINS, optical_density

#: Chosen on the validation organs of ``scripts/train_nuclei.py``: deviations of the blobs in px of 0.5 um (radii of
#: about 2.1 to 4.2 um), the least contrast of a nucleus as a share of Otsu's threshold above the tissue, and the least
#: response of a blob as a share of the same.
SCALES, CONTRAST, BLOB = (4.0, 6.0), 0.9, 0.2
_BLUR = 1.0
_PERCENT = 50.0
#: Larger holes are no pale middle of a nucleus, in px (20 um2).
_LARGEST_HOLE = 80
#: On tissue without nuclei, Otsu's threshold parts noise.
_LEAST_STEP = 0.02


@dataclass(frozen=True)
class ClassicalFinder:
    """What haematoxylin says of tiles of one slide.

    Attributes
    ----------
    level
        Amount of haematoxylin of tissue between nuclei (decadic optical density along the stain): the median.
    step
        Otsu's threshold above that level.
    contrast, blob
        Multiples of ``step``: least amount inside of a nucleus, least response of a blob.
    scales
        Deviations of the blobs in px.
    """

    level: float
    step: float
    contrast: float = CONTRAST
    blob: float = BLOB
    scales: tuple[float, ...] = SCALES

    @classmethod
    def of(cls, tissue: npt.NDArray[np.uint8], odds: float = 1.0) -> ClassicalFinder:
        """Return the finder for a slide of which ``tissue`` ``(N, 3)`` are pixels.

        ``odds`` of a sensitivity above 1 lower what a nucleus must stand out by.
        """
        from skimage.filters import threshold_otsu

        amounts = haematoxylin(tissue)
        level = float(np.percentile(amounts, _PERCENT))
        otsu = float(threshold_otsu(amounts)) if np.ptp(amounts) > 0 else level  # type: ignore[no-untyped-call]
        step = otsu - level
        return cls(level, max(step, _LEAST_STEP), CONTRAST / odds, BLOB / odds)

    def maps(self, tile: Picture) -> Maps:
        """Return where nuclei are, and their peaks, of a tile ``(H, W, 3)`` at 0.5 um/px."""
        from scipy import ndimage

        amount = ndimage.gaussian_filter(haematoxylin(tile) - np.float32(self.level), _BLUR)
        blobs = np.max([-(s**2) * ndimage.gaussian_laplace(amount, s) for s in self.scales], axis=0)
        inside = ndimage.binary_opening(amount > self.contrast * self.step, np.ones((3, 3), bool))
        return Maps(_without_holes(inside), blobs.astype(np.float32), self.blob * self.step)


def _without_holes(inside: BoolArray) -> BoolArray:
    """Fill holes as of pale nuclei, but not lumina."""
    from scipy import ndimage

    holes, n = ndimage.label(~inside)
    small = np.bincount(holes.ravel(), minlength=n + 1) <= _LARGEST_HOLE
    small[0] = False
    filled: BoolArray = inside | small[holes]
    return filled


def haematoxylin(images: Picture) -> Float32Array:
    """Amount of haematoxylin ``(..., H, W)`` of images ``(..., H, W, 3)``, by the colours of Ruifrok & Johnston."""
    residual = np.cross(STAINS[0], STAINS[1])
    matrix = np.linalg.inv(np.vstack([STAINS, residual / np.linalg.norm(residual)]))
    return np.asarray(optical_density(images) @ matrix[:, 0].astype(np.float32), dtype=np.float32)
