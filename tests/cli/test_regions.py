"""``napari-cpnn regions``: the table of the Regions dock, against the functions it is made of."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from tests.mapping.test_signature import world

from napari_cpnn import regions
from napari_cpnn.cli import main
from napari_cpnn.mapping import DomainReport
from napari_cpnn.regions import Region, compare_regions, explain_gene, summarise_regions, write_regions


def box(name: str, y0: float, x0: float, y1: float, x1: float) -> Region:
    return Region.from_vertices(name, [(y0, x0), (y0, x1), (y1, x1), (y1, x0)])


REGIONS = [box("upper", 100, 0, 300, 500), box("lower", 300, 0, 500, 500), box("glass", 5000, 0, 5100, 100)]


@pytest.fixture
def folder(tmp_path):
    cmap = world()
    cmap.provenance["mpp"] = (0.5, 0.5)
    cmap.save(tmp_path / "map.zarr")
    write_regions(REGIONS, tmp_path / "regions.geojson", (0.5, 0.5))
    return tmp_path


def run(folder, *more: str) -> int:
    given = [str(folder / name) for name in ("map.zarr", "regions.geojson")]
    return main(["regions", *given, "--out", str(folder / "table.csv"), "--genes", "HER2", "CD3E", *more])


def test_regions_are_measured_compared_and_explained(folder, capsys):
    from napari_cpnn.mapping import CompositionMap

    differences = folder / "differences.csv"
    assert run(folder, "--compare", "upper", "lower", "--comparison", str(differences), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    cmap, (upper, lower, _) = CompositionMap.load(folder / "map.zarr"), REGIONS
    table = pd.read_csv(folder / "table.csv")
    expected = summarise_regions(cmap, [upper, lower], ["ERBB2", "CD3E"])
    measured = table[table["kind"] != "part"].reset_index(drop=True)
    assert list(measured["region"]) == list(expected["region"])
    np.testing.assert_allclose(measured["value"], expected["value"], rtol=1e-5)
    parts = table.query("kind == 'part' and region == 'lower' and name.str.startswith('CD3E')")
    assert parts["value"].sum() == pytest.approx(explain_gene(cmap, "CD3E", lower).attrs["expression"], rel=1e-5)
    compared = compare_regions(cmap, upper, lower, ["ERBB2", "CD3E"])
    np.testing.assert_allclose(pd.read_csv(differences)["difference"], compared["difference"], atol=1e-6)
    assert len(found["regions"]) == len(table)
    unlike, *rest = (row["difference"] for row in found["comparison"])
    assert unlike is None  # the model has no domain
    assert rest == pytest.approx(list(compared["difference"])[1:])
    (warning,) = found["warnings"]
    assert "'glass'" in warning
    assert warning.endswith("It is left out.")


def test_regions_of_unlike_tissue_have_a_first_column_that_says_so(folder, monkeypatch):
    monkeypatch.setattr(
        regions, "domain_report_of", lambda _cmap, table: DomainReport(10, 0.9, table["region"].iloc[0])
    )
    assert run(folder) == 0
    table = pd.read_csv(folder / "table.csv")
    assert table.columns[0] == "warning"
    for name, of_it in table.groupby("region"):
        assert of_it["warning"].str.contains(f"90 % of this tissue is unlike .*{name}").all()


def test_what_is_said_for_people(folder, capsys):
    assert run(folder) == 0
    assert capsys.readouterr().out.startswith("upper: 0.100 mm2, 0.100 mm2 of tissue mapped; T")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--compare", "upper", "lower"], "give both"),
        (
            ["--compare", "upper", "margin", "--comparison", "d.csv"],
            "has no region 'margin'; it has upper, lower, glass",
        ),
        (["--level", "major"], "has no major types"),
        (["--genes", "CD3"], "choose one of CD3D, CD3E"),
    ],
)
def test_one_sentence_for_what_cannot_be(folder, monkeypatch, capsys, more, words):
    monkeypatch.chdir(folder)
    assert run(folder, *more) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (folder / "table.csv").exists()


def test_outlines_off_the_tissue(folder, capsys):
    write_regions([REGIONS[2], box("more glass", 6000, 0, 6100, 100)], folder / "regions.geojson", (0.5, 0.5))
    assert run(folder) == 2
    assert "None of the 2 regions of" in capsys.readouterr().err
