"""Nuclei of other programs, in files as they write them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

import napari_cpnn as nc
from napari_cpnn.errors import CpnnError, CpnnWarning, NucleiError
from napari_cpnn.nuclei import write_geojson
from napari_cpnn.slides import Slide

SQUARE = [[100, 200], [110, 200], [110, 220], [100, 220], [100, 200]]  # x, y in px; centre (105, 210), 200 px2
INNER = [[102, 204], [108, 204], [108, 216], [102, 216], [102, 204]]
MPP = (0.5, 0.25)  # y, x


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def feature(geometry: object, **more: object) -> dict[str, object]:
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "detection"}, **more}


def polygon(ring: object = SQUARE) -> dict[str, object]:
    return {"type": "Polygon", "coordinates": [ring]}


def is_the_square(nuclei: nc.Nuclei, label: str = "") -> bool:
    assert nuclei.centers_um == pytest.approx(np.array([[105.0, 26.25]]))
    assert nuclei.areas_um2() == pytest.approx([200 * 0.125])
    return nuclei.class_of(0) == label


@pytest.mark.parametrize("collection", [True, False])
@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ({"name": "Tumor"}, "Tumor"),
        ({"names": ["Tumor", "Positive"]}, "Tumor: Positive"),
        ("Immune", "Immune"),
        (None, ""),
    ],
)
def test_detections_of_qupath(tmp_path, kind, label, collection):
    one = feature(polygon(), properties={"objectType": "detection", "classification": kind})
    path = write(tmp_path / "d.geojson", {"type": "FeatureCollection", "features": [one]} if collection else [one])
    assert is_the_square(nc.read_nuclei(path, MPP), label)


def test_of_a_cell_of_qupath_the_nucleus_is_read(tmp_path):
    path = write(tmp_path / "cells.geojson", [feature(polygon(), nucleusGeometry=polygon(INNER))])
    assert nc.read_nuclei(path, MPP).areas_um2() == pytest.approx([72 * 0.125])


def test_points_are_centres_and_a_layer_of_many_is_many(tmp_path):
    point = {"type": "Point", "coordinates": [40, 60]}
    many = {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}
    nuclei = nc.read_nuclei(write(tmp_path / "p.geojson", [feature(point), feature(many), feature(polygon())]), 1.0)
    assert nuclei.outlines is None
    np.testing.assert_allclose(nuclei.centers_um, [[60, 40], [2, 1], [4, 3], [210, 105]])
    layer = {"type": "MultiPolygon", "coordinates": [[[[x + 20 * i, y] for x, y in SQUARE]] for i in range(30)]}
    assert len(nc.read_nuclei(write(tmp_path / "layer.geojson", [feature(layer)]), 1.0)) == 30
    pieces = {"type": "MultiPolygon", "coordinates": [[INNER], [SQUARE]]}
    assert nc.read_nuclei(write(tmp_path / "pieces.geojson", [feature(pieces)]), 1.0).areas_um2() == [200]


def test_cellvit(tmp_path):
    cell = {
        "bbox": [[200, 100], [220, 110]],
        "centroid": [105, 210],
        "contour": SQUARE[:-1],
        "type": 2,
        "type_prob": 0.9,
    }
    assert is_the_square(nc.read_nuclei(write(tmp_path / "a.json", {"cells": [cell]}), MPP), "Inflammatory")
    for names in ({"2": "Immune"}, {"Immune": 2}, {"2": ["Immune", [0, 0, 0]]}, {"2": {"name": "Immune"}}):
        path = write(tmp_path / "b.json", {"type_map": names, "cells": [cell]})
        assert is_the_square(nc.read_nuclei(path, MPP), "Immune")
    unnamed = write(tmp_path / "c.json", {"type_map": {"1": "Tumour"}, "cells": [cell]})
    assert is_the_square(nc.read_nuclei(unnamed, MPP), "type 2")


def test_hover_net_zipped(tmp_path):
    nucleus = {"bbox": [], "centroid": [105, 210], "contour": SQUARE[:-1], "type": None, "type_prob": None}
    path = tmp_path / "h.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"mag": 40, "nuc": {"1": nucleus}}).encode()))
    assert is_the_square(nc.read_nuclei(path, MPP))


@pytest.mark.parametrize("ending", ["parquet", "csv.gz"])
def test_boundaries_of_xenium_are_in_micrometres(tmp_path, ending):
    ring = np.array(SQUARE, float) * [0.25, 0.5]
    table = pd.DataFrame(
        {"cell_id": ["b"] * 5 + ["a"] * 5, "vertex_x": [*ring[:, 0]] * 2, "vertex_y": [*ring[:, 1]] * 2}
    )
    table.loc[5:, "vertex_x"] += 50
    table = table.iloc[[0, 5, 1, 6, 2, 7, 3, 8, 4, 9]]  # vertices of the two cells in turn
    path = tmp_path / f"nucleus_boundaries.{ending}"
    table.to_parquet(path) if ending == "parquet" else table.to_csv(path, index=False)
    nuclei = nc.read_nuclei(path)
    assert nuclei.centers_um == pytest.approx(np.array([[105.0, 26.25], [105.0, 76.25]]))
    assert nuclei.areas_um2() == pytest.approx([25, 25])


def test_cells_of_xenium(tmp_path):
    path = tmp_path / "cells.parquet"
    pd.DataFrame({"cell_id": ["a"], "x_centroid": [3.0], "y_centroid": [4.0], "transcript_counts": [9]}).to_parquet(
        path
    )
    assert nc.read_nuclei(path).centers_um.tolist() == [[4.0, 3.0]]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("x,y", [20.0, 2.5]), ("x_um,y_um", [40.0, 10.0]), ("Centroid X µm,Centroid Y µm", [40.0, 10.0]),
        ("X_px;Y_px", [20.0, 2.5]),
    ],
)  # fmt: skip
def test_centres_in_a_table(tmp_path, header, expected):
    mark = ";" if ";" in header else ","
    path = tmp_path / "c.csv"
    path.write_text(f"Image{mark}{header}{mark}Class\nimage{mark}10{mark}40{mark}Tumor\n", encoding="utf-8")
    nuclei = nc.read_nuclei(path, MPP)
    assert nuclei.centers_um.tolist() == [expected]
    assert nuclei.class_of(0) == "Tumor"


def test_shapes_in_parquet(tmp_path):
    shapes = [shapely.Polygon(SQUARE), shapely.MultiPolygon([shapely.Polygon(INNER), shapely.Polygon(SQUARE)])]
    table = pd.DataFrame({"geometry": shapely.to_wkb(np.array(shapes)), "class": ["Dead", None]})
    table.to_parquet(tmp_path / "cellvit_seg.parquet")
    nuclei = nc.read_nuclei(tmp_path / "cellvit_seg.parquet", MPP)
    assert nuclei.areas_um2() == pytest.approx([25, 25])
    assert [nuclei.class_of(i) for i in (0, 1)] == ["Dead", ""]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of spatialdata as it writes
def test_spatialdata(tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame({"geometry": [shapely.Polygon(SQUARE)]})
    half = spatialdata.transformations.Scale([0.5, 0.5], axes=("x", "y"))
    parse = spatialdata.models.ShapesModel.parse
    shapes = {"nuclei": parse(frame.copy(), transformations={"global": half}), "spots": parse(frame.copy())}
    spatialdata.SpatialData(shapes=shapes).write(tmp_path / "s.zarr")
    nuclei = nc.read_nuclei(tmp_path / "s.zarr", 1.0)
    assert nuclei.centers_um == pytest.approx(np.array([[105.0, 52.5]]))
    assert nc.read_nuclei(tmp_path / "s.zarr", 1.0, element="spots").areas_um2() == pytest.approx([200])
    with pytest.raises(NucleiError, match="no shapes 'bins'"):
        nc.read_nuclei(tmp_path / "s.zarr", 1.0, element="bins")


def test_a_folder_that_is_no_zarr_is_said_in_one_sentence(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.txt").write_text("no cells")
    with pytest.raises(NucleiError, match=r"pictures is no \.zarr folder of cells: it holds no Zarr group") as caught:
        nc.read_nuclei(folder, 1.0)
    assert "Store" not in str(caught.value)


def test_cells_of_visium_hd(shared_data):
    folder = shared_data / "visium-hd-human-colon-p2-subset" / "tests" / "data" / "hdvisium" / "segmented_outputs"
    nuclei = nc.read_nuclei(folder / "cell_segmentations.geojson", 5.0)
    assert len(nuclei) == 1440


def test_qupath_reads_what_is_written(tmp_path, painted):
    ring = np.array(SQUARE[:-1], float)[:, ::-1] * MPP
    nuclei = nc.Nuclei([[105.0, 26.25]], nc.nuclei.Outlines.of([ring]), [0], ["Tumor"])
    path = write_geojson(nuclei, tmp_path / "q.geojson", MPP)
    found = json.loads(path.read_text())["features"][0]
    assert found["properties"]["objectType"] == "detection"
    assert found["geometry"]["coordinates"] == [[[float(v) for v in pair] for pair in SQUARE]]
    assert found["properties"]["measurements"] == {"Area µm^2": 25.0}
    assert is_the_square(nc.read_nuclei(path, MPP), "Tumor")


BROKEN = [[0, 0], [1, 1]]


def test_broken_ones_are_left_out_and_counted(tmp_path):
    rings = [SQUARE, BROKEN, [[0, 0], [5, 0], [10, 0]], [[0, 0], [5, None], [9, 9]], "text", [], [[0, 0], [0, 0]]]
    content = [*(feature(polygon(ring)) for ring in rings), 7, feature(None), feature({"type": "LineString"})]
    path = write(tmp_path / "b.geojson", content)
    with pytest.warns(CpnnWarning, match="9 of 10 nuclei in .* left out"):
        assert is_the_square(nc.read_nuclei(path, MPP))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.geojson", [feature(polygon(BROKEN))], "no nucleus that can be used among 1"),
        ("a.geojson", [], "no nucleus that can be used"),
        ("a.json", {"some": "thing"}, "is no file of nuclei"),
        ("a.json", {"cells": [3, {}]}, "no nucleus that can be used"),
        ("a.json", {"cells": [{"centroid": [1e300, 1e300]}]}, "no nucleus that can be used"),
        ("a.json", "{", "cannot be read"),
        ("a.csv", "one,two\n1,2\n", "no columns of centres"),
        ("a.csv", "x,y\nleft,right\n", "hold no numbers"),
        ("a.csv", "vertex_x,vertex_y\n1,2\n", "no column cell_id"),
        ("a.csv", "", "cannot be read|no columns|empty"),
        ("a.parquet", "PAR1", "cannot be read"),
        ("a.docx", "", "of no kind that holds nuclei"),
    ],
)
def test_hostile_files_give_a_sentence(tmp_path, name, content, words):
    with pytest.raises(NucleiError, match=words) as caught:
        nc.read_nuclei(write(tmp_path / name, content), 0.5)
    assert str(caught.value).endswith(("?", "."))


def test_pixels_need_a_size_and_a_missing_file_is_said(tmp_path):
    path = write(tmp_path / "a.geojson", [feature(polygon())])
    with pytest.raises(NucleiError, match="in pixels; give the pixel size"):
        nc.read_nuclei(path)
    with pytest.raises(NucleiError, match="no file"):
        nc.read_nuclei(tmp_path / "b.geojson")
    with pytest.raises(CpnnError, match="not plausible"):
        nc.read_nuclei(path, -1.0)
    (tmp_path / "folder").mkdir()
    with pytest.raises(NucleiError):
        nc.read_nuclei(tmp_path / "folder", 0.5)


def test_where_they_lie_is_said(tmp_path):
    slide = Slide.from_arrays([np.zeros((300, 300, 3), np.uint8)], 0.5, name="slide")
    far = [[x + 5000, y] for x, y in SQUARE]
    path = write(tmp_path / "a.geojson", [feature(polygon()), feature(polygon(far))])
    with pytest.warns(CpnnWarning, match="1 of 2 nuclei .* outside of slide"):
        nuclei = nc.read_nuclei(path, slide=slide)
    assert len(nuclei) == 2
    with pytest.raises(NucleiError, match="None of the 1 nuclei"):
        nc.read_nuclei(write(tmp_path / "b.geojson", [feature(polygon(far))]), slide=slide)
