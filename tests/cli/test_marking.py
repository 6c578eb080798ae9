"""``export --where-high --where-low``: where genes are high or low, from the terminal."""

from __future__ import annotations

import csv
from functools import cache

import numpy as np
import pytest

from napari_cpnn.cli import main
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.models import CPNN, load_model


@cache
def breast() -> CPNN:
    return load_model("breast-her2st")


@pytest.fixture
def saved(tmp_path):
    """A map of the packaged breast model on 6.4 mm of tissue, and its path."""
    grid, rng = Grid((32, 32), 200.0), np.random.default_rng(0)
    decoder = breast().decoder()
    cmap = CompositionMap(grid, decoder, provenance={"model_fingerprint": breast().fingerprint})
    weights = rng.dirichlet(np.ones(len(decoder.cell_types)), grid.n_cells)
    cmap.fill(np.arange(grid.n_cells), weights, np.full((grid.n_cells, decoder.n_programs), 0.01))
    return cmap, str(cmap.save(tmp_path / "map.zarr") or tmp_path / "map.zarr")


def run(*args: str) -> int:
    return main(list(args)) or 0


def test_columns_for_high_and_low(saved, tmp_path, capsys):
    cmap, path = saved
    options = ["--where-high", "ERBB2", "EPCAM", "--where-low", "EPCAM", "--fdr", "0.2", "--model", "breast-her2st"]
    assert run("export", path, "--out", str(tmp_path / "map.csv"), *options) == 0
    said = capsys.readouterr().out
    assert "ERBB2 high: mean over" in said
    assert "EPCAM low: mean over" in said
    with (tmp_path / "map.csv").open() as file:
        lines = list(csv.DictReader(file))
    for gene, side in (("ERBB2", "high"), ("EPCAM", "high"), ("EPCAM", "low")):
        mask = getattr(cmap, f"places_{side}")(gene, breast(), 0.2)
        assert [line[f"{gene} {side}"] for line in lines] == [str(int(m)) for m in mask.ravel()]
        assert mask.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where-high", "ERBB2"], "need the calibration of the model; give it with --model"),
        (["--where-high", "KRT19", "--model", "breast-her2st"], "Where KRT19 is high cannot be told at a false"),
        (
            ["--where-high", "ERBB2", "--fdr", "2", "--model", "breast-her2st"],
            "must be a number between 0 and 1",
        ),
    ],
)
def test_one_sentence_and_no_file(saved, tmp_path, capsys, options, words):
    assert run("export", saved[1], "--out", str(tmp_path / "map.csv"), *options) != 0
    assert words in capsys.readouterr().err
    assert not (tmp_path / "map.csv").exists()
