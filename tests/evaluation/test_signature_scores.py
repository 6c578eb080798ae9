"""Sets of genes at spots, measured and predicted, computed again by hand."""

from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse, stats

from napari_cpnn.counts import GeneSet
from napari_cpnn.errors import GenesError, MappingError
from napari_cpnn.evaluation import mean_z_scores, score_signatures, signature_pair
from napari_cpnn.models import Decoder, Trust

GENES = ("ERBB2", "GRB7", "MKI67", "CD3D", "FLAT", "GONE")


def table(n: int = 30, seed: int = 0) -> ad.AnnData:
    """Spots of a model with six genes, of which GONE was not measured and FLAT is predicted alike everywhere."""
    rng = np.random.default_rng(seed)
    there = list(GENES[:-1])
    base = rng.normal(size=(n, 1))
    predicted = (base + rng.normal(size=(n, len(there)))).astype(np.float32)
    predicted[:, there.index("FLAT")] = 0.5
    measured = (base + 2 * rng.normal(size=(n, len(there)))).astype(np.float32)
    obs = pd.DataFrame({"total_counts": rng.integers(500, 5000, n).astype(float), "row": np.arange(n)})
    obs.index = obs.index.astype(str)
    return ad.AnnData(
        predicted, obs=obs, var=pd.DataFrame(index=there),
        layers={"measured": measured, "counts": sparse.csr_matrix((n, len(there)))},
    )  # fmt: skip


def model(trust: Trust | None = None) -> SimpleNamespace:
    decoder = Decoder(
        GENES, (), np.zeros((0, 6), np.float32), np.ones(6, np.float32), np.zeros(6, np.float32),
        np.ones((1, 6), np.float32),
    )  # fmt: skip
    return SimpleNamespace(genes=GENES, trust=trust, decoder=lambda: decoder)


def by_hand(compared: ad.AnnData, genes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    both = []
    for values in (compared.layers["measured"], compared.X):
        frame = pd.DataFrame(values, columns=compared.var_names)[genes].astype(float)
        both.append(np.asarray(stats.zscore(frame.to_numpy(), ddof=0)).mean(axis=1))
    return both[0], both[1]


def test_both_sides_are_the_mean_z_score_over_the_same_genes() -> None:
    compared = table()
    pair = signature_pair(compared, model(), GeneSet("mine", ("HER2", "Ki-67", "FLAT", "GONE", "CA9", "ERBB2")))
    assert (pair.name, pair.unit, pair.used) == ("mine", "mean z-score", ("ERBB2", "MKI67"))
    measured, predicted = by_hand(compared, ["ERBB2", "MKI67"])
    np.testing.assert_allclose(pair.measured, measured, atol=1e-5)
    np.testing.assert_allclose(pair.predicted, predicted, atol=1e-5)
    reasons = {choice.name: choice.reason for choice in pair.choices}
    assert reasons["FLAT"] == "constant at these spots"
    assert reasons["GONE"] == "not measured here"
    assert reasons["CA9"] == "The model does not have the gene CA9"
    assert reasons["ERBB2"] == "the same gene as HER2"
    assert "2 of 6 genes (ERBB2, MKI67); the model is not calibrated" in pair.note


def test_scores_are_the_correlations_of_both_sides() -> None:
    compared = table()
    sets = [GeneSet("a", ("ERBB2", "GRB7", "CD3D")), GeneSet("b", ("MKI67",)), GeneSet("c", ("GONE", "CA9"))]
    scores = score_signatures(compared, model(), sets)
    measured, predicted = by_hand(compared, ["ERBB2", "GRB7", "CD3D"])
    assert list(scores.index) == ["a", "b", "c"]
    assert scores.loc["a", "pcc"] == pytest.approx(stats.pearsonr(measured, predicted)[0], abs=1e-5)
    assert scores.loc["a", "scc"] == pytest.approx(stats.spearmanr(measured, predicted)[0], abs=1e-5)
    depth = np.log(compared.obs["total_counts"].to_numpy())
    left = [v - np.polyval(np.polyfit(depth, v, 1), depth) for v in (measured, predicted)]
    assert scores.loc["a", "pcc_given_depth"] == pytest.approx(stats.pearsonr(*left)[0], abs=1e-5)
    # the signature of one gene has the correlation of that gene
    column = list(compared.var_names).index("MKI67")
    gene = stats.pearsonr(compared.X[:, column], compared.layers["measured"][:, column])[0]
    assert scores.loc["b", "pcc"] == pytest.approx(gene, abs=1e-5)
    assert (scores.loc["a", "n_genes"], scores.loc["a", "genes"]) == (3, "ERBB2 GRB7 CD3D")
    assert np.isnan(scores.loc["c", "pcc"])
    assert scores.loc["c", "note"].startswith("No gene of c can be compared: GONE (not measured here), CA9 (")


def test_the_calibration_says_which_genes_count() -> None:
    trust = Trust(6)
    trust.pcc.copy_(torch.tensor([0.5, 0.1, 0.3, 0.0, 0.0, 0.9]))
    trust.scale_um.copy_(torch.tensor([200.0, -1.0, -1.0, -1.0, -1.0, 200.0]))
    genes = ["ERBB2", "GRB7", "MKI67", "GONE"]
    assert signature_pair(table(), model(trust), genes).used == ("ERBB2",)
    assert signature_pair(table(), model(trust), genes, least_pcc=0.2).used == ("ERBB2", "MKI67")
    assert signature_pair(table(), model(trust), genes, least_pcc=-1).used == ("ERBB2", "GRB7", "MKI67")
    with pytest.raises(MappingError, match=r"No gene of genes can be compared: GRB7 \(no trusted scale\)\."):
        signature_pair(table(), model(trust), ["GRB7"])


def test_few_spots_and_unknown_sets_are_said() -> None:
    with pytest.raises(MappingError, match="7 spots are compared; z-scores need at least 8"):
        signature_pair(table(7), model(), ["ERBB2"])
    with pytest.raises(GenesError, match="There is no gene set 'Hypoxy'"):
        signature_pair(table(), model(), "Hypoxy")
    measured, predicted, constant = mean_z_scores(table(), ["FLAT"])
    assert constant.all()
    assert np.isnan(measured).all()
    assert np.isnan(predicted).all()
