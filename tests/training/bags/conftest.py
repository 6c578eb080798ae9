"""Bags of patches whose features are their composition, and bulk counts drawn from it."""

from __future__ import annotations

from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from napari_cpnn import Prototypes
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings import SlideLevelSettings
from napari_cpnn.training.bags import Bags

TYPES = ("tumour", "lymphocytes", "stroma")


@dataclass(frozen=True)
class BulkWorld:
    """Bags, bulk samples, prototypes and the true composition of RNA of each bag."""

    bags: Bags
    bulk: ad.AnnData
    prototypes: Prototypes
    truth: np.ndarray
    tiles: np.ndarray


@pytest.fixture(scope="session")
def bulk_world() -> BulkWorld:
    """60 bags of 20 to 60 patches of 20 patients; alpha differs by gene, as bulk does from single cells."""
    rng = np.random.default_rng(3)
    profiles = rng.dirichlet(np.full(50, 0.4), 3)
    genes = tuple(f"GENE{i}" for i in range(50))
    mix = rng.normal(size=(3, 21))
    features, tiles, counts = [], [], []
    for _ in range(60):
        mean = rng.dirichlet(np.full(3, 1.5))
        w = rng.dirichlet(6 * mean + 0.2, rng.integers(20, 60))
        features.append(w @ mix + rng.normal(0, 0.05, (len(w), 21)))
        tiles.append(w)
        counts.append(w.mean(axis=0))
    truth = np.array(counts)
    alpha = np.exp(rng.normal(0, 0.4, 50))
    p = (truth @ profiles) * alpha
    library = rng.uniform(2e5, 1e6, (60, 1))
    mu = library * p / p.sum(axis=1, keepdims=True)
    y = rng.poisson(mu * rng.gamma(20, 1 / 20, mu.shape)).astype(np.int32)
    names = [f"sample {i}" for i in range(60)]
    bulk = ad.AnnData(y, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=list(genes)), layers={"counts": y})
    protos = Prototypes(profiles.astype(np.float32), TYPES, genes, np.full(3, 100), {"source": "synthetic"})
    patients = [f"patient {i // 3}" for i in range(60)]
    return BulkWorld(Bags.of(features, names, patients), bulk, protos, truth, np.concatenate(tiles))


@pytest.fixture(scope="session")
def quick_bags() -> SlideLevelSettings:
    return SlideLevelSettings(
        encoder="colour", patch=PatchSpec(32, 2.0), hidden=32, epochs=40, learning_rate=3e-3, draw=30, device="cpu"
    )
