"""Maps whose names of slide, cell types and genes break charts, tables or pages that take them as they are."""

from __future__ import annotations

import csv
import dataclasses
import json
import time
import warnings
from xml.etree import ElementTree as ET

import anndata
import pytest
from PIL import Image

import napari_cpnn as nc
from map_world import GENES, TYPES, make_decoder, make_world
from napari_cpnn.errors import CpnnError
from napari_cpnn.export import to_csv, to_figure
from napari_cpnn.settings import FigureSettings

QUICK = FigureSettings(dpi=60)
CHINESE, HEBREW = "\u5b66\u7fd2 \U0001f600", "\u05d0\u05d1"
HOSTILE_TYPES = ("$x_{2$", '<img src="a"><script>b</script>', f"{CHINESE} {HEBREW}", "a\nb\x00c\x1b\u202ed")
HOSTILE_GENES = ("=1+1", r"\frac{$a$}{", "@SUM(A1)", "A/B", *GENES[4:])


@pytest.fixture
def hostile():
    world = make_world()
    genes = HOSTILE_GENES[: len(GENES)]
    world.cmap.decoder = make_decoder(HOSTILE_TYPES[: len(TYPES)], genes)
    return world


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_figures_of_hostile_names(hostile, tmp_path, ending):
    cmap = hostile.cmap
    path = to_figure(cmap, tmp_path / f"a.{ending}", ["dominant", *cmap.genes[:2], *cmap.cell_types], None, QUICK)
    if ending == "png":
        Image.open(path).load()
    if ending == "svg":
        root = ET.parse(path).getroot()
        assert not [node for node in root.iter() if node.tag.rpartition("}")[2] in ("script", "img")]
        words = " ".join("".join(node.itertext()) for node in root.iter())
        assert "$x_{2$" in words
        assert "=1+1" in words


@pytest.mark.parametrize("letter", ["x", "x ", "\u5b66", "$", "<b>"])
def test_a_figure_of_an_endless_name_is_drawn_at_once(letter, tmp_path):
    world = make_world()
    world.cmap.provenance["slide"] = letter * 20_000
    world.cmap.decoder = make_decoder((letter * 10_000, *TYPES[1:]), (letter * 9_000, *GENES[1:]))
    start = time.perf_counter()
    for ending in ("svg", "png"):
        shown = ["dominant", world.cmap.genes[0], world.cmap.cell_types[0]]
        path = to_figure(world.cmap, tmp_path / f"a.{ending}", shown, None, QUICK)
    assert time.perf_counter() - start < 60  # seconds on a busy machine; it was minutes
    title = dataclasses.replace(QUICK, title=letter * 20_000)
    to_figure(world.cmap, path, "dominant", None, title, overwrite=True)


def test_tables_hold_no_formulas(hostile, tmp_path):
    cmap = hostile.cmap
    first = hostile.weights[hostile.done][:1], hostile.programs[hostile.done][:1]
    expected = cmap.decoder.expression(*first, ["=1+1"])[0, 0]
    with to_csv(cmap, tmp_path / "a.csv", list(cmap.genes)).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert "'=1+1" in header
    assert "'@SUM(A1)" in header
    assert "=1+1" not in header
    assert {row[header.index("dominant_type")] for row in rows} <= set(cmap.cell_types)
    assert float(rows[0][header.index("'=1+1")]) == pytest.approx(expected)


HOSTILE_PROVENANCE = {
    "slide": "C4/\ud800\0x.tif",
    "trained_on": "br\udc80east\0",
    "a/b": "x\n",
    "": "no name",
    "..": 1,
    "\ud800k\0": "v",
    "n": 10**400,
    "nest": {"a\ud800": ["\0"]},
    "nan": float("nan"),
}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.h5ad", nc.to_h5ad),
        ("b.h5ad", lambda cmap, path: nc.to_anndata(cmap).write_h5ad(path)),
        ("a.zarr", nc.to_spatialdata),
        ("a.geojson", nc.to_geojson),
        ("a.csv", nc.to_csv),
        ("a.ome.zarr", nc.to_ome_zarr),
        ("a.svg", nc.to_figure),
        ("map.zarr", lambda cmap, path: cmap.save(path)),
    ],
)
def test_provenance_with_texts_that_no_format_can_hold(name, write, tmp_path):
    """A lone surrogate (a file name that is no UTF-8) or NUL in a map of somebody else."""
    world = make_world()
    world.cmap.provenance |= HOSTILE_PROVENANCE
    path = tmp_path / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(world.cmap, path)
        if name.endswith(".h5ad"):
            table = anndata.read_h5ad(path)
            facts = table.uns["napari_cpnn"]
            assert facts["slide"] == "C4/ x.tif"
            assert list(table.uns["spatial"]) == ["C4| x.tif"]
            assert (facts["trained_on"], facts["a|b"], facts["k"]) == ("br east", "x", "v")
            assert json.loads(facts["nest"]) == {"a\ud800": ["\0"]}
        if name == "map.zarr":
            again = nc.CompositionMap.load(path)
            nc.to_h5ad(again, tmp_path / "again.h5ad")


@pytest.mark.parametrize("mpp", ["x", [float("nan"), 1], {}, [1, 2, 3], -1, [0, 0], [[1]], 10**400])
def test_provenance_with_an_impossible_pixel_size_is_one_sentence(mpp, tmp_path):
    world = make_world()
    world.cmap.provenance["mpp"] = mpp
    for name, write in {"a.h5ad": nc.to_h5ad, "a.geojson": nc.to_geojson, "a.zarr": nc.to_spatialdata}.items():
        with pytest.raises(CpnnError) as caught:
            write(world.cmap, tmp_path / name)
        assert len(str(caught.value)) < 200
