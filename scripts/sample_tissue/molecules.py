"""True prototypes, single cells and spots: counts whose every parameter is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.stats import norm

from sample_tissue.fields import at_points
from sample_tissue.layout import CELL_TYPES, MID_UM, MPP, Layout

#: Cells per type in the single-cell table, all patients together; each patient has another mixture.
_N_CELLS = (600, 350, 450, 500, 320, 250, 330, 230)
#: Messenger RNA that a dissociated cell of each type yields, relative to a T-cell.
_YIELD = np.array([1.9, 1.3, 1.3, 0.85, 0.9, 1.4, 1.5, 1.1])
_PATIENTS = ("P1", "P2", "P3")
_DEPTH = (1.0, 0.7, 1.35)
_BACKGROUND = (0.03, 0.09, 0.05)

SPOT_RADIUS_UM = 27.5
PITCH_UM = 100.0
#: Lateral diffusion of messenger RNA during permeabilisation: cells just outside a spot count in part.
DIFFUSION_UM = 15.0


@dataclass(frozen=True)
class Biology:
    """What is true: prototypes ``(C, G)`` with rows that sum to 1, for cell types and genes."""

    prototypes: np.ndarray
    genes: tuple[str, ...]
    cell_types: tuple[str, ...] = CELL_TYPES


def read_genes() -> tuple[tuple[str, ...], np.ndarray]:
    """Gene symbols, and which types each marks ``(C, G)``, from ``genes.txt`` beside this file."""
    lines = Path(__file__).with_name("genes.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    marks = np.array([[t in row[1].split(",") for row in rows] for t in CELL_TYPES])
    return tuple(row[0] for row in rows), marks


def make_biology(seed: int) -> Biology:
    """Draw the true prototypes: log-normal abundances, markers strong in their own types and faint elsewhere."""
    rng = np.random.default_rng([seed, 2])
    genes, marks = read_genes()
    base = rng.lognormal(0.0, 0.95, len(genes))
    ribosomal = np.array([g.startswith(("RPL", "RPS")) for g in genes])
    mito = np.array([g.startswith("MT-") for g in genes])
    base[ribosomal] = rng.lognormal(2.6, 0.4, ribosomal.sum())
    base[mito] = rng.lognormal(2.6, 0.5, mito.sum())
    levels = base * rng.lognormal(0.0, 0.22, (len(CELL_TYPES), len(genes)))
    marker = marks.any(axis=0)
    height = rng.lognormal(2.0, 0.7, len(genes))
    leak = np.minimum(rng.lognormal(-3.2, 0.8, levels.shape), 0.4)
    levels = np.where(marker, height * np.where(marks, rng.lognormal(0, 0.25, levels.shape), leak), levels)
    for gene, factor in {
        "IGKC": 12,
        "IGHG1": 10,
        "COL1A1": 6,
        "COL1A2": 4,
        "COL3A1": 4,
        "KRT19": 3,
        "ERBB2": 3,
    }.items():
        levels[:, genes.index(gene)] *= factor
    return Biology(levels / levels.sum(axis=1, keepdims=True), genes)


def _negative_binomial(rng: np.random.Generator, mean: np.ndarray, size: float) -> sparse.csr_matrix:
    """Counts with the given mean and variance ``mean + mean**2 / size``."""
    return sparse.csr_matrix(rng.poisson(rng.gamma(size, mean / size)).astype(np.int32))


def make_cells(biology: Biology, seed: int) -> AnnData:
    """About 3,000 cells of three patients; depth, background and gene efficiency differ between them."""
    rng = np.random.default_rng([seed, 3])
    counts, obs = [], []
    weights = rng.dirichlet((6.0,) * len(_PATIENTS), len(CELL_TYPES))
    for p, patient in enumerate(_PATIENTS):
        numbers = np.rint(weights[:, p] * _N_CELLS).astype(int)
        types = np.repeat(np.arange(len(CELL_TYPES)), numbers)
        efficiency = rng.lognormal(0, 0.15, len(biology.genes))
        ambient = (numbers / numbers.sum()) @ biology.prototypes
        profile = (1 - _BACKGROUND[p]) * biology.prototypes[types] + _BACKGROUND[p] * ambient
        depth = 520 * _DEPTH[p] * _YIELD[types] * rng.lognormal(0, 0.3, len(types))
        counts.append(_negative_binomial(rng, depth[:, None] * profile * efficiency, 4.0))
        names = [f"{patient}_{i:04d}" for i in range(len(types))]
        obs.append(pd.DataFrame({"celltype": np.array(CELL_TYPES)[types], "patient": patient}, index=names))
    table = pd.concat(obs)
    order = rng.permutation(len(table))
    matrix = sparse.vstack(counts, format="csr")[order]
    table = table.iloc[order].astype("category")
    return AnnData(obs=table, var=pd.DataFrame(index=list(biology.genes)), layers={"counts": matrix})


def composition_near(layout: Layout, centers_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of cells by type seen by a spot at each centre, and how many cells it sees.

    A cell counts by the probability that its messenger RNA reaches the 55 um disc under a lateral diffusion of
    ``DIFFUSION_UM``: 1 well inside, one half on the rim, about 0 from 60 um on.
    """
    near = cKDTree(layout.cells.points).query_ball_point(centers_um, SPOT_RADIUS_UM + 3 * DIFFUSION_UM)
    sums = np.zeros((len(centers_um), len(CELL_TYPES)))
    for i, cells in enumerate(near):
        gap = np.linalg.norm(layout.cells.points[cells] - centers_um[i], axis=1)
        weight = norm.cdf((SPOT_RADIUS_UM - gap) / DIFFUSION_UM)
        sums[i] = np.bincount(layout.cells.types[cells], weights=weight, minlength=len(CELL_TYPES))
    total = sums.sum(axis=1)
    return sums / np.maximum(total, 1e-9)[:, None], total


