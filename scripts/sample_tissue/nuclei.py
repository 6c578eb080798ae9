"""Where the nuclei of a painted slide are: the pixels that their stamps cover.

A cell's place in the layout is not that of its nucleus: nuclei of plasma cells and macrophages lie aside in their
cell, by up to 4.6 um, and one nucleus may cover another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sample_tissue.layout import MPP
from sample_tissue.render import Painter, visible, windows

#: Coverage above which a pixel is of the nucleus.
_COVERED = 0.5


@dataclass(frozen=True)
class DrawnNuclei:
    """Nuclei of a part of a slide.

    Attributes
    ----------
    labels
        ``(height, width)`` int32: number of the nucleus that is seen in each pixel, 0 for none.
    centers_um
        ``(N, 2)``: centre of what is seen of nuclei 1 to N, from the origin of the slide; NaN where nothing is.
    types
        ``(N,)``: cell types, as in the layout.
    shown
        ``(N,)``: share of the nucleus that no other one covers, within the part.
    """

    labels: np.ndarray
    centers_um: np.ndarray
    types: np.ndarray
    shown: np.ndarray


def drawn_nuclei(painter: Painter, y0: int, x0: int, height: int, width: int) -> DrawnNuclei:
    """Return the nuclei of the level-0 pixels from (y0, x0), in the order in which the painter draws them."""
    labels = np.zeros((height, width), np.int32)
    types, whole = [], []
    for kind, stamps in painter.cells.items():
        images = painter.libraries[kind].nuclei
        for which, center, _ in visible(stamps, (y0, x0), labels.shape, 45):
            covered = images[which][..., 3] > _COVERED
            to, frm = windows(center, covered.shape, labels.shape)
            if to is None or not covered[frm].any():
                continue
            types.append(kind)
            whole.append(covered.sum())
            labels[to][covered[frm]] = len(types)
    n = len(types)
    flat = np.flatnonzero(labels)
    numbers = labels.ravel()[flat]
    seen = np.bincount(numbers, minlength=n + 1)[1:]
    sums = [np.bincount(numbers, weights, n + 1)[1:] for weights in np.divmod(flat, width)]
    with np.errstate(invalid="ignore"):
        centers = (np.stack(sums, axis=1) / seen[:, None] + 0.5 + (y0, x0)) * MPP
    return DrawnNuclei(labels, centers, np.array(types, np.int8), seen / np.maximum(np.array(whole), 1))
