from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from tests.spots.test_visium import POSITIONS

from napari_cpnn.errors import SpotsError
from napari_cpnn.slides import Slide
from napari_cpnn.spots import given_fix, parse_affine, read_affine
from napari_cpnn.spots.affine import inverted

MATRIX = np.array([[0.5, -0.25, 30.0], [0.125, 2.0, -7.5]])


@pytest.mark.parametrize(
    "text",
    [
        "0.5, -0.25, 30\n0.125, 2, -7.5\n",  # QuPath's alignment pane
        "0.5000\t -0.2500\t 30.0 ,\n 0.1250\t 2.0\t -7.5",
        "AffineTransform[[0.5, -0.25, 30.0], [0.125, 2.0, -7.5]]",  # Java, as QuPath's and Fiji's logs print
        "0.5 -2.5e-1 3.0E1 0.125 2 -7.5 0 0 1",
        "matrix(0.5, 0.125, -0.25, 2.0, 30, -7.5)",  # SVG, TrakEM2: by columns
        "3d-affine: (0.5, -0.25, 0, 30, 0.125, 2, 0, -7.5, 0, 0, 1, 0)",  # BigWarp
        json.dumps([*MATRIX.tolist(), [0, 0, 1]]),
        json.dumps({"type": "affine", "affine": MATRIX.tolist()}),  # NGFF, SpatialData
        json.dumps({"serialNumber": "V1", "transform": [*MATRIX.tolist(), [0, 0, 1]]}),  # Loupe
        json.dumps({"matrix": [*MATRIX.ravel()]}),
        json.dumps(np.vstack([MATRIX, [0, 0, 1]]).T.tolist()),  # for row vectors, as scikit-image's users write
    ],
)
def test_every_spelling_is_the_same_map(text: str, tmp_path: Path) -> None:
    np.testing.assert_allclose(parse_affine(text), MATRIX)
    (tmp_path / "a.txt").write_text(text)
    np.testing.assert_allclose(read_affine(tmp_path / "a.txt"), MATRIX)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hello", "has 0 numbers"),
        ("1 2 3 4", "has 4 numbers"),
        ("1 2 3 2 4 6", "onto a line"),
        ("1 0 5 0 1 0 0.1 0 1", "last row"),
        ("[[1, 0], [0, 1]]", "has 4 numbers"),
    ],
)
def test_sentences(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SpotsError, match=says):
        parse_affine(text)
    with pytest.raises(SpotsError, match="cannot be read"):
        read_affine(tmp_path / "missing.txt")


HALF = [[0.5, 0.0, 10.0], [0.0, 0.5, 20.0]]


@pytest.mark.parametrize(
    "text",
    [
        "0,5 0,0 10,0 0,0 0,5 20,0",
        "0,5; 0; 10\n0; 0,5; 20,0",
        "0,5 0 10,0\n0 0,5 20",
        "[[0,5, 0,0, 10,0],[0,0, 0,5, 20,0]]",
        "[0,5, 0,0, 10,0, 0,0, 0,5, 20,0]",
        "[0,500, 0,000, 10,000], [0,000, 0,500, 20,000]",
        '{"matrix": [["0,5", "0,0", "10,0"], ["0,0", "0,5", "20,0"]]}',
        "0,5 0 10 0 0,5 20 0 0 1",
        "matrix(0,5 0,0 0,0 0,5 10,0 20,0)",
        "0.5,0,10,0,0.5,20",
        "0.5,0.0,0,10\n0,0.5,0,20\n0,0,1,0",
    ],
)
def test_commas_before_decimals_or_between_numbers(text: str) -> None:
    np.testing.assert_allclose(parse_affine(text), HALF)


@pytest.mark.parametrize("text", ["1,0,0,10\n0,1,0,20\n0,0,1,0", "[1,0,0,10,0,1,0,20,0,0,1,0]", "1,0,10\n0,1,20"])
def test_whole_numbers_with_commas_between_them(text: str) -> None:
    np.testing.assert_allclose(parse_affine(text), [[1.0, 0.0, 10.0], [0.0, 1.0, 20.0]])


@pytest.mark.parametrize(
    "text",
    [
        "0,5,0,0,10,0,0,0,0,5,20,0",
        "[[0,5,0,0,10,0],[0,0,0,5,20,0]]",
        "0,5 0,0 1.000,5 0,0 0,5 2.000,0",
        "1 0 1,000\n0 1 2,000",
        "1,0 5 0,1 7 0,0 1",
    ],
)
def test_commas_that_may_mean_either_are_refused(text: str) -> None:
    with pytest.raises(SpotsError, match="has commas that may separate numbers, decimals or"):
        parse_affine(text)


@pytest.mark.parametrize("text", ["matrix(" * 140_000, "1" * 300_000 + "x", "matrix" + " " * 500_000, "1," * 300_000])
def test_long_texts_are_refused_in_a_moment(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(SpotsError):
        parse_affine(text)
    assert time.perf_counter() - start < 5


def test_inverted_takes_back() -> None:
    points = np.random.default_rng(0).uniform(0, 99, (5, 2))
    there = points @ MATRIX[:, :2].T + MATRIX[:, 2]
    back = inverted(MATRIX)
    np.testing.assert_allclose(there @ back[:, :2].T + back[:, 2], points)


def table(spatial: np.ndarray, names: list[str]) -> AnnData:
    spots = AnnData(np.ones((len(names), 1), dtype=np.float32))
    spots.obs_names = names
    spots.obsm["spatial"] = spatial
    return spots


def test_positions_of_another_run_of_the_same_spots(tmp_path: Path) -> None:
    path = tmp_path / "tissue_positions_list.csv"
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in POSITIONS))
    names = [row[0] for row in POSITIONS]
    there = np.array([[row[5], row[4]] for row in POSITIONS], dtype=float)
    back = inverted(MATRIX)
    here = there @ back[:, :2].T + back[:, 2]
    np.testing.assert_allclose(read_affine(path, table(here, names)), MATRIX, atol=1e-9)
    with pytest.raises(SpotsError, match="has 0 of the 5 spots"):
        read_affine(path, table(here, list("abcde")))
    with pytest.raises(SpotsError, match="are not related"):
        read_affine(path, table(np.random.default_rng(0).uniform(0, 99, (5, 2)), names))


def test_the_direction_that_meets_the_tissue_is_taken() -> None:
    image = np.full((800, 800, 3), 245, dtype=np.uint8)
    image[500:780, 500:780] = (190, 90, 150)
    slide = Slide.from_arrays([image], (1.0, 1.0), name="corner")
    on = np.random.default_rng(0).uniform(520, 760, (40, 2))
    matrix = np.array([[1.0, 0, 450], [0, 1, 450]])
    spots = table(on - 450, [str(i) for i in range(40)])
    fix = given_fix(slide, spots, matrix, "the affine map of a.txt")
    assert (fix.name, fix.on_tissue) == ("the affine map of a.txt", 1.0)
    np.testing.assert_allclose(fix.apply(spots).obsm["spatial"], on)
    back = given_fix(slide, spots, inverted(matrix), "it")
    assert back.name == "it, inverted"
    np.testing.assert_allclose(back.apply(spots).obsm["spatial"], on)
