"""Measured cells beside predicted ones: who is paired with whom, and what a model of cells says at their centres."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import napari_cpnn as nc
from cell_world import cell_world, quick_cells
from napari_cpnn.cells import CellMap
from napari_cpnn.errors import SpotsError
from napari_cpnn.evaluation import compare_cells, predict_expression, score

__all__ = ["cell_world", "quick_cells"]


def measured_of(centers_um: np.ndarray, genes: list[str], mpp: float, seed: int = 0) -> AnnData:
    """Cells with few counts each, as a panel gives them."""
    counts = sp.csr_matrix(np.random.default_rng(seed).poisson(1.5, (len(centers_um), len(genes))).astype(np.int32))
    return AnnData(
        counts,
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(len(centers_um))]),
        var=pd.DataFrame(index=genes),
        layers={"counts": counts.copy()},
        obsm={"spatial": centers_um[:, ::-1] / mpp},
        uns={"napari_cpnn": {"of": "cells"}},
    )


@pytest.fixture(scope="module")
def trained(cell_world, quick_cells):
    sample = cell_world.sample(3)
    settings = replace(quick_cells, epochs=1, validation="none")
    pairs = [(sample.slide, sample.spots)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nc.errors.CpnnWarning)  # one spot has no nucleus
        return sample, nc.train_cells(pairs, cell_world.prototypes, settings, nuclei=[sample.nuclei])


def test_each_measured_cell_has_the_nearest_predicted_one_and_no_other(trained):
    sample, model = trained
    rng = np.random.default_rng(0)
    n = len(sample.nuclei)
    cells = CellMap(sample.nuclei, model.decoder(), rng.dirichlet(np.ones(3), n), np.zeros((n, model.n_programs)))
    centers = np.asarray(sample.nuclei.centers_um, float)
    # Some moved by 3 um, some too far, two beside the same cell, and none in the far corner.
    near = centers[[60, 60]] + np.array([[0.5, 0], [2.0, 0]])
    places = np.vstack([centers[:40] + 2.1, centers[40:50] + np.array([0.0, 6.5]), near])
    genes = [*list(model.genes)[5:25], "OTHER"]
    spots = measured_of(places, genes, 0.5)
    compared = compare_cells(cells, sample.slide, spots)
    away = np.linalg.norm(places[:, None] - centers[None], axis=2)
    pairs = [
        (i, int(away[i].argmin()))
        for i in range(len(places))
        if away[i].min() <= 6 and away[:, away[i].argmin()].argmin() == i
    ]
    assert list(zip(compared.obs["row"], compared.obs["cell"], strict=True)) == pairs
    assert 40 < len(pairs) < len(places)
    facts = compared.uns["comparison"]
    assert (facts["of"], facts["spots_without_patch"]) == ("cells", len(places) - len(pairs))
    assert facts["genes_not_measured"] == len(model.genes) - 20
    rows, numbers = np.array(pairs).T
    scores = score(compared, spots)
    for gene in genes[:3]:
        predicted = cells.expression(gene)[numbers].astype(float)
        counts = spots[rows, gene].layers["counts"].toarray().ravel()
        logs = np.log1p(1e4 * counts / np.asarray(spots.layers["counts"].sum(axis=1)).ravel()[rows])
        assert scores.loc[gene, "pcc"] == pytest.approx(np.corrcoef(predicted, logs)[0, 1], abs=1e-5)
        assert scores.loc[gene, "pcc_counts"] == pytest.approx(np.corrcoef(np.expm1(predicted), counts)[0, 1], abs=1e-5)


def test_cells_that_cannot_be_compared_are_refused_in_a_sentence(trained):
    sample, model = trained
    cells = CellMap(
        sample.nuclei,
        model.decoder(),
        np.full((len(sample.nuclei), 3), 1 / 3),
        np.zeros((len(sample.nuclei), model.n_programs)),
    )
    with pytest.raises(SpotsError, match="holds spots, of many cells each"):
        compare_cells(cells, sample.slide, sample.spots)
    far = measured_of(np.array([[5.0, 5.0]]) - 50, list(model.genes), 0.5)
    with pytest.raises(SpotsError, match=r"None of the 1 measured cells .* within 6 um of a predicted one"):
        compare_cells(cells, sample.slide, far)


def test_a_model_of_cells_is_asked_at_the_centres_of_measured_cells(trained):
    sample, model = trained
    centers = np.asarray(sample.nuclei.centers_um[:25], float)
    spots = measured_of(np.vstack([centers, [[-30.0, 10.0]]]), list(model.genes), 0.5)
    compared = predict_expression(model, sample.slide, spots, "cpu")
    expected = nc.predict_cells(sample.slide, model, sample.nuclei.subset(np.arange(25)), progress=False, device="cpu")
    np.testing.assert_allclose(compared[:, "GENE7"].X.ravel(), expected.expression("GENE7"), atol=2e-3)
    assert compared.uns["comparison"]["spots_without_patch"] == 1  # beside the slide
    scores = nc.evaluate(model, sample.slide, spots, "cpu")
    assert np.isfinite(scores["pcc_counts"]).all()
    with pytest.raises(SpotsError, match="predicts single cells, but the table of slide3 holds spots"):
        predict_expression(model, sample.slide, sample.spots, "cpu")
