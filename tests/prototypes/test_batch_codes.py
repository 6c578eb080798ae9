"""Names of donors stay out of files that are passed on."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from napari_cpnn import Prototypes
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.prototypes import batch_codes, estimate_prototypes
from napari_cpnn.prototypes.batch_codes import coded_provenance
from napari_cpnn.settings import PrototypeSettings

DONORS = ("Smith, Anna", "Müller-10", "O'Neill; Pat", "P2")


def cells(islands: bool = False) -> ad.AnnData:
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(3.0, (80, 12)).astype(np.float32))
    donor = np.repeat(DONORS, 20)
    kind = np.array([f"type {d}" for d in np.repeat(range(4), 20)]) if islands else np.tile(["a", "b"], 40)
    obs = pd.DataFrame({"type": kind, "donor": donor}, index=[f"c{i}" for i in range(80)])
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(12)]))


def test_examples():
    assert doctest.testmod(batch_codes).failed == 0


@pytest.mark.parametrize("islands", [False, True])
def test_no_donor_is_named_in_a_file(tmp_path: Path, islands: bool) -> None:
    settings = PrototypeSettings(method="nb", min_genes=1, min_cells=1, min_cells_per_type=1, max_iterations=3)
    with pytest.warns(CpnnWarning):  # few steps, and islands
        found = estimate_prototypes(cells(islands), "type", batch="donor", settings=settings)
    assert found.provenance["batches"] == {f"batch {i}": 20 for i in range(1, 5)}
    assert set(found.provenance["fit"]["batch_scales"]) == {f"batch {i}" for i in range(1, 5)}
    path = tmp_path / "p.h5ad"
    found.save(path)
    assert Prototypes.load(path).provenance == found.provenance
    said = json.dumps(found.provenance, ensure_ascii=False)
    whole = path.read_bytes()
    for donor in DONORS[:3]:
        assert donor not in said
        assert donor.encode() not in whole
    assert any("batch 4" in note for note in found.provenance["notes"]) == islands


def test_files_of_earlier_versions_are_read_without_the_names():
    old = {
        "batches": {"Smith": 10, "Jones": 20, "P2": 5},
        "fit": {"batch_scales": {"Smith": 1.0, "Jones": 2.0, "P2": 1}, "background_shares": {"Smith": 0.1}, "phi": 2},
        "notes": [
            "The batches fall into sets without a common cell type (Smith, Jones and more; P2), so what sets them",
            "Other (Smith)",
        ],
    }
    new = coded_provenance(old)
    assert new["batches"] == {"batch 3": 10, "batch 1": 20, "batch 2": 5}
    assert new["fit"] == {
        "batch_scales": {"batch 3": 1.0, "batch 1": 2.0, "batch 2": 1},
        "background_shares": {"batch 3": 0.1},
        "phi": 2,
    }
    assert new["notes"][0].endswith("(batch 3, batch 1 and more; batch 2), so what sets them")
    assert coded_provenance(new) is new
    assert old["batches"] == {"Smith": 10, "Jones": 20, "P2": 5}


@pytest.mark.parametrize("odd", [{}, {"batches": 3, "fit": []}, {"batches": {}, "fit": {"batch_scales": None}}])
def test_provenance_of_any_shape(odd):
    assert coded_provenance(odd) == odd


def test_one_batch_without_a_name_stays_as_it_is():
    provenance = {"batches": {}, "fit": {"batch_scales": {"all": 1.0}, "background_shares": {"all": 0.0}}}
    assert coded_provenance(provenance) is provenance
