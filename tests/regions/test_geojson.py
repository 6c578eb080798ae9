"""Outlines from files of elsewhere: what is read, what is left out, and what is said."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from shapely.geometry import Polygon

from cases import case
from napari_cpnn.errors import CpnnWarning, RegionsError
from napari_cpnn.regions import Region, read_regions, write_regions

PX = (1.0, 1.0)


def ring(at: float = 0, size: float = 10) -> list[list[float]]:
    return [[at, 0], [at + size, 0], [at + size, size], [at, size], [at, 0]]


def feature(kind: str, coordinates: object, **properties: object) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


GOOD = feature("Polygon", [ring()], name="good")


def read(tmp_path: Path, content: Any, encoding: str = "utf-8") -> tuple[dict[str, float], list[str]]:
    """Areas in px by name, and what was said."""
    path = tmp_path / "r.geojson"
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_bytes(text.encode(encoding, "surrogatepass"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CpnnWarning)
        regions = read_regions(path, PX)
    return {r.name: round(r.area_mm2 * 1e6, 6) for r in regions}, [str(w.message) for w in caught]


def test_regions_travel_through_geojson(tmp_path: Path) -> None:
    mpp = (0.5, 0.25)
    hole = Polygon([(0, 0), (100, 0), (100, 80), (0, 80)], [[(10, 10), (20, 10), (20, 20)]])
    path = write_regions(
        [Region("Tumour", shapely.box(20, 10, 100, 50)), Region("Ring", hole)], tmp_path / "a.geojson", mpp
    )
    coordinates = json.loads(path.read_text())["features"][0]["geometry"]["coordinates"][0]
    assert max(x for x, _ in coordinates) == 400  # 100 um at 0.25 um/px
    assert max(y for _, y in coordinates) == 100  # 50 um at 0.5 um/px
    again = read_regions(path, mpp)
    assert [region.name for region in again] == ["Tumour", "Ring"]
    assert again[1].area_mm2 == pytest.approx(hole.area / 1e6)
    assert again[0].outline.equals(shapely.box(20, 10, 100, 50))


def test_what_qupath_writes(tmp_path: Path) -> None:
    def ring(at: float) -> list[list[list[float]]]:
        return [[[at, 0], [at + 10, 0], [at + 10, 10], [at, 10], [at, 0]]]

    def feature(kind: str, coordinates: object, **properties: object) -> dict[str, object]:
        return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}

    content = [
        feature("Polygon", ring(0), classification={"name": "Tumor", "color": [200, 0, 0]}),
        feature("MultiPolygon", [ring(20), ring(40)], classification={"name": "Tumor"}),
        feature("Polygon", ring(60), name="Mine", classification={"name": "Stroma"}),
        feature("Polygon", [[[80, 0], [90, 10], [90, 0], [80, 10], [80, 0]]]),  # crosses itself
        feature("Point", [1, 2]),
    ]
    path = tmp_path / "q.geojson"
    path.write_text(json.dumps(content))
    with pytest.warns(CpnnWarning, match="1 points or lines in q.geojson"):
        regions = read_regions(path, (1.0, 1.0))
    assert [region.name for region in regions] == ["Tumor 1", "Tumor 2", "Mine", "Region 4"]
    assert [region.area_mm2 * 1e6 for region in regions] == pytest.approx([100, 200, 100, 50])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("x,y\n1,2", "is it a JSON file"),
        ("[1, 2]", "'Region 1' is no feature"),
        ('{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}', "has no outlines"),
        ('{"a": 1}', "is not a GeoJSON file of outlines"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [2, 2], [0, 0]]]}', "has no area"),
        ('{"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [2, 2]]]}', "its coordinates are no pairs of numbers"),
        ('{"type": "FeatureCollection", "features": []}', "has no outlines"),
    ],
)
def test_bad_files_get_a_sentence(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "bad.geojson"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RegionsError, match=said):
        read_regions(path, (1.0, 1.0))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (feature("Polygon", [[[5, 5], [9, 5], [5, 5], [5, 5]]], name="bad"), "'bad' has no area"),
        (feature("Polygon", [], name="bad"), "'bad' has no coordinates"),
        (feature("Polygon", [[]], name="bad"), "'bad' has no coordinates"),
        (feature("MultiPolygon", [[], [ring()[:2]]], name="bad"), "'bad' has no coordinates"),
        (feature("Polygon", [ring(), ring()], name="bad"), "'bad' has no area, for its holes cover it"),
        (feature("Polygon", [ring(5, 2), ring(0, 20)], name="bad"), "'bad' has no area, for its holes cover it"),
        ({"type": "Feature", "geometry": {"type": "Polygon"}, "properties": {"name": "bad"}}, "has no coordinates"),
        (feature("Polygon", [[[0, 0], [1, 1]]], name="bad"), "'bad' has 2 points, too few for an outline"),
        (feature("Polygon", [[[0, 0], [float("nan"), 1], [1, 1]]]), "'Region 2' has coordinates that no slide has"),
        (feature("Polygon", [[[0, 0], [float("inf"), 1], [1, 1]]]), "coordinates that no slide has"),
        (feature("Polygon", [[[0, 0], [1e300, 1], [1, 1]]]), "coordinates that no slide has"),
        (feature("Polygon", [[["0", "0"], ["9", "1"], ["1", "1"]]]), "no pairs of numbers"),
        (feature("Polygon", [[[0, 0], [None, 1], [1, 1]]]), "no pairs of numbers"),
        (feature("Polygon", {"a": 1}), "has no coordinates"),
        (feature("Polygon", [ring()[0]]), "no pairs of numbers"),
        (feature("Circle", [1, 2]), "unknown type, 'Circle'"),
        ({"type": "Feature", "geometry": "x"}, "has a geometry that is none"),
        (5, "'Region 2' is no feature"),
    ],
)
def test_one_bad_outline_leaves_the_others(tmp_path: Path, bad: object, said: str) -> None:
    other = feature("Polygon", [ring(20)], name="other")
    found, (warning,) = read(tmp_path, {"type": "FeatureCollection", "features": [GOOD, bad, other]})
    assert found == {"good": 100, "other": 100}
    assert said in warning
    assert warning.startswith("1 of 3 outlines in r.geojson cannot be used")


@pytest.mark.parametrize(
    "bad",
    [[], [[]], [[[1, 1], [2, 2]]], [[[1, 1], [2, 2], [3, 3]]], [[[0, 0], [None, 1], [1, 1]]], 5, [ring(), ring()]],
)
def test_one_bad_part_leaves_the_others(tmp_path: Path, bad: object) -> None:
    for parts in ([[ring()], bad, [ring(20)]], [bad, [ring(20)], [ring()]]):
        found, (warning,) = read(tmp_path, feature("MultiPolygon", parts, name="m"))
        assert found == {"m": 200}
        assert warning.startswith("Outlines in r.geojson were repaired: 1 of 3 parts of 'm' left out (one ")
    members = [{"type": "Polygon", "coordinates": bad}, {"type": "Polygon", "coordinates": [ring()]}, {"type": "X"}]
    geometry = {"type": "GeometryCollection", "geometries": members}
    found, (warning,) = read(tmp_path, {"type": "Feature", "geometry": geometry, "properties": {"name": "m"}})
    assert found == {"m": 100}
    assert "2 of 3 parts of 'm' left out" in warning


def test_parts_that_overlap_count_once(tmp_path: Path) -> None:
    assert read(tmp_path, feature("MultiPolygon", [[ring()], [ring(5)]], name="m")) == ({"m": 150}, [])
    assert read(tmp_path, feature("MultiPolygon", [[ring()], [ring()]], name="m")) == ({"m": 100}, [])


@pytest.mark.parametrize(
    ("holes", "area", "is_said"),
    [
        ([ring(50, 10)], 400, True),  # outside of it
        ([[[10, -5], [30, -5], [30, 25], [10, 25]]], 200, True),  # across its edge
        ([[[0, 0], [10, 0], [10, 10], [0, 10]]], 300, False),  # along its edge
        ([ring(2, 6), ring(5, 6)], 400 - 54, False),  # two that overlap
        ([[[1, 1], [9, 1], [9, 9], [1, 9]], [[3, 3], [5, 3], [5, 5], [3, 5]]], 400 - 64, False),  # one in another
        ([[[1, 1], [2, 2], [3, 3]]], 400, False),  # without an area
        ([ring(2, 6)], 400 - 36, False),
    ],
)
def test_holes_take_away_what_is_inside_and_nothing_else(
    tmp_path: Path, holes: list[Any], area: float, is_said: bool
) -> None:
    found, said = read(tmp_path, feature("Polygon", [ring(0, 20), *holes], name="m"))
    assert found == {"m": area}
    expected = "Outlines in r.geojson were repaired: holes of 'm' that reach beyond it cut off at its edge."
    assert said == ([expected] if is_said else [])


def test_numbers_of_thousands_of_digits(tmp_path: Path) -> None:
    huge = '{"type": "Polygon", "coordinates": [[[0, 0], [%s, 0], [1, 1]]]}' % ("9" * 5000)
    found, (warning,) = read(tmp_path, f"[{json.dumps(GOOD)}, {huge}]")
    assert found == {"good": 100}
    assert "no slide has" in warning


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path, feature("Polygon", [ring()], name="Läsion"), encoding) == ({"Läsion": 100}, [])


def test_a_text_of_an_old_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegionsError, match=r"its text is not UTF-8, see byte \d+"):
        read(tmp_path, feature("Polygon", [ring()], name="Läsion"), "latin-1")


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"classification": {"names": ["Tumor", "Positive"]}}, "Tumor: Positive"),
        ({"classification": {"names": []}}, "Region 1"),
        ({"classification": "Stroma"}, "Stroma"),
        ({"classification": None}, "Region 1"),
        ({"classification": 7}, "7"),
        ({"name": 3.5}, "3.5"),
        ({"name": ["x"], "classification": {"name": "Tumor"}}, "Tumor"),
        ({"name": " a\nb\u0007 "}, "a b"),
        ({"name": "x" * 10_000}, "x" * 197 + "..."),
        ({}, "Region 1"),
    ],
)
def test_names(tmp_path: Path, properties: dict[str, object], name: str) -> None:
    assert read(tmp_path, feature("Polygon", [ring()], **properties)) == ({name: 100}, [])


def test_names_that_can_be_written(tmp_path: Path) -> None:
    text = json.dumps(feature("Polygon", [ring()], name="a\ud800b"))
    assert read(tmp_path, text) == ({"a b": 100}, [])


def test_numbers_behind_names_meet_no_other_name(tmp_path: Path) -> None:
    named = [feature("Polygon", [ring(20 * i)], name=name) for i, name in enumerate(["a", "a", "a 1"])]
    assert list(read(tmp_path, named)[0]) == ["a 2", "a 3", "a 1"]


def test_collections_of_geometries(tmp_path: Path) -> None:
    square, overlapping = ({"type": "Polygon", "coordinates": [ring(at)]} for at in (0, 5))
    line = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}
    inner = {"type": "GeometryCollection", "geometries": [overlapping, line]}
    mixed = {"type": "GeometryCollection", "geometries": [square, inner]}
    in_a_feature = {"type": "Feature", "geometry": mixed, "properties": {"name": "mixed"}}
    found, said = read(tmp_path, {"type": "FeatureCollection", "features": [in_a_feature, {"type": "Feature"}]})
    assert found == {"mixed": 150}
    assert said == ["1 points or lines and 1 features without a geometry in r.geojson are no regions and are left out."]
    assert list(read(tmp_path, mixed)[0].values()) == [100, 100]  # no feature, so each geometry is a region


def test_heights_holes_and_open_rings(tmp_path: Path) -> None:
    some_heights = [[0, 0, 7], [10, 0, 7], [10, 10]]
    assert read(tmp_path, feature("Polygon", [some_heights], name="a"))[0] == {"a": 50}
    holes = [ring(size=10), [[1, 1], [3, 1], [3, 3], [1, 3]], [], [[5, 5], [6, 6]]]
    assert read(tmp_path, feature("Polygon", holes, name="a")) == ({"a": 96}, [])


@pytest.mark.parametrize("opening", ["[", '{"type": "FeatureCollection", "features": [', '{"a": '])
def test_endless_nesting_is_refused(tmp_path: Path, opening: str) -> None:
    with pytest.raises(RegionsError, match="nested too deeply"):
        read(tmp_path, opening * 100_000)


def test_nesting_that_json_allows(tmp_path: Path) -> None:
    text = '{"type": "GeometryCollection", "geometries": [' * 300 + json.dumps(GOOD["geometry"]) + "]}" * 300
    assert read(tmp_path, text)[0] == {"Region 1": 100}
    assert read(tmp_path, f'{{"type": "Feature", "geometry": {text}}}')[0] == {"Region 1": 100}
    assert read(tmp_path, "[" * 900 + json.dumps(GOOD) + "]" * 900)[0] == {"good": 100}


def zigzag(n: int) -> list[list[float]]:
    """Every edge crosses nearly every other."""
    k = np.arange(n)
    points: list[list[float]] = np.column_stack([np.where(k % 2, 1000.0, 0.0), np.where(k % 2, n - k, k)]).tolist()
    return points


def test_an_outline_that_crosses_itself_without_end_takes_no_time(tmp_path: Path) -> None:
    tangle = np.random.default_rng(0).uniform(0, 1000, (20_000, 2)).tolist()
    bad = [feature("Polygon", [points], name="bad") for points in (zigzag(20_000), tangle)]
    begin = time.monotonic()
    found, (warning,) = read(tmp_path, [GOOD, *bad])
    assert time.monotonic() - begin < 20  # a few seconds, on a processor that others use too
    assert found == {"good": 100}
    assert "'bad' crosses itself too often; draw it anew" in warning


def test_outlines_that_cross_themselves_as_hands_do(tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    eight = np.column_stack([1000 * np.sin(angle), 1000 * np.sin(2 * angle)]).tolist()
    found, said = read(
        tmp_path, [feature("Polygon", [eight], name="eight"), feature("Polygon", [zigzag(20)], name="z")]
    )
    assert said == []
    assert found["eight"] == pytest.approx(4 / 3 * 2 * 1e6, rel=1e-3)
    assert found["z"] == pytest.approx(shapely.make_valid(Polygon(zigzag(20))).area)


def test_a_path_through_a_thousand_parts_is_taken_apart_quickly() -> None:
    discs = shapely.buffer(shapely.points(np.random.default_rng(0).uniform(0, 1e5, (1000, 2))), 30)
    region = Region("discs", shapely.union_all(discs))
    begin = time.monotonic()
    again = Region.from_vertices("discs", region.vertices_um())
    assert time.monotonic() - begin < 10  # it was minutes
    assert again.area_mm2 == pytest.approx(region.area_mm2)


def test_the_cases() -> None:
    with pytest.warns(CpnnWarning, match="1 of 3 outlines in one_bad.geojson .*'bad' has no area"):
        assert [r.name for r in read_regions(case("16-geojson/one_bad.geojson"), PX)] == ["ok", "ok2"]
    with pytest.warns(CpnnWarning, match="'bad' has no coordinates"):
        assert [r.name for r in read_regions(case("16-geojson/empty_ring.geojson"), PX)] == ["ok"]
    with pytest.warns(CpnnWarning, match="1 points or lines"):
        assert [r.name for r in read_regions(case("16-geojson/collection.geojson"), PX)] == ["mixed", "ok"]
    assert [r.name for r in read_regions(case("16-geojson/bom.geojson"), PX)] == ["a"]


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_impossible_names(name: str) -> None:
    with pytest.raises(RegionsError):
        read_regions(f"{name}.geojson", PX)
