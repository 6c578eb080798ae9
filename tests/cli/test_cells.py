"""``napari-cpnn train --cells`` and ``cells``: what they write, and one sentence for what cannot be."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO

import anndata as ad
import pandas as pd
import pytest

import napari_cpnn as nc
from napari_cpnn.cli import main
from napari_cpnn.counts import other_names

FOLDER = nc.sample_folder()
SLIDE, SPOTS, PROTOTYPES = (str(FOLDER / name) for name in ("slide.tiff", "spots.h5ad", "prototypes.h5ad"))
REGION = (4970.0, 4385.0, 5290.0, 4705.0)
QUICK = ["--encoder", "colour", "--epochs", "3", "--genes", "variable", "--n-genes", "60", "--quiet", "--device", "cpu",
         "--validation", "none"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nuclei of a part of the sample, and a model of its cells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_CPNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        out = tmp_path_factory.mktemp("cells")
        with nc.open_slide(SLIDE) as slide:
            nc.detect_nuclei(slide, REGION, progress=False).save(out / "nuclei.zarr")
        given = ["--slide", SLIDE, "--spots", SPOTS, "--prototypes", PROTOTYPES, "--nuclei", str(out / "nuclei.zarr")]
        # the option is one of `train`, which sends it to `train-cells`
        said = StringIO()
        with redirect_stdout(said):
            assert main(["train", "--cells", *given, "--out", str(out / "model.safetensors"), *QUICK]) == 0
        (out / "said.txt").write_text(said.getvalue())
        yield out


def test_a_model_is_trained_and_says_what_it_left_out(folder):
    model = nc.load_model(folder / "model.safetensors")
    about = model.provenance["cells"]
    assert model.input_kind == "nucleus"
    assert len(model.genes) == 60
    assert about["n_spots"] > 5
    assert about["n_spots"] + sum(about["n_spots_left_out"].values()) == 387
    assert about["n_spots_left_out"]["no nucleus inside"] == about["n_spots_without_nuclei"]
    n = sum(about["n_spots_left_out"].values())
    assert f"left out: {n} of 387 spots (" in (folder / "said.txt").read_text()
    assert "path" not in str(about)
    assert str(folder) not in str(model.provenance)


@pytest.mark.parametrize("ending", ["zarr", "h5ad", "csv", "geojson"])
def test_cells_are_written(folder, ending, tmp_path, capsys):
    out = tmp_path / f"cells.{ending}"
    region = ["--region", "5000", "4400", "5100", "4500"]
    options = ["--model", str(folder / "model.safetensors"), "--nuclei", str(folder / "nuclei.zarr"), "--out", str(out)]
    in_json = ["--json"] if ending == "csv" else []
    assert main(["cells", SLIDE, *options, *region, "--quiet", "--device", "cpu", *in_json]) == 0
    said = capsys.readouterr().out
    if in_json:
        n = json.loads(said)["n_cells"]
        assert sum(json.loads(said)["types"].values()) == n
    else:
        n = int(said.split(" cells ->")[0])
        assert "cells that look like these" in said
    assert n > 10
    if ending == "zarr":
        cells = nc.CellMap.load(out)
        assert len(cells) == n
        assert cells.provenance["slide"] == "slide"
    elif ending == "h5ad":
        assert ad.read_h5ad(out).shape == (n, 60)
    elif ending == "csv":
        assert len(pd.read_csv(out)) == n
    else:
        assert out.read_text().count('"Polygon"') == n
    assert main(["cells", SLIDE, *options, *region, "--quiet"]) == 2
    assert "exist" in capsys.readouterr().err


def test_genes_are_found_by_the_names_of_the_pathology_lab(folder, tmp_path):
    name, gene = next(iter(other_names(nc.load_model(folder / "model.safetensors").genes).items()))
    options = ["--model", str(folder / "model.safetensors"), "--nuclei", str(folder / "nuclei.zarr"), "--quiet"]
    region = ["--region", "5000", "4400", "5040", "4440"]
    assert main(["cells", SLIDE, *options, *region, "--out", str(tmp_path / "c.csv"), "--genes", name]) == 0
    assert pd.read_csv(tmp_path / "c.csv").columns[-1] == gene


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--out": "cells.txt"}, "written to .h5ad, .zarr, .geojson, .csv, not to cells.txt"),
        ({"--model": str(FOLDER / "model.safetensors")}, "was trained on patches of 112 um, not on nuclei"),
        ({"--model": str(FOLDER / "model.safetensors")}, "by the command 'napari-cpnn train --cells'"),
        ({"--nuclei": "missing.zarr"}, "missing.zarr"),
        ({"--region": "0 0 10 10"}, "no nucleus in the region"),
        ({"--mpp": "2"}, "up to about 1 um"),
        # before any work: the nuclei are not even there
        ({"--genes": "nonsense", "--nuclei": "missing.zarr"}, "The model does not have nonsense"),
    ],
)
def test_one_sentence_for_what_cannot_be(folder, tmp_path, monkeypatch, capsys, change, words):
    monkeypatch.chdir(tmp_path)
    options = {
        "--model": folder / "model.safetensors",
        "--nuclei": folder / "nuclei.zarr",
        "--out": "cells.csv",
        **change,
    }
    given = [part for name, value in options.items() for part in (name, *str(value).split())]
    assert main(["cells", SLIDE, *given, "--quiet"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--out", "model.zarr"], "written to a .safetensors file"),
        (["--out", "m.safetensors", "--nuclei", "a", "--nuclei", "b"], "Give --nuclei once per --slide"),
        (["--out", "m.safetensors", "--radius-um", "0"], "must be a positive number"),
    ],
)
def test_one_sentence_for_what_cannot_be_trained(tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    given = ["--slide", SLIDE, "--spots", SPOTS, "--prototypes", PROTOTYPES]
    assert main(["train-cells", *given, *more, "--quiet"]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
