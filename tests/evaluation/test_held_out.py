from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from napari_cpnn.evaluation import with_trust
from napari_cpnn.models import NO_SCALE, NOT_TESTED, Trust


def model_of(trust):
    patch = SimpleNamespace(size_um=100.0)
    return SimpleNamespace(genes=("A", "B", "C", "D"), cell_types=("A",), trust=trust, hierarchy={}, patch=patch)


def test_scores_beside_the_card_and_sorted_by_it():
    trust = Trust(5)
    trust.scale_um.copy_(torch.tensor([NO_SCALE, 400.0, NOT_TESTED, 400.0, 100.0]))
    trust.pcc.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.9]))
    scores = pd.DataFrame({"pcc": [1.0, 2.0, 3.0, 4.0, 5.0]}, index=["X", "A", "B", "C", "D"])
    scores.attrs["slide"] = "C4"
    table = with_trust(scores, model_of(trust))
    assert [*table.index] == [*scores.index]
    np.testing.assert_array_equal(table["trusted_um"], [np.nan, np.inf, 400.0, np.nan, 400.0])
    np.testing.assert_allclose(table["held_out_pcc"], [np.nan, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    assert table.attrs == {"slide": "C4"}
    ranked = with_trust(scores, model_of(trust), by_trust=True)
    assert [*ranked.index] == ["D", "B", "A", "C", "X"]
    assert ranked["pcc"].to_dict() == scores["pcc"].to_dict()


def test_a_model_without_a_calibration_changes_nothing():
    scores = pd.DataFrame({"pcc": [1.0]}, index=["A"])
    assert with_trust(scores, model_of(None), by_trust=True) is scores
