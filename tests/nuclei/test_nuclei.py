"""Arrays of nuclei: what they hold, where they are, on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

import napari_cpnn as nc
from napari_cpnn.errors import NucleiError
from napari_cpnn.geometry import Rect
from napari_cpnn.nuclei import Outlines, detection_scores
from napari_cpnn.slides import Slide


def stars(n: int, seed: int = 0, extent: float = 40_000.0) -> Outlines:
    """Star-shaped polygons of 5 to 30 vertices, all over a large slide."""
    rng = np.random.default_rng(seed)
    polygons = []
    for center in rng.uniform(0, extent, (n, 2)):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 30)))
        polygons.append(center + rng.uniform(2, 6, (len(angles), 1)) * np.c_[np.sin(angles), np.cos(angles)])
    return Outlines.of(polygons)


def made(n: int = 300) -> nc.Nuclei:
    outlines = stars(n)
    codes = np.random.default_rng(1).integers(-1, 3, n)
    return nc.Nuclei(outlines.centroids_um(), outlines, codes, ("a", "b", "c"), "made")


def test_areas_and_centroids_are_those_of_shapely():
    outlines = stars(200)
    polygons = outlines.shapely()
    assert outlines.areas_um2() == pytest.approx(shapely.area(polygons), rel=1e-6)
    centers = shapely.get_coordinates(shapely.centroid(polygons))[:, ::-1]
    np.testing.assert_allclose(outlines.centroids_um(), centers, atol=1e-4)


def test_query_is_that_of_all_centres():
    nuclei = nc.Nuclei(np.random.default_rng(0).uniform(-50, 5000, (20_000, 2)))
    y, x = nuclei.centers_um.T
    boxes = [
        (100, 200, 300, 900),
        (-np.inf, -np.inf, np.inf, np.inf),
        (6000, 0, 7000, 10),
        (20, 20, 5, 5),
        (0, 0, 64, 64),
    ]
    for y0, x0, y1, x1 in boxes:
        expected = np.flatnonzero((y >= y0) & (y < y1) & (x >= x0) & (x < x1))
        np.testing.assert_array_equal(nuclei.query((y0, x0, y1, x1)), expected)
        np.testing.assert_array_equal(nuclei.query(Rect(y0, x0, y1, x1)), expected)
    assert len(nuclei.query((0, 0, 100, 100))) > 0


def test_a_subset_keeps_what_belongs_to_each():
    nuclei = made()
    assert nuclei.outlines is not None
    for index in ([7, 3, -1], np.arange(300) % 7 == 2, np.array([], int)):
        part = nuclei.subset(index)
        numbers = np.arange(300)[index]
        assert len(part) == len(numbers)
        for i, number in enumerate(numbers):
            np.testing.assert_array_equal(part.outlines[i], nuclei.outlines[number])
            assert part.class_of(i) == nuclei.class_of(number)
    assert made(20).subset([2]).subset([0]).source == "made"


def test_counts_of_classes():
    nuclei = made()
    counts = nuclei.class_counts()
    assert list(counts) == ["a", "b", "c"]
    assert counts["b"] == sum(nuclei.class_of(i) == "b" for i in range(300))
    assert sum(counts.values()) < 300


def test_no_nuclei_at_all():
    none = nc.Nuclei(np.empty((0, 2)), Outlines.of([]))
    assert len(none) == len(none.query((0, 0, 9, 9))) == len(none.areas_um2()) == len(none.subset([])) == 0


def test_a_million_are_lean():
    n = 1_000_000
    centers = np.random.default_rng(0).uniform(0, 30_000, (n, 2)).astype(np.float32)
    square = np.array([[-3, -3], [-3, 3], [3, 3], [3, -3]], np.float32)
    outlines = Outlines((centers[:, None] + square).reshape(-1, 2), np.arange(0, 4 * n + 1, 4))
    nuclei = nc.Nuclei(centers, outlines, np.zeros(n, np.int16), ("cell",))
    assert nuclei.n_bytes < 60 * n
    assert 900 < len(nuclei.query((100, 100, 1060, 1060))) < 1150
    assert nuclei.areas_um2().mean() == pytest.approx(36, rel=1e-3)


def test_arrays_of_the_caller_stay_writable_and_those_of_nuclei_do_not():
    mine = np.zeros((3, 2), np.float32)
    nuclei = nc.Nuclei(mine)
    mine[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        nuclei.centers_um[0] = 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"centers_um": [[0, np.nan], [1, 1]]}, "1 of 2 nuclei have no possible centre"),
        ({"centers_um": [[0, 1e9]]}, "farther away than any slide"),
        ({"centers_um": np.zeros((2, 3))}, r"shape \(N, 2\)"),
        ({"centers_um": [[0, 0]], "classes": [1], "class_names": ["a"]}, "numbers of 1 name"),
        ({"centers_um": [[0, 0]], "classes": [0, 0], "class_names": ["a"]}, "classes of shape"),
        ({"centers_um": [[0, 0], [1, 1]], "outlines": Outlines.of([np.eye(3)[:, :2]])}, "1 outline for 2 nuclei"),
    ],
)
def test_what_cannot_be_is_said(arguments, words):
    with pytest.raises(NucleiError, match=words):
        nc.Nuclei(**arguments)


@pytest.mark.parametrize(
    ("vertices", "starts", "words"),
    [
        ([[0, 0], [0, 1]], [0, 2], "2 vertices"),
        ([[0, 0], [0, 1], [np.inf, 1]], [0, 3], "Outline 0 has a coordinate"),
        ([[0, 0], [0, 1], [1, 1]], [0, 2], "starts of outlines"),
        ([0.0, 1.0, 2.0], [0, 3], "shape"),
    ],
)
def test_broken_outlines_are_said(vertices, starts, words):
    with pytest.raises(NucleiError, match=words):
        Outlines(np.array(vertices, np.float32), np.array(starts))


def test_nuclei_outside_of_the_slide_are_said():
    slide = Slide.from_arrays([np.zeros((100, 200, 3), np.uint8)], 0.5, name="small")
    inside = nc.Nuclei([[10.0, 90.0]])
    inside.require_on(slide)
    with pytest.raises(NucleiError, match="1 of 2 nuclei lie outside small"):
        nc.Nuclei([[10.0, 90.0], [90.0, 10.0]]).require_on(slide)


def same(a: nc.Nuclei, b: nc.Nuclei) -> bool:
    arrays = [(a.centers_um, b.centers_um), (a.classes, b.classes)]
    if a.outlines is not None:
        arrays += [(a.outlines.vertices_um, b.outlines.vertices_um), (a.outlines.starts, b.outlines.starts)]
    return a.class_names == b.class_names and a.source == b.source and all(
        (one is None and other is None) or np.array_equal(one, other) for one, other in arrays
    )  # fmt: skip


@pytest.mark.parametrize(
    "nuclei", [made(), nc.Nuclei([[1, 2]]), nc.Nuclei(np.empty((0, 2)))], ids=["all", "one", "none"]
)
def test_what_is_saved_is_read(nuclei, tmp_path):
    path = nuclei.save(tmp_path / "n.zarr")
    assert same(nc.Nuclei.load(path), nuclei)
    assert same(nc.read_nuclei(path), nuclei)
    assert [item.name for item in tmp_path.iterdir()] == ["n.zarr"]


def test_nothing_is_replaced_unasked(tmp_path):
    path = made(5).save(tmp_path / "n.zarr")
    with pytest.raises(NucleiError, match="exists already"):
        made(6).save(path)
    assert len(nc.Nuclei.load(path)) == 5
    made(6).save(path, overwrite=True)
    assert len(nc.Nuclei.load(path)) == 6
    other = tmp_path / "map.zarr"
    other.mkdir()
    (other / "mine.txt").touch()
    with pytest.raises(NucleiError, match="does not hold nuclei"):
        made(5).save(other, overwrite=True)
    with pytest.raises(NucleiError, match=r"\.zarr folder"):
        made(5).save(tmp_path / "n.csv")


@pytest.mark.parametrize("what", ["chunk", "lost", "card", "extra", "newer"])
def test_damage_on_disk_is_said(what, tmp_path):
    path = made(50).save(tmp_path / "n.zarr")
    card = json.loads((path / "zarr.json").read_text())
    chunk = path / "centers_um" / "c" / "0" / "0"
    if what == "chunk":
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 255
        chunk.write_bytes(content)
    elif what == "lost":
        chunk.unlink()
    else:
        said = card["attributes"]["napari_cpnn_nuclei"]
        said |= {
            "card": {"class_names": ["x", "y", "z"]},
            "extra": {"arrays": {"secret": [1]}},
            "newer": {"format": 99},
        }[what]
        (path / "zarr.json").write_text(json.dumps(card))
    with pytest.raises(NucleiError, match=r"damaged|newer") as caught:
        nc.Nuclei.load(path)
    assert "\n" not in str(caught.value)


def test_scores_match_one_to_one_and_as_many_as_possible():
    # a greedy matching of the nearest pair first would match only one
    found, true = [[0.0, 0.0], [0.0, 2.0]], [[0.0, 1.9], [0.0, 4.5]]
    assert detection_scores(found, true, 3.0)["matched"] == 2
    assert detection_scores([[0.0, 0.0]] * 5, [[0.0, 1.0]]) == {
        "matched": 1, "found": 5, "true": 1, "precision": 0.2, "recall": 1.0, "f1": pytest.approx(1 / 3),
    }  # fmt: skip
    assert np.isnan(detection_scores([], [])["f1"])
    with pytest.raises(NucleiError, match="finite"):
        detection_scores([[np.nan, 0]], [[0, 0]])
