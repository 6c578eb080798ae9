"""Appearance of patches: strength of both stains and sharpness, to tell why tissue is unlike that of the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.slides import STAINS, optical_density

#: Properties of a patch, in this order.
PROPERTIES = ("haematoxylin", "eosin", "sharpness")

#: Quantiles of the training patches between which a patch is ordinary.
ORDINARY = (0.01, 0.99)

#: From this share of patches on the same side of the ordinary range, a property explains why tissue is unlike.
_MOST = 0.5

_REASONS = {
    ("haematoxylin", -1): "its haematoxylin is weaker than in training",
    ("haematoxylin", 1): "its haematoxylin is stronger than in training",
    ("eosin", -1): "its eosin is weaker than in training",
    ("eosin", 1): "its eosin is stronger than in training",
    ("sharpness", -1): "it is blurred, or its pixel size is wrong",
    ("sharpness", 1): "it is sharper than in training, or its pixel size is wrong",
}


def appearance(images: npt.NDArray[np.uint8]) -> FloatArray:
    """Measure patches: mean optical density of haematoxylin and of eosin, and sharpness.

    Parameters
    ----------
    images
        ``(N, S, S, 3)`` uint8.

    Returns
    -------
    numpy.ndarray
        ``(N, 3)`` in the order of `PROPERTIES`. Sharpness is the logarithm of the ratio of the variances of the
        differences between neighbouring pixels and of the pixels themselves; it does not depend on the contrast.
    """
    if not len(images):
        return np.empty((0, len(PROPERTIES)))
    density = optical_density(images)
    strength = density.mean(axis=(1, 2)) @ np.linalg.pinv(STAINS)
    grey = density.mean(axis=3)
    steps = (np.diff(grey, axis=1) ** 2).mean(axis=(1, 2)) + (np.diff(grey, axis=2) ** 2).mean(axis=(1, 2))
    sharpness = np.log((steps + 1e-6) / (grey.var(axis=(1, 2)) + 1e-6))
    return np.concatenate([strength, sharpness[:, None]], axis=1).astype(np.float64)


def ordinary_range(images: npt.NDArray[np.uint8]) -> dict[str, list[float]]:
    """Range of each property over training patches, ``{property: [low, high]}``, for the card of a model."""
    low, high = np.quantile(appearance(images), ORDINARY, axis=0)
    return {name: [round(float(a), 4), round(float(b), 4)] for name, a, b in zip(PROPERTIES, low, high, strict=True)}


def reasons_unlike(images: npt.NDArray[np.uint8], ordinary: Mapping[str, Any]) -> list[str]:
    """Explain why patches look unlike those of the training, by the :func:`ordinary_range` of these.

    Returns
    -------
    list of str
        Clauses such as ``"its eosin is weaker than in training"``, the most frequent first; empty if stains and
        sharpness are ordinary, so that it is another tissue or another preparation.
    """
    found: list[tuple[float, str]] = []
    if not len(images):
        return []
    for name, values in zip(PROPERTIES, appearance(images).T, strict=True):
        ends: Any = ordinary.get(name)
        if _is_range(ends):
            low, high = (float(end) for end in ends)
            for side, share in ((-1, np.mean(values < low)), (1, np.mean(values > high))):
                if share >= _MOST:
                    found.append((float(share), _REASONS[name, side]))
    return [text for _, text in sorted(found, reverse=True)]


def _is_range(ends: Any) -> bool:
    """Return whether a value of a model's card is a pair of increasing numbers."""
    is_pair = isinstance(ends, (list, tuple)) and len(ends) == 2 and all(type(end) in (int, float) for end in ends)
    return bool(is_pair and ends[0] <= ends[1])
