"""Composition of spots: right on mixtures, in agreement with published shares, and clear about bad input."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from scipy.optimize import minimize

from cases import case
from napari_cpnn.errors import CpnnWarning, GenesError, PrototypesError, SettingsError, SpotsError
from napari_cpnn.prototypes import (
    Prototypes,
    deconvolve,
    deconvolve_with_uncertainty,
    estimate_prototypes,
    read_cells,
)
from napari_cpnn.samples import her2st_section
from napari_cpnn.settings import DeconvolutionSettings, PrototypeSettings
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


METHODS = {method: DeconvolutionSettings(method) for method in ("nb", "nnls")}


@pytest.fixture(params=list(METHODS))
def settings(request) -> DeconvolutionSettings:
    return METHODS[request.param]


def test_recovers_known_shares_the_better_the_deeper(settings) -> None:
    protos = prototypes()
    errors = []
    for depth in (1e3, 1e5, 1e7):
        shares, counts = mixtures(protos, 40, depth)
        found = deconvolve(spots_of(counts), protos, settings)
        assert list(found.columns) == list(protos.cell_types)
        np.testing.assert_allclose(found.sum(axis=1), 1)
        assert (found >= 0).all(axis=None)
        errors.append(float(np.abs(found.to_numpy() - shares).mean()))
    if settings.method == "nnls":
        assert errors[0] > errors[1] > errors[2]
        assert errors[2] < 1e-3
    assert max(errors) < 0.03


def test_least_squares_minimise_what_their_docstring_says() -> None:
    protos = prototypes(3)
    _, counts = mixtures(protos, 5, 500)
    found = deconvolve(spots_of(counts), protos, METHODS["nnls"]).to_numpy()
    Y = counts / counts.sum(axis=1, keepdims=True)
    T = protos.profiles.astype(np.float64)
    level = (T.mean(axis=0) + Y.mean(axis=0)) / 2 + 1e-4
    for y, shares in zip(Y, found, strict=True):
        best = minimize(
            lambda w, y=y: (((y - w @ T) / level) ** 2).sum(), np.full(3, 1 / 3), bounds=[(0, None)] * 3, tol=1e-14
        )
        np.testing.assert_allclose(shares, best.x / best.x.sum(), atol=1e-4)


def test_order_of_genes_and_foreign_genes_do_not_matter(settings) -> None:
    protos = prototypes()
    _, counts = mixtures(protos, 6, 2000)
    expected = deconvolve(spots_of(counts), protos, settings)
    more = np.hstack([counts[:, ::-1], np.full((6, 2), 99)])
    found = deconvolve(spots_of(more, (*GENES[::-1], "X", "Y")), protos, settings)
    pd.testing.assert_frame_equal(found, expected)


def test_scale_of_a_spot_does_not_matter_to_least_squares() -> None:
    protos = prototypes()
    _, counts = mixtures(protos, 6, 2000)
    times = counts * np.array([1, 2, 3, 5, 7, 11])[:, None]
    expected = deconvolve(spots_of(counts), protos, METHODS["nnls"])
    pd.testing.assert_frame_equal(deconvolve(spots_of(times), protos, METHODS["nnls"]), expected)


def test_spots_without_counts_are_nan(settings) -> None:
    protos = prototypes()
    _, counts = mixtures(protos, 3, 2000)
    counts[1] = 0
    found = deconvolve(spots_of(counts), protos, settings)
    assert found.isna().all(axis=1).tolist() == [False, True, False]
    silent = deconvolve(spots_of(np.zeros((2, 300), dtype=int)), protos, settings)
    assert silent.isna().all(axis=None)


def test_prototypes_that_are_alike_or_more_than_genes(settings) -> None:
    """No unique solution, but one that is a composition."""
    twins = prototypes(2).profiles[[0, 0, 1]]
    protos = Prototypes(twins, ("a", "a too", "b"), GENES, np.ones(3))
    shares, counts = mixtures(prototypes(2), 5, 1e6)
    found = deconvolve(spots_of(counts), protos, settings)
    np.testing.assert_allclose(found["b"], shares[:, 1], atol=0.05)
    with pytest.warns(CpnnWarning, match="3 genes .* cannot tell 8 cell types apart"):
        few = deconvolve(spots_of(counts[:, :3], GENES[:3]), prototypes(8), settings)
    np.testing.assert_allclose(few.sum(axis=1), 1)


def test_one_spot_and_one_type(settings) -> None:
    shares, counts = mixtures(prototypes(), 1, 1e4)
    found = deconvolve(spots_of(counts), prototypes(), settings)
    np.testing.assert_allclose(found.to_numpy(), shares, atol=0.1)
    alone = deconvolve(spots_of(mixtures(prototypes(1), 4, 1e3)[1]), prototypes(1), settings)
    np.testing.assert_allclose(alone.to_numpy(), 1)


def test_parts_of_a_table_give_about_what_the_whole_gives(settings) -> None:
    protos = prototypes()
    _, counts = mixtures(protos, 80, 3000)
    whole = deconvolve(spots_of(counts), protos, settings)
    halves = [deconvolve(spots_of(counts)[part], protos, settings) for part in (slice(0, 40), slice(40, 80))]
    assert float((pd.concat(halves) - whole).abs().to_numpy().mean()) < 0.01


def test_uncertainty_comes_with_what_else_was_found() -> None:
    protos = prototypes()
    shares, counts = mixtures(protos, 30, 5000)
    counts[4] = 0
    settings = DeconvolutionSettings("nb", max_genes=200, background=0.01)
    found = deconvolve_with_uncertainty(spots_of(counts), protos, settings)
    assert found.converged
    assert found.iterations > 1
    assert list(found.share_sd.columns) == list(protos.cell_types)
    assert found.share_sd.isna().all(axis=1).to_numpy().nonzero()[0].tolist() == [4]
    seen = np.arange(30) != 4
    assert (np.abs(found.shares.to_numpy() - shares)[seen] < 4 * found.share_sd.to_numpy()[seen] + 0.005).all()
    for values in (found.gene_scale, found.background, found.dispersion):
        assert len(values) == 200
        assert set(values.index) < set(GENES)
        assert (values > 0).all()
    np.testing.assert_allclose(found.gene_scale.mean(), 1, atol=0.05)
    assert np.corrcoef(found.depth[seen], counts.sum(axis=1)[seen])[0, 1] > 0.5
    assert np.isnan(found.depth.iloc[4])
    pd.testing.assert_frame_equal(found.shares, deconvolve(spots_of(counts), protos, settings))


def test_uncertainty_of_nothing_and_of_least_squares() -> None:
    found = deconvolve_with_uncertainty(spots_of(np.zeros((2, 300), dtype=int)), prototypes())
    assert found.shares.isna().all(axis=None)
    assert found.depth.isna().all()
    with pytest.raises(SettingsError, match="'nnls' gives no uncertainty"):
        deconvolve_with_uncertainty(spots_of(np.ones((2, 300), dtype=int)), prototypes(), METHODS["nnls"])


def test_bulk_samples() -> None:
    """Deep, few, each another tissue, with genes that are detected otherwise than in single cells."""
    protos = prototypes()
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.ones(4), 8)
    scale = rng.lognormal(0, 0.3, len(GENES))
    counts = rng.poisson(shares @ (protos.profiles * scale) * 1e7)
    found = deconvolve(spots_of(counts), protos, DeconvolutionSettings.bulk())
    assert np.abs(found.to_numpy() - shares).mean() < 0.05
    assert np.corrcoef(found.to_numpy().ravel(), shares.ravel())[0, 1] > 0.95


def test_no_shared_genes(settings) -> None:
    ids = ("ENSG00000141736", "ENSG00000075624")
    with pytest.raises(GenesError, match="share no gene names: the former has symbols, the latter Ensembl ids"):
        deconvolve(spots_of(np.ones((1, 2), dtype=int), ids), prototypes(), settings)


def test_genes_are_matched_by_their_ids_where_both_tables_have_them() -> None:
    protos = prototypes()
    ids = tuple(f"ENSG{i:011d}" for i in range(len(GENES)))
    with_ids = Prototypes(protos.profiles, protos.cell_types, GENES, protos.n_cells, gene_ids=ids)
    _, counts = mixtures(protos, 5, 2000)
    expected = deconvolve(spots_of(counts), protos)
    pd.testing.assert_frame_equal(deconvolve(spots_of(counts, ids), with_ids), expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4), "log-transformed"),
        (lambda x: x + 0.5, "fractional"),
        (lambda x: x - 1, "smallest value is -1"),
        (lambda x: np.where(x == x.max(), np.nan, x), "missing or infinite"),
    ],
)
def test_what_is_no_count(change, words, settings) -> None:
    _, counts = mixtures(prototypes(), 3, 2000)
    spots = spots_of(counts)
    spots.layers["counts"] = sp.csr_matrix(change(counts.astype(float)))
    with pytest.raises(SpotsError, match=words):
        deconvolve(spots, prototypes(), settings)
    del spots.layers["counts"]
    with pytest.raises(SpotsError, match="read them with read_spots"):
        deconvolve(spots, prototypes(), settings)


def test_a_gene_that_is_named_twice(settings) -> None:
    _, counts = mixtures(prototypes(), 3, 2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # anndata's own
        twice = spots_of(counts, (*GENES[:-1], GENES[4]))
        foreign = spots_of(np.hstack([counts, counts[:, :2]]), (*GENES, "X", "X"))
    with pytest.raises(SpotsError, match="duplicate gene names, such as G4"):
        deconvolve(twice, prototypes(), settings)
    deconvolve(foreign, prototypes(), settings)


def test_a_type_without_expression_in_the_genes(settings) -> None:
    profiles = prototypes(3).profiles.copy()
    profiles[1, :299] = 0
    profiles[1, 299] = 1
    protos = Prototypes(profiles, ("a", "b", "c"), GENES, np.full(3, 50))
    _, counts = mixtures(prototypes(3), 3, 2000)
    with pytest.raises(PrototypesError, match="b has no expression in the 299 requested genes"):
        deconvolve(spots_of(counts[:, :299], GENES[:299]), protos, settings)


def test_a_type_without_expression_in_the_chosen_genes() -> None:
    profiles = np.full((3, 300), 1e-6)
    profiles[0, :10] = profiles[1, 10:20] = 1
    profiles[2, :] = [0] * 20 + [1] * 280
    profiles[2, 299] = 3
    protos = Prototypes(profiles / profiles.sum(axis=1, keepdims=True), ("a", "b", "c"), GENES, np.full(3, 50))
    _, counts = mixtures(protos, 20, 2000)
    with pytest.raises(PrototypesError, match=r"has no expression in the \d+ selected genes; raise max_genes"):
        deconvolve(spots_of(counts), protos, DeconvolutionSettings("nb", max_genes=2))


@pytest.mark.parametrize("max_genes", [1, 2])
def test_fewer_chosen_genes_than_types_are_said(max_genes: int) -> None:
    protos = prototypes(8)
    _, counts = mixtures(protos, 20, 2000.0)
    # whether so few genes settle depends on the processor; in five rounds they do on none
    given = DeconvolutionSettings("nb", max_genes=max_genes, max_iterations=5)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", CpnnWarning)
        shares = deconvolve(spots_of(counts), protos, given)
    texts = [str(one.message) for one in said if issubclass(one.category, CpnnWarning)]
    assert any("8 cell types apart, so the shares are unreliable; raise max_genes" in text for text in texts)
    assert any("not converged after 5 rounds" in text for text in texts)
    assert len(texts) == 2
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)


def test_a_fit_that_does_not_settle_warns() -> None:
    _, counts = mixtures(prototypes(), 20, 2000)
    with pytest.warns(CpnnWarning, match="not converged after 2 rounds"):
        deconvolve(spots_of(counts), prototypes(), DeconvolutionSettings("nb", max_iterations=2))


def test_want_of_memory_is_a_sentence(monkeypatch) -> None:
    def fit(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("napari_cpnn.prototypes.nb_deconvolution.fit_nb", fit)
    _, counts = mixtures(prototypes(), 3, 2000)
    with pytest.raises(SpotsError, match="not enough memory on cpu to deconvolve 3 spots"):
        deconvolve(spots_of(counts), prototypes(), DeconvolutionSettings("nb", device="cpu"))


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"method": "magic"}, {"max_genes": 0}, {"gene_scale_sd": 0}, {"background": 1}, {"tolerance": 0}):
        with pytest.raises(SettingsError):
            DeconvolutionSettings(**wrong)
    assert DeconvolutionSettings.bulk(max_genes=5).max_genes == 5


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
    settings = PrototypeSettings(method="mean", min_cells=5, min_cells_per_type=1)
    cells = read_cells(shared_data / "derived" / "wu2021_CID4465_counts.h5ad")
    protos = estimate_prototypes(cells, "celltype_minor", settings=settings)
    _, counts, positions = her2st_section(shared_data, "C4")
    spots = read_spots(counts, positions)
    with (
        zipfile.ZipFile(shared_data / "her2st/res/ST-deconv/props/major.zip") as archive,
        archive.open("major/C4-proportion.tsv") as file,
    ):
        published = pd.read_csv(file, sep="\t", index_col=0).loc[spots.obs_names].rename(columns=str.strip)
    r, error = {}, {}
    for name, method in METHODS.items():
        shares = deconvolve(spots, protos, method).T.groupby(major_of).sum().T
        r[name] = shares.corrwith(published[shares.columns])
        error[name] = float((shares.mean() - published.mean()).abs().mean())
    for name in METHODS:
        assert r[name][["Epithelial", "Myeloid", "CAFs", "Endothelial"]].min() > 0.75
    assert r["nnls"].mean() > 0.68  # 0.71 over 8 types; unweighted least squares gives 0.27
    assert r["nb"].mean() > r["nnls"].mean() + 0.02
    assert error["nb"] < 0.6 * error["nnls"]


def test_hardly_any_shared_gene(settings) -> None:
    """Prototypes of the mouse against spots of man: one gene of each is spelt alike."""
    protos = prototypes()
    counts = mixtures(protos, 20, 1e4)[1]
    spots = spots_of(counts, (GENES[0], *(gene.lower() for gene in GENES[1:])))
    with pytest.raises(GenesError, match=r"share only 1 of 300 gene names: .* 300 of 300 would be shared"):
        deconvolve(spots, protos, settings)
    found = deconvolve(spots, protos, settings.replace(ignore_gene_case=True))
    pd.testing.assert_frame_equal(found, deconvolve(spots_of(counts), protos, settings))


@pytest.mark.parametrize("bulk", [False, True])
def test_the_case_of_a_mouse_in_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bulk: bool
) -> None:
    from napari_cpnn.cli import main

    folder, protos, out = case("08-hardly-any-shared-gene"), str(tmp_path / "p.h5ad"), str(tmp_path / "s.csv")
    assert (
        main(["prototypes", str(folder / "cells.h5ad"), "--out", protos, "--min-genes", "1", "--min-cells", "1"]) == 0
    )
    command = ["deconvolve", str(folder / "spots.h5ad"), "--prototypes", protos, "--out", out]
    for method in ("nb", "nnls"):
        assert main([*command, "--method", method, *(["--bulk"] if bulk else [])]) == 2
        assert "share only 1 of 16 gene names: for instance Aars, Actb, Actg1 against AARS" in capsys.readouterr().err
    assert main([*command, "--ignore-gene-case"]) == 0
    assert len(pd.read_csv(out)) == 144
