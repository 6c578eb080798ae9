"""Sections whose expected expression is known, all with the same pattern of sequencing depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse, stats

from napari_cpnn import BenchmarkSettings, Slide
from napari_cpnn.geometry import PatchSpec

PATCH_PX = 32
QUICK = BenchmarkSettings(spatial=False, shifts=4, bootstraps=300, patch=PatchSpec(PATCH_PX, 0.5))
NUCLEUS = np.hypot(*(np.mgrid[:PATCH_PX, :PATCH_PX] - PATCH_PX / 2)) < 6
GENES = [f"GENE{i}" for i in range(50)]


@dataclass
class Known:
    """A section: slide, spots, and the fraction of each gene in the counts of a spot."""

    slide: Slide
    spots: AnnData
    fractions: np.ndarray

    @property
    def sample(self) -> tuple[Slide, AnnData]:
        return self.slide, self.spots

    def table(self, values: np.ndarray) -> AnnData:
        """Predictions of all spots, as a table."""
        return AnnData(
            np.asarray(values, dtype=np.float32), obs=self.spots.obs[[]].copy(), var=self.spots.var[[]].copy()
        )

    @property
    def truth(self) -> AnnData:
        return self.table(np.log1p(1e4 * self.fractions))

    @property
    def expected(self) -> AnnData:
        """The expectation of the measured values, given the total of the spot: depth changes it as well."""
        totals = np.rint(np.exp(self.log_totals))[:, None, None]
        k = np.arange(int(3 * (totals[:, :, 0] * self.fractions).max()) + 20.0)
        chance = stats.binom.pmf(k, totals, self.fractions[:, :, None])
        return self.table((chance * np.log1p(1e4 * k / totals)).sum(axis=2))

    @property
    def log_totals(self) -> np.ndarray:
        return np.log(np.asarray(self.spots.layers["counts"].sum(axis=1)).ravel())

    @property
    def measured(self) -> np.ndarray:
        counts = self.spots.layers["counts"].toarray()
        return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def known_section(seed: int, name: str | None = None, rows: int = 12, cols: int = 14, depth: float = 300.0) -> Known:
    """A section on a square array; colours follow the first of three patterns, and nuclei the second."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(1)
    y, x = (c.ravel() for c in np.mgrid[:rows, :cols])
    waves = [
        np.sin(rng.uniform(0.7, 1.6) * x + rng.uniform(0.7, 1.6) * y * sign + rng.uniform(0, 6)) for sign in (1, -1, 1)
    ]
    patterns = np.stack(waves, axis=1)
    fractions = np.exp(shared.normal(0, 1, len(GENES)) + patterns @ shared.normal(0, 0.6, (3, len(GENES))))
    fractions /= fractions.sum(axis=1, keepdims=True)
    # Deep in the middle and shallow at the edges, on every section.
    away = np.hypot((y - (rows - 1) / 2) / rows, (x - (cols - 1) / 2) / cols)
    totals = depth * np.exp(1.2 - 4.5 * away + rng.normal(0, 0.1, len(y)))
    counts = sparse.csr_matrix(rng.poisson(totals[:, None] * fractions).astype(np.int32))
    colors = 150 + np.outer(patterns[:, 0], [60, 20, -40])
    pixels = np.repeat(np.repeat(colors.reshape(rows, cols, 3), PATCH_PX, axis=0), PATCH_PX, axis=1)
    for r, c in zip(y[patterns[:, 1] > 0], x[patterns[:, 1] > 0], strict=True):
        pixels[r * PATCH_PX : (r + 1) * PATCH_PX, c * PATCH_PX : (c + 1) * PATCH_PX][NUCLEUS] = (70, 40, 130)
    pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    spots = AnnData(
        counts,
        obs=pd.DataFrame(index=[f"{r}x{c}" for r, c in zip(y, x, strict=True)]),
        var=pd.DataFrame(index=GENES),
        layers={"counts": counts.copy()},
        obsm={"spatial": np.c_[x, y] * PATCH_PX + PATCH_PX / 2},
    )
    return Known(Slide.from_arrays([pixels], 0.5, name=name or f"section{seed}"), spots, fractions)