def _lattice(extent_um: float) -> tuple[np.ndarray, np.ndarray]:
    """A Visium lattice over the slide: (row, column) of the array, and centres in um."""
    height = PITCH_UM * np.sqrt(3) / 2
    rows, cols = np.meshgrid(
        np.arange(int((extent_um - PITCH_UM) / height)), np.arange(int(extent_um / PITCH_UM) - 1), indexing="ij"
    )
    index = np.stack([rows.ravel(), 2 * cols.ravel() + rows.ravel() % 2], axis=1)
    return index, PITCH_UM / 2 + index * (height, PITCH_UM / 2) + 0.25 * PITCH_UM


def _choose(index: np.ndarray, centers: np.ndarray, shares: np.ndarray, extent_um: float) -> np.ndarray:
    """Four windows of 7 x 7 spots per half of the slide that together hold every cell type about alike."""
    chosen = []
    middle = extent_um / 2
    for right in (False, True):
        side = centers[:, 1] > middle + 60 if right else centers[:, 1] < middle - 60
        gathered, taken = np.zeros(shares.shape[1]), np.zeros(len(index), bool)
        for _ in range(4):
            best, best_score = None, 0.0
            for row in range(index[:, 0].max() - 5):
                rows = side & (index[:, 0] >= row) & (index[:, 0] < row + 7)
                for col in range(0, index[:, 1].max() - 12, 2):
                    window = rows & (index[:, 1] >= col) & (index[:, 1] < col + 14)
                    if window.sum() < 46 or (window & taken).any():
                        continue
                    # The square root favours what is still rare among the spots chosen so far.
                    score = np.sqrt(gathered + shares[window].sum(axis=0)).sum()
                    if score > best_score:
                        best, best_score = window, score
            if best is None:
                break
            taken |= best
            gathered += shares[best].sum(axis=0)
        chosen.append(taken)
    return chosen[0] | chosen[1]


def make_spots(layout: Layout, biology: Biology, image: np.ndarray, seed: int) -> AnnData:
    """About 400 Visium-like spots (100 um pitch, 55 um wide) in windows over both halves of the slide.

    ``counts_ng ~ NB(depth_n * alpha_g * ((1 - a) * composition_n @ T + a * ambient)_g)``, with a gene's platform
    effect ``alpha_g`` (log-normal, 0.3) and an ambient share ``a`` of 4 %. Every cell is taken to hold the same
    amount of messenger RNA, so that the composition by cells is what the counts show.
    """
    rng = np.random.default_rng([seed, 4])
    index, centers = _lattice(layout.extent_um)
    shares, n_cells = composition_near(layout, centers)
    keep = (at_points(layout.tissue, centers, MID_UM) > 0.0) & (n_cells >= 2.5)
    index, centers, shares, n_cells = index[keep], centers[keep], shares[keep], n_cells[keep]
    if len(index) > 450:
        keep = _choose(index, centers, shares, layout.extent_um)
        index, centers, shares, n_cells = index[keep], centers[keep], shares[keep], n_cells[keep]
    alpha = rng.lognormal(0, 0.3, len(biology.genes))
    profile = 0.96 * shares @ biology.prototypes + 0.04 * shares.mean(axis=0) @ biology.prototypes
    depth = 3200 * np.sqrt(n_cells / 8) * rng.lognormal(0, 0.3, len(n_cells))
    counts = _negative_binomial(rng, depth[:, None] * profile * alpha, 10.0)
    obs = pd.DataFrame(
        {
            "in_tissue": 1,
            "array_row": index[:, 0],
            "array_col": index[:, 1],
            "n_cells": n_cells.astype(np.float32),
            "split": pd.Categorical(np.where(centers[:, 1] < layout.extent_um / 2, "train", "test")),
        },
        index=[f"{r}x{c}" for r, c in index],
    )
    spots = AnnData(obs=obs, var=pd.DataFrame(index=list(biology.genes)), layers={"counts": counts})
    spots.obsm["spatial"] = centers[:, ::-1] / MPP
    spots.obsm["true_composition"] = pd.DataFrame(shares.astype(np.float32), index=obs.index, columns=CELL_TYPES)
    factor = max(1, layout.size_px // 480)
    size = layout.size_px // factor
    hires = image[: size * factor, : size * factor].reshape(size, factor, size, factor, 3).mean(axis=(1, 3))
    spots.uns["spatial"] = {
        "sample": {
            "images": {"hires": np.rint(hires).astype(np.uint8)},
            "scalefactors": {
                "tissue_hires_scalef": 1 / factor,
                "spot_diameter_fullres": 2 * SPOT_RADIUS_UM / MPP,
            },
        }
    }
    return spots
