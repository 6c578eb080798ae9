"""Cells whose every value is known: outlines, classes, shares and programs, over a slide."""

from __future__ import annotations

import numpy as np

import napari_cpnn as nc
from map_world import make_decoder
from napari_cpnn.cells import CellMap
from napari_cpnn.nuclei import Outlines

MPP = (0.5, 0.4)


def nuclei_at(centers: np.ndarray, radius_um: float = 3.0, seed: int = 0) -> nc.Nuclei:
    """Nuclei of 12 vertices around some centres, two classes, some without."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    polygons = [center + radius_um * rng.uniform(0.7, 1.3) * ring for center in centers]
    codes = rng.integers(-1, 2, len(centers))
    return nc.Nuclei(centers, Outlines.of(polygons), codes, ("tumour", "immune/T"), "made")


def make_cells(n: int = 300, extent_um: float = 200.0, seed: int = 0, unknown: int = 3, **decoding) -> CellMap:
    """Cells at random places; the last ``unknown`` of them could not be predicted."""
    rng = np.random.default_rng(seed)
    nuclei = nuclei_at(rng.uniform(5, extent_um, (n, 2)), seed=seed)
    decoder = make_decoder(**decoding)
    weights = rng.dirichlet(np.full(len(decoder.cell_types), 0.5), n)
    programs = rng.normal(size=(n, decoder.n_programs))
    weights[n - unknown :], programs[n - unknown :] = np.nan, np.nan
    facts = {"slide": "section 1", "slide_identity": "abc", "mpp": MPP, "model": "made", "model_fingerprint": "f"}
    return CellMap(nuclei, decoder, weights, programs, facts, rng.uniform(0, 0.9, n))
