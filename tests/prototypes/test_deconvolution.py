"""Composition of spots: exact on mixtures, and in agreement with published shares on real spots."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from scipy.optimize import minimize

from napari_cpnn.errors import GenesError
from napari_cpnn.prototypes import Prototypes, deconvolve, estimate_prototypes, read_cells
from napari_cpnn.samples import her2st_section
from napari_cpnn.settings import PrototypeSettings
from napari_cpnn.spots import read_spots

GENES = tuple(f"G{i}" for i in range(300))


def prototypes(n_types: int = 4, seed: int = 0) -> Prototypes:
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.3, size=(n_types, len(GENES))) + 1e-4
    profiles /= profiles.sum(axis=1, keepdims=True)
    return Prototypes(profiles, tuple("abcdefgh"[:n_types]), GENES, np.full(n_types, 50))


def spots_of(counts: np.ndarray, genes: tuple[str, ...] = GENES) -> AnnData:
    return AnnData(
        X=sp.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(len(counts))]),
        var=pd.DataFrame(index=list(genes)),
        layers={"counts": sp.csr_matrix(counts)},
    )


def mixtures(protos: Prototypes, n: int, depth: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(len(protos.cell_types), 0.5), n)
    means = shares @ protos.profiles.astype(np.float64) * depth
    return shares, rng.poisson(means)


def test_recovers_known_shares_the_better_the_deeper() -> None:
    protos = prototypes()
    errors = []
    for depth in (1e3, 1e5, 1e7):
        shares, counts = mixtures(protos, 40, depth)
        found = deconvolve(spots_of(counts), protos)
        assert list(found.columns) == list(protos.cell_types)
        np.testing.assert_allclose(found.sum(axis=1), 1)
        assert (found >= 0).all(axis=None)
        errors.append(float(np.abs(found.to_numpy() - shares).max()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2e-3


def test_minimises_what_its_docstring_says() -> None:
    protos = prototypes(3)
    _, counts = mixtures(protos, 5, 500)
    found = deconvolve(spots_of(counts), protos).to_numpy()
    Y = counts / counts.sum(axis=1, keepdims=True)
    T = protos.profiles.astype(np.float64)
    level = (T.mean(axis=0) + Y.mean(axis=0)) / 2 + 1e-4
    for y, shares in zip(Y, found, strict=True):
        best = minimize(
            lambda w, y=y: (((y - w @ T) / level) ** 2).sum(), np.full(3, 1 / 3), bounds=[(0, None)] * 3, tol=1e-14
        )
        np.testing.assert_allclose(shares, best.x / best.x.sum(), atol=1e-4)


def test_scale_of_a_spot_and_foreign_genes_do_not_matter() -> None:
    protos = prototypes()
    _, counts = mixtures(protos, 6, 2000)
    expected = deconvolve(spots_of(counts), protos)
    times = counts * np.array([1, 2, 3, 5, 7, 11])[:, None]
    pd.testing.assert_frame_equal(deconvolve(spots_of(times), protos), expected)
    more = np.hstack([counts[:, ::-1], np.full((6, 2), 99)])
    pd.testing.assert_frame_equal(deconvolve(spots_of(more, (*GENES[::-1], "X", "Y")), protos), expected)


def test_spots_without_counts_are_nan() -> None:
    protos = prototypes()
    _, counts = mixtures(protos, 3, 2000)
    counts[1] = 0
    found = deconvolve(spots_of(counts), protos)
    assert found.isna().all(axis=1).tolist() == [False, True, False]
    silent = deconvolve(spots_of(np.zeros((2, 300), dtype=int)), protos)
    assert silent.isna().all(axis=None)


def test_prototypes_that_are_alike_or_more_than_genes() -> None:
    """No unique solution, but one that is a composition."""
    twins = prototypes(2).profiles[[0, 0, 1]]
    protos = Prototypes(twins, ("a", "a too", "b"), GENES, np.ones(3))
    shares, counts = mixtures(prototypes(2), 5, 1e6)
    found = deconvolve(spots_of(counts), protos)
    np.testing.assert_allclose(found["b"], shares[:, 1], atol=0.01)
    few = deconvolve(spots_of(counts[:, :3], GENES[:3]), prototypes(8))
    np.testing.assert_allclose(few.sum(axis=1), 1)


def test_no_shared_genes() -> None:
    with pytest.raises(GenesError, match="The prototypes and the table of spots share no gene names"):
        deconvolve(spots_of(np.ones((1, 2), dtype=int), ("ENSG00000141736", "ENSG00000075624")), prototypes())


MAJOR = {
    "B cells": "B-cells", "CAFs": "CAFs", "Endothelial": "Endothelial", "Cancer": "Epithelial", "Mature": "Epithelial",
    "Luminal": "Epithelial", "Macrophage": "Myeloid", "Monocyte": "Myeloid", "Cycling_Myeloid": "Myeloid",
    "DCs": "Myeloid", "PVL": "PVL", "Cycling PVL": "PVL", "Plasmablasts": "Plasma Cells", "T cells": "T-cells",
    "NK": "T-cells", "Cycling T": "T-cells",
}  # fmt: skip


def major_of(minor: str) -> str:
    return next(major for start, major in MAJOR.items() if minor.startswith(start))


def test_agrees_with_stereoscope_on_her2st(shared_data: Path) -> None:
    """Two methods on the same spots with references from different patients: types that are there must agree."""
    settings = PrototypeSettings(min_cells=5, min_cells_per_type=1)
    cells = read_cells(shared_data / "derived" / "wu2021_CID4465_counts.h5ad")
    protos = estimate_prototypes(cells, "celltype_minor", settings=settings)
    _, counts, positions = her2st_section(shared_data, "C4")
    shares = deconvolve(read_spots(counts, positions), protos).T.groupby(major_of).sum().T
    with (
        zipfile.ZipFile(shared_data / "her2st/res/ST-deconv/props/major.zip") as archive,
        archive.open("major/C4-proportion.tsv") as file,
    ):
        published = pd.read_csv(file, sep="\t", index_col=0).loc[shares.index]
    r = shares.corrwith(published.rename(columns=str.strip)[shares.columns])
    assert r[["Epithelial", "Myeloid", "CAFs", "Endothelial", "Plasma Cells"]].min() > 0.75
    assert r.mean() > 0.68  # 0.71 over 8 types; unweighted least squares gives 0.27
