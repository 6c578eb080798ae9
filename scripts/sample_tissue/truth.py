"""The known answer: what share of the cells in each map cell belongs to which type."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sample_tissue.artefacts import Fold, PenMark
from sample_tissue.fields import smoothstep
from sample_tissue.layout import CELL_TYPES, MID_UM, Layout
from sample_tissue.molecules import Biology

STRIDE_UM = 112.0


def write_truth(path: Path, layout: Layout, biology: Biology, pen: PenMark) -> None:
    """Write ``truth.npz``.

    ``composition`` (rows, cols, C) float32
        Share of the cells by type whose centre lies in the cell of the 112 um grid; NaN where there is none.
    ``n_cells`` (rows, cols)
        How many cells that is.
    ``tissue`` (rows, cols) float32
        Share of the cell's area inside the tissue outline (fat and lumens count as tissue).
    ``artefact`` (rows, cols) bool
        Whether fold or ink touch it, so that the picture does not show what is counted.
    ``cell_types``, ``stride_um``, ``prototypes`` (C, G), ``genes``
        Names, the side of a cell, and the true profiles behind all counts.
    """
    n = int(np.ceil(layout.extent_um / STRIDE_UM - 1e-6))
    at = (layout.cells.points // STRIDE_UM).astype(int)
    counts = np.zeros((n, n, len(CELL_TYPES)), np.int32)
    np.add.at(counts, (at[:, 0], at[:, 1], layout.cells.types), 1)
    total = counts.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        composition = (counts / total[..., None]).astype(np.float32)
    inside = smoothstep(layout.tissue, -0.002, 0.006) > 0.5
    rows = ((np.arange(len(inside)) + 0.5) * MID_UM // STRIDE_UM).astype(int)
    area = np.zeros((n, n))
    np.add.at(area, (rows[:, None], rows[None, :]), inside)
    # Nine by nine points per cell find any touch of fold or ink that matters.
    steps = (np.arange(9 * n) + 0.5) * STRIDE_UM / 9
    points = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    marked = Fold(layout.extent_um).covers(points, 4.0) | pen.covers(points, 2.0)
    artefact = marked.reshape(n, 9, n, 9).any(axis=(1, 3))
    np.savez_compressed(
        path,
        composition=composition,
        n_cells=total.astype(np.int16),
        tissue=(area * (MID_UM / STRIDE_UM) ** 2).astype(np.float32),
        artefact=artefact,
        cell_types=np.array(CELL_TYPES),
        stride_um=np.float64(STRIDE_UM),
        prototypes=biology.prototypes.astype(np.float32),
        genes=np.array(biology.genes),
    )
