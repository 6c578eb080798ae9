"""A small world in which the colour of the tissue is its composition, and the composition makes the counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from margins import SEED
from napari_cpnn import Prototypes, Slide
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings import TrainingSettings

PATCH = PatchSpec(32, 0.5)
COLORS = np.array([[230, 120, 170], [120, 60, 160], [245, 225, 235]], dtype=float)
TYPES = ("tumour", "lymphocytes", "fat")


@dataclass
class World:
    """Prototypes that all slides share, and slides with spots drawn from them."""

    prototypes: Prototypes

    def sample(self, seed: int, rows: int = 9, cols: int = 10, name: str | None = None) -> tuple[Slide, AnnData]:
        """One slide of touching patches, a spot in the middle of each; ``obsm["truth"]`` is the composition."""
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:rows, :cols]
        waves = [np.sin(rng.uniform(0.3, 0.9) * x + rng.uniform(0.3, 0.9) * y + rng.uniform(0, 6)) for _ in TYPES]
        truth = np.exp(2.0 * np.stack([w.ravel() for w in waves], axis=1))
        truth /= truth.sum(axis=1, keepdims=True)
        pixels = np.repeat(np.repeat((truth @ COLORS).reshape(rows, cols, 3), 32, axis=0), 32, axis=1)
        pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        slide = Slide.from_arrays([pixels], 0.5, name=name or f"slide{seed}")
        counts = sparse.csr_matrix(rng.poisson(3000 * truth @ self.prototypes.profiles).astype(np.int32))
        spots = AnnData(
            counts,
            obs=pd.DataFrame(index=[f"{r}x{c}" for r, c in zip(y.ravel(), x.ravel(), strict=True)]),
            var=pd.DataFrame(index=list(self.prototypes.genes)),
            layers={"counts": counts.copy()},
            obsm={"spatial": np.c_[x.ravel() * 32 + 16.0, y.ravel() * 32 + 16.0], "truth": truth},
        )
        return slide, spots


@pytest.fixture(scope="session")
def world() -> World:
    rng = np.random.default_rng(7)
    profiles = rng.dirichlet(np.full(40, 0.5), len(TYPES)).astype(np.float32)
    genes = tuple(f"GENE{i}" for i in range(40))
    return World(Prototypes(profiles, TYPES, genes, np.full(len(TYPES), 100), {"source": "synthetic"}))


@pytest.fixture(scope="session")
def quick() -> TrainingSettings:
    """Settings under which the small world is learned in seconds, alike on every processor but for rounding."""
    return TrainingSettings(
        backbone="squeezenet", weights="none", patch=PATCH, hidden=32, n_programs=2, max_epochs=16, batch_size=36,
        learning_rate=1e-2, backbone_learning_rate=1e-3, composition_weight=1.0, patience=20, device="cpu",
        precision="float32", seed=SEED,
    )  # fmt: skip


@pytest.fixture
def real_curves() -> None:
    """Ask for the pictures of runs and of cross-validations as they are drawn."""


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Leave the pictures of runs and of cross-validations empty; they take longer than a run in the small world."""
    patch.setattr("napari_cpnn.training.fit.run_folder.draw_curves", lambda _rows, path, _title: path.touch())
    patch.setattr("napari_cpnn.studies.report.draw_cross_validation", lambda _scores, _slide, path: path.touch())


@pytest.fixture(autouse=True)
def no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tests that look at a picture have it drawn."""
    if "real_curves" not in request.fixturenames:
        draw_nothing(monkeypatch)
