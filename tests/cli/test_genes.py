"""Translating the genes of a file in the terminal."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest

from napari_cpnn.cli import main


@pytest.fixture
def files(tmp_path):
    genes = pd.DataFrame(index=["Erbb2", "Gm1", "Krt14"])
    cells = anndata.AnnData(np.arange(6.0).reshape(2, 3), pd.DataFrame(index=["a", "b"]), genes)
    cells.write_h5ad(tmp_path / "mouse.h5ad")
    (tmp_path / "pairs.csv").write_text("human,mouse\nERBB2,Erbb2\nKRT14,Krt14\n")
    return tmp_path


def test_a_file_is_translated(files, capsys, monkeypatch):
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(files / "cache"))
    command = ["translate-genes", str(files / "mouse.h5ad"), "--out", str(files / "human.h5ad")]
    assert main(command) == 2
    assert "comes from napari-cpnn fetch orthologues" in capsys.readouterr().err
    assert main(["fetch", "orthologues", "--from", str(files / "pairs.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_pairs"] == 2
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == 1
    found = anndata.read_h5ad(files / "human.h5ad")
    assert list(found.var_names) == ["ERBB2", "KRT14"]
    np.testing.assert_array_equal(found.X, [[0, 2], [3, 5]])
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(("out", "sentence"), [("human.csv", "must end in .h5ad"), ("mouse.h5ad", "exists already")])
def test_what_cannot_be_written(files, capsys, out, sentence):
    command = ["translate-genes", str(files / "mouse.h5ad"), "--orthologues", str(files / "pairs.csv")]
    assert main([*command, "--out", str(files / out)]) == 2
    assert sentence in capsys.readouterr().err
    assert anndata.read_h5ad(files / "mouse.h5ad").n_vars == 3
