"""Small models and tables that the tests of this floor share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import CPNN, build_model
from napari_cpnn.settings import TrainingSettings

N_GENES = 40
CELL_TYPES = ("Epithelial", "CAFs", "T-cells")
GENES = tuple(f"GENE{i}" for i in range(N_GENES))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def profiles() -> np.ndarray:
    """T0 with zeros, rows sum to 1."""
    table = np.random.default_rng(1).gamma(0.3, size=(len(CELL_TYPES), N_GENES))
    table[0, :3] = 0
    return table / table.sum(axis=1, keepdims=True)


@pytest.fixture
def mean_expression() -> np.ndarray:
    return np.random.default_rng(2).uniform(0.0, 3.0, N_GENES)


@pytest.fixture
def settings() -> TrainingSettings:
    """The light backbone, small patches, random weights."""
    return TrainingSettings(
        backbone="squeezenet", weights="none", n_programs=4, hidden=16, patch=PatchSpec(size_px=64, mpp=1.0),
        free_mixture=0.0, program_gain=1.0,
    )  # fmt: skip


@pytest.fixture
def model(settings: TrainingSettings, profiles: np.ndarray, mean_expression: np.ndarray) -> CPNN:
    return build_model(settings, GENES, CELL_TYPES, profiles, mean_expression).eval()


@pytest.fixture
def linear_model(settings: TrainingSettings, mean_expression: np.ndarray) -> CPNN:
    plain = TrainingSettings.plain(backbone="squeezenet", weights="none", patch=settings.patch)
    built = build_model(plain, GENES, CELL_TYPES, None, mean_expression).eval()
    torch.nn.init.normal_(built.head.program_genes, std=0.1)
    return built


@pytest.fixture
def patches(rng: np.random.Generator) -> np.ndarray:
    """(N, S, S, 3) uint8."""
    return rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
