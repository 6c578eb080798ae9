"""The ending says the format; CSV, and the command line."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tifffile

import napari_cpnn as nc
from map_world import GENES, STRIDE, TYPES, calibrated_map
from napari_cpnn.cli import main
from napari_cpnn.errors import ExportError, GenesError
from napari_cpnn.export import FORMATS, format_of
from napari_cpnn.settings import ExportSettings


def test_csv_has_a_line_per_cell(tilted, tmp_path):
    out = nc.to_csv(tilted.cmap, tmp_path / "map.csv", ["GENE7", "GENE2"], ExportSettings(block_mb=0.0002))
    table = pd.read_csv(out)
    row, col = np.nonzero(tilted.done)
    np.testing.assert_array_equal(table[["row", "col"]], np.stack([row, col], axis=1))
    np.testing.assert_allclose(table["x_um"], 48 + (col + 0.5) * STRIDE)
    np.testing.assert_allclose(table["y_um"], 32 + (row + 0.5) * STRIDE)
    assert list(table["dominant_type"]) == [TYPES[int(kind)] for kind in tilted.drawing[tilted.done]]
    shares = table[[f"share: {name}" for name in TYPES]]
    np.testing.assert_allclose(shares, tilted.weights[tilted.done], rtol=1e-5)
    assert list(table.columns[-2:]) == ["GENE7", "GENE2"]
    np.testing.assert_allclose(table["GENE7"], tilted.expression("GENE7"), rtol=1e-4, atol=1e-5)
    assert table["out_of_domain"].isna().sum() == 1


def test_csv_without_and_with_all_genes(world, tmp_path):
    assert set(pd.read_csv(nc.to_csv(world.cmap, tmp_path / "a.csv")).columns).isdisjoint(GENES)
    assert set(pd.read_csv(nc.to_csv(world.cmap, tmp_path / "b.csv", None)).columns) > set(GENES)
    with pytest.raises(GenesError, match="does not have NOPE"):
        nc.to_csv(world.cmap, tmp_path / "c.csv", ["NOPE"])
    assert not (tmp_path / "c.csv").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.h5ad", "anndata"),
        ("a.b.ZARR", "spatialdata"),
        ("a.ome.zarr", "ome-zarr"),
        ("a.OME.zarr", "ome-zarr"),
        ("a.GeoJSON", "geojson"),
        ("a.csv", "csv"),
    ],
)
def test_the_ending_says_the_format(name, kind):
    assert format_of(name) == kind


@pytest.mark.parametrize("name", ["a.tif", "a", "zarr", "a.csv.gz"])
def test_another_ending_is_a_sentence(world, tmp_path, name):
    with pytest.raises(ExportError, match=r"no known file extension; use \.h5ad, \.zarr"):
        nc.export_map(world.cmap, tmp_path / name)
    with pytest.raises(ExportError, match="Unknown format 'excel'; use anndata, "):
        nc.export_map(world.cmap, tmp_path / name, file_format="excel")


def test_an_empty_map_in_every_format(empty, tmp_path):
    for kind in FORMATS:
        with pytest.raises(ExportError, match="No patch of the map has been computed yet"):
            nc.export_map(empty, tmp_path / f"out{FORMATS[kind][0]}", file_format=kind)


# -- the command line ------------------------------------------------------------------------------------------


@pytest.fixture
def map_path(world, tmp_path):
    world.cmap.save(tmp_path / "map.zarr")
    return tmp_path / "map.zarr"


def test_export_writes_every_format(map_path, tmp_path, capsys):
    for name in ("a.h5ad", "a.zarr", "a.ome.zarr", "a.geojson", "a.csv", "a.png", "a.svg", "a.pdf"):
        assert main(["export", str(map_path), "--out", str(tmp_path / name), "--genes", "GENE1", "GENE3"]) == 0
        assert f"-> {tmp_path / name}" in capsys.readouterr().out
        assert (tmp_path / name).exists()
    assert list(ad.read_h5ad(tmp_path / "a.h5ad").var_names) == ["GENE1", "GENE3"]
    assert main(["export", str(map_path), "--out", str(tmp_path / "table"), "--format", "csv"]) == 0
    assert pd.read_csv(tmp_path / "table").shape[1] == 6 + len(TYPES)


def test_export_takes_the_slide_and_settings(world, map_path, tmp_path):
    slide = tmp_path / "section 1.tif"
    tifffile.imwrite(slide, world.slide.read_region(0, 0, *world.slide.shape[:2]), tile=(64, 64), photometric="rgb")
    args = ["export", str(map_path), "--out", str(tmp_path / "a.h5ad"), "--slide", str(slide), "--image-px", "64"]
    assert main(args) == 0
    entry = ad.read_h5ad(tmp_path / "a.h5ad").uns["spatial"]["section 1"]
    assert max(entry["images"]["hires"].shape) == 64


def test_genes_from_a_file_and_all(map_path, tmp_path):
    (tmp_path / "genes.txt").write_text("GENE8\n\nGENE0\n")
    args = ["export", str(map_path), "--out", str(tmp_path / "a.csv"), "--overwrite", "--genes"]
    assert main([*args, str(tmp_path / "genes.txt")]) == 0
    assert list(pd.read_csv(tmp_path / "a.csv").columns[-2:]) == ["GENE8", "GENE0"]
    assert main([*args, "all"]) == 0
    assert list(pd.read_csv(tmp_path / "a.csv").columns[-9:]) == list(GENES)


def test_own_colours_are_in_every_file(map_path, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_cpnn.palette.colors._chosen", {})
    for name, written in (("a.geojson", "[1, 2, 3]"), ("a.svg", "#010203")):
        args = [str(map_path), "--out", str(tmp_path / name), "--colors", "CAFs = #010203", "--opacity", "1"]
        assert main(["export", *args]) == 0
        assert written in (tmp_path / name).read_text()


def test_mistakes_are_one_line(map_path, tmp_path, capsys):
    (tmp_path / "there.csv").write_text("")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    out = str(tmp_path / "a.csv")
    for args, sentence in (
        ([str(tmp_path / "no.zarr"), "--out", out], "There is no map at"),
        ([str(tmp_path / "broken.zarr"), "--out", out], "is it a JSON file?"),
        ([str(map_path), "--out", str(tmp_path / "a.docx")], "no known file extension"),
        ([str(map_path), "--out", str(tmp_path / "there.csv")], "there.csv exists already"),
        ([str(map_path), "--out", str(map_path), "--overwrite"], "is read by the same task"),
        ([str(map_path), "--out", out, "--genes", "NO-SUCH"], "The model of this map does not have NO-SUCH"),
        ([str(map_path), "--out", out, "--genes", "NOPE"], "NOPE is IGDCC4, which the model of this map does not have"),
        (
            [str(map_path), "--out", out, "--genes", str(tmp_path / "binary.txt")],
            "(its text is not UTF-8",
        ),
        ([str(map_path), "--out", out, "--slide", str(tmp_path / "no.svs")], "no.svs"),
        ([str(map_path), "--out", out, "--block-mb", "0"], "must be positive"),
        ([str(map_path), "--out", str(tmp_path / "no" / "a.csv")], "does not exist; create it"),
    ):
        assert main(["export", *args]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert sentence in line
    assert not (tmp_path / "a.csv").exists()
    assert nc.CompositionMap.load(map_path).genes == GENES


def test_the_formats_of_the_command_are_those_of_the_package():
    from napari_cpnn.cli.exporting import _FORMATS

    assert tuple(FORMATS) == _FORMATS


def test_settings_that_make_no_sense():
    from napari_cpnn.errors import SettingsError

    wrong = ({"memory_mb": 0}, {"compression": "zip"}, {"image_px": 3}, {"units": "spots"}, {"min_region_patches": 0})
    for values in (*wrong, {"ome_zarr_version": "0.3"}):
        with pytest.raises(SettingsError):
            ExportSettings(**values)
    assert ExportSettings.from_dict(ExportSettings().to_dict()) == ExportSettings()


def test_figures_with_intervals_and_scores_from_the_terminal(world, tmp_path, capsys):
    map_path = tmp_path / "calibrated.zarr"
    calibrated_map(world, [400.0]).save(map_path)
    out = tmp_path / "a.svg"
    args = ["export", str(map_path), "--out", str(out), "--genes", GENES[0], "--dpi", "40"]
    assert main([*args, "--intervals", "--out-of-domain", "--scale-um", "64"]) == 0
    text = out.read_text()
    for title in (f"{GENES[0]}, averaged over 64 µm", f"{GENES[0]}, interval width", "Out-of-domain score"):
        assert title in text
    table = [*args[:3], str(tmp_path / "a.csv"), *args[4:]]
    assert main([*table, "--intervals"]) == 2
    assert "are for figures" in capsys.readouterr().err
    assert main(["export", str(map_path), "--out", str(tmp_path / "b.svg"), "--intervals"]) == 2
    assert "give --genes or --cell-types" in capsys.readouterr().err
