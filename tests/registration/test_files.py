"""Registrations and landmarks in files, and for other programs."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from napari_cpnn.errors import RegistrationError, SpotsError
from napari_cpnn.registration import (
    KINDS,
    Evidence,
    Registration,
    fit_landmarks,
    load_registration,
    read_landmarks,
    save_registration,
    to_ngff,
)
from napari_cpnn.registration.files import registration_in, registration_text
from napari_cpnn.spots import read_affine

MPP = ((0.5, 0.25), (0.7, 0.6))


def some(kind: str = "similarity") -> Registration:
    rng = np.random.default_rng(0)
    moving = rng.uniform(0, 5000, (7, 2))
    return fit_landmarks(moving, moving[:, ::-1] * 1.1 + rng.normal(0, 20, (7, 2)), kind, mpp=MPP, names=("a", "b"))


def automatic() -> Registration:
    none = np.empty((0, 2))
    matrix = np.array([[0.0, 1.0, 5.0], [-1.0, 0.0, 7.0]])
    found = Evidence(dice=0.9, rival=0.7, inliers=4, matches=20)
    return Registration("similarity", matrix, none, none, np.empty(0), *MPP, "a", "b", False, "Few features.", found)


@pytest.mark.parametrize("kind", [*KINDS, "automatic"])
def test_a_registration_comes_back_from_its_file(kind, tmp_path):
    before = automatic() if kind == "automatic" else some(kind)
    path = save_registration(before, tmp_path / "new" / "a.registration.json")
    after = load_registration(path)
    points = np.random.default_rng(1).uniform(-1000, 9000, (20, 2))
    np.testing.assert_allclose(after.map(points), before.map(points), atol=1e-6)
    for name in ("kind", "moving_mpp", "fixed_mpp", "moving_name", "fixed_name", "trusted", "why", "mirrored"):
        assert getattr(after, name) == getattr(before, name)
    assert repr(after.evidence) == repr(before.evidence)
    np.testing.assert_allclose(after.left_out_um, before.left_out_um, atol=1e-6)
    assert after.summary == before.summary
    mine = path.read_text()
    with pytest.raises(RegistrationError, match="exists already"):
        save_registration(after, path)
    assert path.read_text() == mine
    save_registration(some(), path, overwrite=True)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("trusted", "false", "trusted is neither true nor false"),
        ("napari-cpnn registration", True, "it has no version"),
        ("napari-cpnn registration", -1, "it has no version"),
        ("matrix", [[1, 0, 0], [0, 5, 0]], "its matrix is not a similarity"),
        ("evidence", {"dice": math.inf}, "its evidence has no possible dice"),
        ("evidence", {"inliers": 10**30}, "its evidence has no possible inliers"),
    ],
)
def test_what_could_not_be_written_again_or_says_two_things_is_refused(name, value, sentence):
    content = json.loads(registration_text(automatic()))
    with pytest.raises(RegistrationError, match=sentence):
        registration_in({**content, name: value}, "a.json")


def test_a_table_with_an_endless_field_is_no_table_of_landmarks(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("moving_x,moving_y,fixed_x,fixed_y\n" + "1" * 200_000 + ",1,2,3\n")
    with pytest.raises(RegistrationError, match="field larger than field limit"):
        read_landmarks(path)


def test_an_affine_map_is_read_where_those_of_fiji_are(tmp_path):
    path = save_registration(some("affine"), tmp_path / "a.json")
    np.testing.assert_allclose(read_affine(path), some("affine").pixel_matrix)
    with pytest.raises(SpotsError):
        read_affine(save_registration(some("thin-plate"), tmp_path / "b.json"))


def test_spatialdata_reads_what_is_written_for_it():
    ngff = pytest.importorskip("spatialdata.transformations.ngff.ngff_transformations")
    transformations = pytest.importorskip("spatialdata.transformations")
    one = some("affine")
    read = transformations.Affine.from_ngff(ngff.NgffBaseTransformation.from_dict(to_ngff(one)))
    matrix = read.to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(matrix, np.vstack([one.pixel_matrix, (0, 0, 1)]))
    xy = np.array([[100.0, 40.0], [7000.0, 900.0]])
    np.testing.assert_allclose(xy @ matrix[:2, :2].T + matrix[:2, 2], one.map_px(xy))


def test_a_spline_is_approximated_only_when_asked():
    one = some("thin-plate")
    off = one.affine_residuals_um.max()
    with pytest.raises(RegistrationError, match=rf"no thin-plate splines; .* up to {off:.0f} um off"):
        to_ngff(one)
    assert to_ngff(one, approximate=True)["affine"] == to_ngff(some("affine"))["affine"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "rigid"}, "unknown kind"),
        ({"napari-cpnn registration": 9}, "newer version"),
        ({"fixed": {"name": "b", "mpp_yx": [0, 1]}}, "pixel size is not a positive number"),
        ({"landmarks_um_yx": {"moving": [[0, 0]], "fixed": [[0, 0]]}}, "takes two pairs"),
        ({"landmarks_um_yx": None, "matrix": [[1, 1, 0], [1, 1, 0]]}, "not an affine map of pictures"),
        ({"landmarks_um_yx": None, "kind": "thin-plate"}, "without landmarks"),
        ({"moving": None}, "is it complete"),
    ],
)
def test_a_damaged_file_is_a_sentence(change, said, tmp_path):
    path = save_registration(some(), tmp_path / "a.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RegistrationError, match=said):
        load_registration(path)


#: What a damaged or hostile file may have in place of a value.
ODD = (None, "", "x", -1, 0, 1e308, 10**400, [], [[]], {}, [["a", 1]], [[1, 2, 3]], {"name": 1}, True, [None, None])


def places(content, at=()):
    """Paths to all values of a JSON document."""
    yield at
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*at, key))


@pytest.mark.parametrize("kind", ["automatic", "thin-plate"])
def test_no_value_of_a_file_raises_anything_but_a_sentence(kind):
    text = registration_text(automatic() if kind == "automatic" else some(kind))
    refused = 0
    for at in places(json.loads(text)):
        for odd in ODD:
            content = json.loads(text)
            if at:
                inner = content
                for key in at[:-1]:
                    inner = inner[key]
                inner[at[-1]] = odd
            try:
                found = registration_in(content if at else odd, "it")
            except RegistrationError:
                refused += 1
            else:
                assert np.isfinite(found.map([(10.0, 20.0)])).all()
    assert refused > 100


def test_another_file_is_a_sentence(tmp_path):
    (tmp_path / "a.json").write_text("[[1, 0, 0], [0, 1, 0]]")
    (tmp_path / "b.json").write_text('{"napari-cpnn')
    with pytest.raises(RegistrationError, match="applied by Move in Compare"):
        load_registration(tmp_path / "a.json")
    with pytest.raises(RegistrationError, match="is it a JSON file"):
        load_registration(tmp_path / "b.json")
    with pytest.raises(RegistrationError, match="There is no registration"):
        load_registration(tmp_path / "c.json")


@pytest.mark.parametrize(
    "text",
    [
        "name,moving_x,moving_y,fixed_x,fixed_y\na,1,2,3,4\nb,5,6.5,7,8\n",
        "fixed_y\tfixed_x\tmoving_y\tMoving_X\n4\t3\t2\t1\n8\t7\t6,5\t5\n",
        '"Pt-0","true","1","2","3","4"\n"Pt-1","false","0","0","9","9"\n"Pt-2","true","5","6.5","7","8"\n',
        "moving_x;moving_y;fixed_x;fixed_y\n1;2;3;4\n\n5;6,5;7;8\n",
    ],
    ids=["names", "tabs", "BigWarp", "decimal commas"],
)
def test_tables_of_landmarks(text, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    moving, fixed = read_landmarks(path)
    assert (moving.tolist(), fixed.tolist()) == ([[1, 2], [5, 6.5]], [[3, 4], [7, 8]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("x,y\n1,2\n", "has no columns moving_x"),
        ("moving_x,moving_y,fixed_x,fixed_y\n1,2,3,4\n1,2,,4\n", "Line 3 of"),
        ("moving_x,moving_y,fixed_x,fixed_y\n1,2,3\n", "Line 2 of"),
    ],
)
def test_tables_that_are_none(text, said, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(RegistrationError, match=re.escape(said)):
        read_landmarks(path)
    with pytest.raises(RegistrationError, match="There is no table"):
        read_landmarks(tmp_path / "nothing.csv")
