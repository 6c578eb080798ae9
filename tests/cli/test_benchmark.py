"""The command ``benchmark`` as a user types it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from benchmark_world import PATCH_PX, known_section
from napari_cpnn.cli import main


@pytest.fixture
def files(tmp_path):
    """Two sections: slides, spots and predictions in a folder."""
    (tmp_path / "predicted").mkdir()
    options = []
    for seed, name in enumerate("AB"):
        one = known_section(seed, name=name, rows=6, cols=7)
        image = one.slide.read_region(0, 0, *one.slide.shape[:2])
        tifffile.imwrite(tmp_path / f"{name}.tif", image, tile=(128, 128), compression="zlib", photometric="rgb")
        one.spots.write_h5ad(tmp_path / f"{name}.h5ad")
        one.truth.write_h5ad(tmp_path / "predicted" / f"{name}.h5ad")
        options += ["--slide", str(tmp_path / f"{name}.tif"), "--spots", str(tmp_path / f"{name}.h5ad")]
    return [*options, "--mpp", "0.5", "--patch", str(PATCH_PX), "0.5", "--no-spatial", "--quiet", "--bootstraps", "50"]


@pytest.mark.filterwarnings("ignore::napari_cpnn.errors.CpnnWarning")
def test_benchmark_writes_its_page_and_says_the_scores(files, tmp_path, capsys):
    out = tmp_path / "out"
    more = [
        "--predictions",
        f"truth={tmp_path / 'predicted'}",
        "--groups",
        "P1",
        "P2",
        "--section",
        "A",
        "--section",
        "B",
    ]
    assert main(["benchmark", *files, *more, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "truth: PCC 0." in said
    assert "depth oracle: PCC " in said
    assert "train mean: RMSE " in said
    assert "bootstrap intervals over 2 patients" in said
    assert f"wrote {out / 'benchmark.html'}" in said
    summary = pd.read_csv(out / "summary.csv")
    assert np.isfinite(summary.query("name == 'truth' and metric == 'pcc' and kind == 'model'")["mean"]).all()

    assert main(["benchmark", *files, *more, "--out", str(out), "--overwrite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in found["summary"]} >= {"truth", "depth oracle", "train mean"}
    assert str(out / "benchmark.html") in found["written"]
    assert main(["benchmark", *files, *more, "--out", str(out)]) == 2
    assert "out exists already; choose another name" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::napari_cpnn.errors.CpnnWarning")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--predictions", "m=nowhere"], "m has one table for 2 sections"),
        (["--predictions", "=x.h5ad"], "--predictions takes NAME=PATH"),
        (["--predictions", "m=a.h5ad", "--predictions", "m=b.h5ad"], "Two predictions have the same name"),
        (["--predictions", "m=PREDICTED", "--section", "A"], "2 sections; give each a name of its own"),
        (["--predictions", "m=PREDICTED", "--groups", "a", "b", "c"], "There are 3 groups for 2 samples"),
        (["--predictions", "m=PREDICTED", "--shifts", "-1"], "cannot be negative"),
        (["--predictions", "m=OUT"], "is read by the same task"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(files, tmp_path, capsys, options, message):
    names = {"PREDICTED": str(tmp_path / "predicted"), "OUT": str(tmp_path / "out")}
    options = [f"m={names[o[2:]]}" if o[2:] in names else o for o in options]
    assert main(["benchmark", *files, *options, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in said
    assert not (tmp_path / "out").exists()
