"""A cohort of small slides with bulk samples: composition, expression of each type and outcome are known.

Every slide is drawn by the sample's tissue generator. What differs between patients:

* the mixture of compartments, hence of cell types;
* a *state* of three cell types, which changes both their picture and a program of their genes: chromatin of cancer
  cells (dark nuclei), collagen of CAFs (dense fibres), and the nuclei of T-cells;
* nuisance: the strength of both stains, the depth of the bulk sample, and the detection of each gene.

An interferon program rises in *all* types with the share of T-cells: it is predictable, but not specific of a type. The
outcome (``response``) depends on the state of the CAFs alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sample_tissue.layout import CAF, CANCER, CELL_TYPES, MPP, SHARES, B, T, make_layout
from sample_tissue.molecules import make_biology
from sample_tissue.render import Painter, Sprites, paint

SIZE_PX = 1120
TILE_PX = 224
N_SLIDES = 2
#: Types with a state, and how strongly it shows in the picture (log of the density of nuclei, or of fibres).
STATES = {CANCER: 0.22, CAF: 0.35, T: 0.22}
N_PLANTED = 30
#: Log fold change of a planted gene per standard deviation of the state.
EFFECT = 0.45
N_INTERFERON = 40
#: Log odds of a response per standard deviation of the state of the CAFs.
LOG_ODDS = 1.8
#: Spread of log expression within a type between samples that nothing in the picture shows.
UNSEEN_SD = 0.12
DETECTION_SD = 0.1
DEPTH = 1.5e6


@dataclass(frozen=True)
class Truth:
    """What is known of a cohort of S slides, C types and G genes.

    Attributes
    ----------
    slides
        DataFrame with ``slide``, ``sample``, ``patient``, ``response`` (0, 1), its ``probability``, ``age``
        (unrelated), and the states ``state <type>``.
    shares
        ``(S, C)``, shares of cells, which hold the same amount of RNA.
    expression
        ``(S, C, G)``, rows sum to 1: the expression of each type in each sample.
    planted
        ``(C, G)``, genes whose expression in a type follows the type's state.
    counts
        ``(S, G)``, bulk counts.
    """

    slides: pd.DataFrame
    shares: np.ndarray
    expression: np.ndarray
    planted: np.ndarray
    interferon: np.ndarray
    counts: np.ndarray
    prototypes: np.ndarray
    genes: tuple[str, ...]


def draw_patients(n_patients: int, seed: int) -> pd.DataFrame:
    """One row per patient: states, stains, outcome, and in ``mixture`` the shares of the compartments."""
    rng = np.random.default_rng([seed, 11])
    table = pd.DataFrame({"patient": [f"P{i + 1:03d}" for i in range(n_patients)]})
    for kind in STATES:
        table[f"state {CELL_TYPES[kind]}"] = rng.standard_normal(n_patients)
    table["haematoxylin"], table["eosin"] = rng.lognormal(0, 0.06, (2, n_patients))
    table["probability"] = 1 / (1 + np.exp(-LOG_ODDS * table[f"state {CELL_TYPES[CAF]}"]))
    table["response"] = (rng.uniform(size=n_patients) < table["probability"]).astype(int)
    table["age"] = rng.integers(35, 80, n_patients)
    table["mixture"] = list(rng.dirichlet(9 * SHARES, n_patients) * 0.85 + 0.15 * SHARES)
    return table


def draw_slide(
    patient: pd.Series, seed: int, sprites: Sprites, size_px: int = SIZE_PX
) -> tuple[np.ndarray, np.ndarray]:
    """Picture ``(size, size, 3)`` uint8, and cells of each type ``(C,)``, of a slide of a patient."""
    layout = make_layout(size_px, seed, patient["mixture"])
    painter = Painter(layout, seed, sprites)
    painter.fold = painter.pen = None
    painter.stain = painter.stain * np.array([patient["haematoxylin"], patient["eosin"]])
    for kind, strength in STATES.items():
        stamps = painter.strands if kind == CAF else painter.cells[kind]
        stamps.gain = stamps.gain * np.float32(np.exp(strength * patient[f"state {CELL_TYPES[kind]}"]))
    return paint(painter), np.bincount(layout.cells.types, minlength=len(CELL_TYPES))


def tiles_of(image: np.ndarray, least_tissue: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Tiles ``(N, 224, 224, 3)`` that hold tissue, and their centres in um ``(N, 2)``; at least one."""
    n = len(image) // TILE_PX
    tiles = (
        image[: n * TILE_PX, : n * TILE_PX]
        .reshape(n, TILE_PX, n, TILE_PX, 3)
        .swapaxes(1, 2)
        .reshape(-1, TILE_PX, TILE_PX, 3)
    )
    share = (tiles.min(axis=-1) < 225).mean(axis=(1, 2))
    keep = np.flatnonzero(share >= min(least_tissue, share.max()))
    centers = (np.stack([keep // n, keep % n], axis=1) + 0.5) * TILE_PX * MPP
    return tiles[keep], centers


def draw_bulk(patients: pd.DataFrame, cells: np.ndarray, seed: int, n_slides: int = N_SLIDES) -> Truth:
    """Bulk samples of slides whose cells ``(S, C)`` are known; slides of a patient follow each other."""
    rng = np.random.default_rng([seed, 12])
    biology = make_biology(seed)
    n_types, n_genes = biology.prototypes.shape
    slides = patients.loc[np.repeat(patients.index, n_slides)].reset_index(drop=True)
    slides["slide"] = [f"{p}-{i % n_slides + 1}" for i, p in enumerate(slides["patient"])]
    slides["sample"] = slides["slide"]
    shares = cells / cells.sum(axis=1, keepdims=True)
    # Planted genes are expressed by all types about alike, so that a marker's share of the bulk gives nothing away.
    level = biology.prototypes.min(axis=0) / biology.prototypes.max(axis=0)
    usable = np.flatnonzero((level > 0.3) & (biology.prototypes.mean(axis=0) > 1e-4))
    chosen = rng.permutation(usable)[: N_PLANTED * len(STATES) + N_INTERFERON]
    planted = np.zeros((n_types, n_genes), bool)
    log = rng.normal(0, UNSEEN_SD, (len(slides), n_types, n_genes))
    for i, kind in enumerate(STATES):
        genes = chosen[i * N_PLANTED : (i + 1) * N_PLANTED]
        planted[kind, genes] = True
        sign = rng.choice([-1, 1], N_PLANTED)
        log[:, kind, genes] += EFFECT * sign * slides[f"state {CELL_TYPES[kind]}"].to_numpy()[:, None]
    interferon = np.isin(np.arange(n_genes), chosen[N_PLANTED * len(STATES) :])
    lymphoid = np.log(shares[:, [T, B]].sum(axis=1) + 0.02)
    log[:, :, interferon] += 0.5 * ((lymphoid - lymphoid.mean()) / lymphoid.std())[:, None, None]
    expression = biology.prototypes * np.exp(log)
    expression /= expression.sum(axis=2, keepdims=True)
    detection = rng.lognormal(0, 0.3, n_genes) * rng.lognormal(0, DETECTION_SD, (len(slides), n_genes))
    depth = DEPTH * rng.lognormal(0, 0.4, len(slides))
    mean = np.einsum("sc,scg->sg", shares, expression) * detection
    counts = rng.poisson(depth[:, None] * mean / mean.sum(axis=1, keepdims=True))
    slides = slides.drop(columns="mixture")
    return Truth(slides, shares, expression, planted, interferon, counts, biology.prototypes, biology.genes)
