"""``napari-cpnn nuclei``: what it writes, and one sentence for what cannot be."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import napari_cpnn as nc
from napari_cpnn.cli import main

SLIDE = str(nc.sample_folder() / "slide.tiff")
REGION = ["--region", "1500", "1500", "1580", "1580"]


def test_nuclei_are_found_and_written_and_converted(tmp_path, capsys):
    out = tmp_path / "n.zarr"
    assert main(["nuclei", SLIDE, "--out", str(out), *REGION, "--json"]) == 0
    nuclei = nc.Nuclei.load(out)
    assert len(nuclei) > 10
    said = capsys.readouterr()
    found, steps = json.loads(said.out), [json.loads(line) for line in said.err.splitlines()]
    assert (found["n_nuclei"], found["with_outlines"], found["written"]) == (len(nuclei), True, [str(out)])
    assert found["per_mm2_of_tissue"] is None  # of a region
    assert (steps[0]["progress"], steps[0]["done"], steps[-1]["done"]) == ("finding nuclei", 0.0, 1.0)
    assert main(["nuclei", SLIDE, "--read", str(out), "--out", str(tmp_path / "n.geojson")]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{len(nuclei)} nuclei, with outlines, napari-cpnn ")
    assert said.endswith(f" -> {tmp_path / 'n.geojson'}\n")
    assert "<" not in said
    assert len(json.loads((tmp_path / "n.geojson").read_text())["features"]) == len(nuclei)
    assert main(["nuclei", SLIDE, "--read", str(tmp_path / "n.geojson"), "--out", str(tmp_path / "n.csv")]) == 0
    table = pd.read_csv(tmp_path / "n.csv")
    assert table[["y_um", "x_um"]].to_numpy() == pytest.approx(nuclei.centers_um, abs=0.3)  # of the outline, simplified
    assert table["area_um2"].to_numpy() == pytest.approx(nuclei.areas_um2(), abs=0.5)


@pytest.mark.parametrize("ending", ["csv", "zarr", "geojson"])
def test_a_region_without_tissue_is_said_and_its_file_is_read(tmp_path, capsys, ending):
    out = tmp_path / f"n.{ending}"
    assert main(["nuclei", SLIDE, "--out", str(out), "--region", "0", "0", "80", "80", "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.err == f"napari-cpnn: warning: There is no tissue in the region; {out} is written without any nuclei.\n"
    assert said.out.startswith("0 nuclei")
    if ending == "csv":
        assert pd.read_csv(out).columns.tolist() == ["nucleus", "x_um", "y_um", "area_um2"]
    elif ending == "zarr":
        assert len(nc.Nuclei.load(out)) == 0
    else:
        assert json.loads(out.read_text())["features"] == []


def test_nothing_to_convert_in_a_region_is_said(tmp_path, capsys):
    given = tmp_path / "given.csv"
    given.write_text("x_um,y_um\n1500,1500\n")
    options = ["--read", str(given), "--out", str(tmp_path / "n.csv"), "--region", "0", "0", "80", "80"]
    assert main(["nuclei", SLIDE, *options]) == 0
    assert "given.csv has no nuclei there" in capsys.readouterr().err


def test_the_classical_one_and_centres_only_without_a_bar(tmp_path, capsys):
    out = tmp_path / "n.zarr"
    options = ["--method", "classical", "--no-outlines", "--quiet"]
    assert main(["nuclei", SLIDE, "--out", str(out), *REGION, *options]) == 0
    assert not capsys.readouterr().err
    nuclei = nc.Nuclei.load(out)
    assert nuclei.outlines is None
    assert "classical" in nuclei.source


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--mpp", "2"], "nuclei can be seen up to about 1 um"),
        (["--region", "5", "5", "5", "5"], "is empty"),
        (["--sensitivity", "1"], "between 0 and 1"),
        (["--out", "n.txt"], "written to .zarr"),
        (["--read", "missing.geojson"], "no file missing.geojson"),
    ],
)
def test_one_sentence_for_what_cannot_be(tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    assert main(["nuclei", SLIDE, "--out", "n.csv", *more]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("n.*"))


def test_nothing_is_replaced_unasked(tmp_path, capsys):
    (tmp_path / "n.csv").write_text("mine")
    assert main(["nuclei", SLIDE, "--out", str(tmp_path / "n.csv"), *REGION]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "n.csv").read_text() == "mine"
