"""A small world of cells: the colour of a nucleus is its type, and spots are sums of the cells inside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from napari_cpnn import CellSettings, Nuclei, Prototypes, Slide

TYPES = ("tumour", "lymphocytes", "stroma")
COLORS = np.array([[150, 60, 130], [60, 40, 120], [120, 110, 190]], dtype=float)
TISSUE = (235, 190, 215)
MPP, RADIUS_UM = 0.5, 25.0


@dataclass(frozen=True)
class CellSample:
    """A slide, its spots, its nuclei and the type of each."""

    slide: Slide
    spots: AnnData
    nuclei: Nuclei
    types: np.ndarray


@dataclass(frozen=True)
class CellWorld:
    """Prototypes that all slides share, and slides drawn from them."""

    prototypes: Prototypes

    def sample(self, seed: int, name: str = "", rows: int = 8, cols: int = 9) -> CellSample:
        """Nuclei 14 um apart, in niches of one main type; touching spots of 50 um, the last of which has no nucleus."""
        rng = np.random.default_rng(seed)
        height, width = rows * 2 * RADIUS_UM, cols * 2 * RADIUS_UM
        at = [np.arange(7.0, side - 3, 14.0) for side in (height, width)]
        centers = np.stack(np.meshgrid(*at, indexing="ij"), -1).reshape(-1, 2) + rng.uniform(
            -2, 2, (len(at[0]) * len(at[1]), 2)
        )
        corner = np.array([height, width]) - RADIUS_UM
        centers = centers[np.linalg.norm(centers - corner, axis=1) > RADIUS_UM + 8]
        waves = np.stack([np.sin(centers @ rng.uniform(-0.04, 0.04, 2) + rng.uniform(0, 6)) for _ in TYPES], 1)
        chances = np.exp(3.0 * waves)
        chances /= chances.sum(axis=1, keepdims=True)
        types = (chances.cumsum(axis=1) < rng.random((len(centers), 1))).sum(axis=1)
        pixels = np.full((int(height / MPP), int(width / MPP), 3), TISSUE, dtype=float)
        y, x = (np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5) * MPP
        for (cy, cx), kind in zip(centers, types, strict=True):
            box = tuple(slice(max(0, int((c - 5) / MPP)), int((c + 5) / MPP)) for c in (cy, cx))
            inside = (y[box] - cy) ** 2 + (x[box] - cx) ** 2 < 4.0**2
            pixels[box][inside] = COLORS[kind]
        pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        lattice = (np.stack(np.mgrid[:rows, :cols], -1).reshape(-1, 2) + 0.5) * 2 * RADIUS_UM
        inside = np.linalg.norm(lattice[:, None] - centers[None], axis=2) <= RADIUS_UM
        sums = inside @ np.eye(len(TYPES))[types]
        shares = sums / np.maximum(sums.sum(axis=1, keepdims=True), 1)
        shares[sums.sum(axis=1) == 0] = 1 / len(TYPES)
        counts = sparse.csr_matrix(rng.poisson(4000 * shares @ self.prototypes.profiles).astype(np.int32))
        spots = AnnData(
            counts,
            obs=pd.DataFrame(index=[f"spot{i}" for i in range(len(lattice))]),
            var=pd.DataFrame(index=list(self.prototypes.genes)),
            layers={"counts": counts.copy()},
            obsm={"spatial": lattice[:, ::-1] / MPP, "truth": shares},
            uns={"spatial": {"one": {"images": {}, "scalefactors": {"spot_diameter_fullres": 2 * RADIUS_UM / MPP}}}},
        )
        slide = Slide.from_arrays([pixels], MPP, name=name or f"slide{seed}")
        return CellSample(slide, spots, Nuclei(centers, source="painted"), types)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Of all tests of a module; where a module imports it, for each of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_CPNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def cell_world() -> CellWorld:
    rng = np.random.default_rng(11)
    profiles = rng.dirichlet(np.full(40, 0.5), len(TYPES)).astype(np.float32)
    genes = tuple(f"GENE{i}" for i in range(40))
    theta = np.full(40, 2.0, dtype=np.float32)
    theta[:5] = 0.05  # genes that vary within types
    return CellWorld(Prototypes(profiles, TYPES, genes, np.full(3, 100), {"source": "synthetic"}, theta))


@pytest.fixture(scope="session")
def quick_cells() -> CellSettings:
    return CellSettings(encoder="colour", hidden=32, epochs=40, learning_rate=5e-3, batch_spots=36, device="cpu")
