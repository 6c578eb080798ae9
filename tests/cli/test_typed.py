"""``deconvolve --typed`` and ``outcome``: what they write, and one sentence for what cannot be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from napari_cpnn.cli import main
from napari_cpnn.prototypes import Prototypes, TypedExpression
from slide_files import write_tiff

TYPES = ("cancer", "stroma")
N, G = 60, 80


@pytest.fixture
def folder(tmp_path):
    """Bulk of 60 patients, prototypes, and a manifest whose response follows a program of the stroma."""
    rng = np.random.default_rng(0)
    profiles = rng.lognormal(0, 1, (2, G))
    profiles /= profiles.sum(axis=1, keepdims=True)
    state, shares = rng.standard_normal(N), rng.dirichlet([3, 3], N)
    log = np.zeros((N, 2, G))
    log[:, 1, :20] = 0.8 * state[:, None]
    counts = sp.csr_matrix(rng.poisson(1e6 * np.einsum("nc,ncg->ng", shares, profiles * np.exp(log))))
    names = [f"s{i}" for i in range(N)]
    genes = pd.DataFrame(index=[f"G{i}" for i in range(G)])
    AnnData(counts, obs=pd.DataFrame(index=names), var=genes, layers={"counts": counts}).write_h5ad(
        tmp_path / "bulk.h5ad"
    )
    Prototypes(profiles, TYPES, tuple(genes.index), np.full(2, 50)).save(tmp_path / "protos.h5ad")
    for name in names:
        (tmp_path / f"{name}.tif").write_bytes(b"II*\0")
    response = (rng.uniform(size=N) < 1 / (1 + np.exp(-3 * state))).astype(int)
    table = pd.DataFrame({"slide": [f"{n}.tif" for n in names], "patient": [f"p{i}" for i in range(N)]})
    table["pCR"], table["age"] = response, rng.integers(30, 80, N)
    table.to_csv(tmp_path / "cohort.csv", index=False)
    return tmp_path


def run(folder, *more: str) -> int:
    return main(["outcome", str(folder / "cohort.csv"), "--typed", str(folder / "typed.h5ad"), "--repeats", "1", *more])


def test_bulk_to_typed_expression_to_outcome(folder, capsys) -> None:
    bulk, protos, typed = (str(folder / name) for name in ("bulk.h5ad", "protos.h5ad", "typed.h5ad"))
    options = ["deconvolve", bulk, "--prototypes", protos, "--out", str(folder / "shares.csv"), "--typed", typed]
    assert main([*options, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["of"], said["typed"]["n_samples"], said["typed"]["n_genes"]) == ("samples", 60, 80)
    assert said["typed"]["n_genes_confident"]["stroma"] > 5
    found = TypedExpression.load(typed)
    assert found.confidence.loc["G3", "stroma"] > 0.5
    assert main(options) == 2
    assert "exists already" in capsys.readouterr().err

    assert run(folder, "--column", "pCR", "--clinical", "age", "--out", str(folder / "auc.csv"), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    table = pd.read_csv(folder / "auc.csv", index_col=0)
    assert {row["input"]: row["auc"] for row in said["auc"]} == pytest.approx(table["auc"].to_dict(), abs=1e-4)
    assert table.loc["typed: stroma", "low"] > 0.6
    assert table.loc["clinical", "low"] < 0.6

    assert run(folder, "--column", "absent") == 2
    assert "no column absent" in capsys.readouterr().err
    assert run(folder, "--column", "age") == 2
    assert "needs two values" in capsys.readouterr().err
    (folder / "typed.h5ad").unlink()
    replace(found, trained_on=("p7", "p9", "other")).save(typed)
    assert run(folder, "--column", "pCR") == 2
    assert "trained on p7 and 1 other patients of this cohort" in capsys.readouterr().err


def test_slides_and_bulk_to_a_model_and_its_predictions(tmp_path, capsys) -> None:
    """On pieces of the packaged slide: trained, cross-validated, predicted, and refused where it was trained."""
    from napari_cpnn.samples import sample_folder
    from napari_cpnn.slides import open_slide

    folder, rng = sample_folder(), np.random.default_rng(1)
    protos = Prototypes.load(folder / "prototypes.h5ad").select(["ERBB2", "KRT19", "COL1A1", "CD3E", "PTPRC", "VIM"])
    protos.save(tmp_path / "protos.h5ad")
    names = [f"s{i}" for i in range(12)]
    with open_slide(folder / "slide.tiff") as slide:
        for i, name in enumerate(names):
            write_tiff(
                tmp_path / f"{name}.tiff", slide.read_region(3600 + 500 * (i // 4), 2600 + 500 * (i % 4), 700, 700)
            )
    shares = rng.dirichlet(np.ones(len(protos.cell_types)), 12)
    counts = sp.csr_matrix(rng.poisson(1e5 * shares @ protos.profiles))
    var = pd.DataFrame(index=list(protos.genes))
    table = AnnData(counts, obs=pd.DataFrame(index=names), var=var, layers={"counts": counts})
    table.write_h5ad(tmp_path / "bulk.h5ad")
    rows = pd.DataFrame(
        {"slide": [f"{n}.tiff" for n in names], "patient": [f"p{i // 2}" for i in range(12)], "mpp": 0.5}
    )
    rows.assign(pCR=np.arange(12) // 2 % 2).to_csv(tmp_path / "cohort.csv", index=False)
    cohort, model, out = (str(tmp_path / name) for name in ("cohort.csv", "model.safetensors", "predicted.h5ad"))
    train = [
        "train-typed",
        cohort,
        "--bulk",
        str(tmp_path / "bulk.h5ad"),
        "--prototypes",
        str(tmp_path / "protos.h5ad"),
    ]
    more = [
        "--out",
        model,
        "--head",
        "bag-linear",
        "--n-inner",
        "2",
        "--patch",
        "112",
        "1",
        "--scores",
        str(tmp_path / "scores.csv"),
    ]
    assert main([*train, *more, "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert (trained["n_samples"], trained["n_patients"]) == (12, 6)
    assert [row["cell_type"] for row in trained["scores"]] == list(protos.cell_types)
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 6 * len(protos.cell_types)
    assert main(["predict-typed", cohort, "--model", model, "--out", out, "--json"]) == 0
    predicted = json.loads(capsys.readouterr().out)
    assert (predicted["n_samples"], predicted["cell_types"]) == (12, list(protos.cell_types))
    assert TypedExpression.load(out).samples == tuple(names)
    assert main(["outcome", cohort, "--typed", out, "--column", "pCR"]) == 2
    assert "trained on p0 and 5 other patients" in capsys.readouterr().err
