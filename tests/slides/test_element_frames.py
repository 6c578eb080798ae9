"""Pixel sizes of images in a SpatialData, by their transformations to coordinate systems."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from napari_cpnn.errors import CpnnWarning
from napari_cpnn.slides import open_slide
from napari_cpnn.slides.backends.element_frames import element_mpp
from ome_zarr_files import IMAGE, write
from slide_files import whole

AXES = ("c", "y", "x")


def system(name: str, unit: str = "unit", axes: tuple[str, ...] = AXES) -> dict:
    kinds = [{"name": axis, "type": "channel" if axis == "c" else "space", "unit": unit} for axis in axes]
    return {"name": name, "axes": kinds}


def step(kind: str, values: object, to: str = "um", unit: str = "unit", outputs: tuple[str, ...] = AXES) -> dict:
    key = "transformations" if kind == "sequence" else kind
    return {"type": kind, key: values, "input": system("cyx"), "output": system(to, unit, outputs)}


SCALE = step("scale", [1.0, 0.25, 0.5])
IDENTITY = {"type": "identity", "input": system("cyx"), "output": system("global")}
#: x = 0.5 y + 10, y = -0.25 x + 3: a quarter turn; the rows of the second are in another order.
TURNED = step("affine", [[1, 0, 0, 0], [0, 0, -0.25, 3], [0, 0.5, 0, 10]])
REORDERED = step("affine", [[1, 0, 0, 0], [0, 0.5, 0, 10], [0, 0, -0.25, 3]], outputs=("c", "x", "y"))
SHEARED = step("affine", [[1, 0, 0, 0], [0, 0.5, 0.2, 3], [0, 0, 0.5, 10]])


@pytest.mark.parametrize(
    ("steps", "mpp"),
    [
        ([IDENTITY], None),  # pixels
        ([step("scale", [1, 0.5, 0.5], "global")], None),  # of no unit
        ([IDENTITY, SCALE], (0.25, 0.5)),
        ([step("scale", [1, 0.25, 0.5], "global", "micrometer")], (0.25, 0.5)),
        ([step("scale", [1, 250.0, 500.0], "global", "nanometer")], (0.25, 0.5)),
        ([TURNED], (0.5, 0.25)),
        ([REORDERED], (0.5, 0.25)),
        ([step("sequence", [SCALE, step("translation", [0, 9, 9]), step("scale", [1, 2, 4])])], (0.5, 2.0)),
        ([step("sequence", [{"type": "mapAxis", "mapAxis": {"x": "y", "y": "x"}}, SCALE])], (0.5, 0.25)),
        ([SCALE, step("scale", [1, 0.25, 0.5], "microns")], (0.25, 0.5)),
        ([], None),
    ],
)
def test_pixel_sizes(steps: list[dict], mpp: tuple[float, float] | None):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert element_mpp({"coordinateTransformations": steps}, "he") == (mpp and pytest.approx(mpp))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([SHEARED], "to 'um' shears it"),
        ([step("scale", [1, 0, 0.5])], "singular"),
        ([SCALE, step("scale", [1, 0.5, 0.5], "microns")], "disagree about its pixels"),
        ([step("displacements", "field")], "to 'um' is not understood"),
        ([step("scale", [1])], "not understood"),
        ([step("affine", [[1, 0], [0, 1]])], "not understood"),
        ([step("scale", [1, float("nan"), 1])], "not understood"),
    ],
)
def test_what_gives_no_pixel_size_is_said(steps: list[dict], said: str):
    with pytest.warns(CpnnWarning, match=said):
        assert element_mpp({"coordinateTransformations": steps}, "he") is None


def test_transformations_to_several_systems_do_not_follow_each_other(tmp_path: Path):
    """Each is from pixels: of 0.25 um, and to another section, in which they are a fifth as large."""
    folder = write(tmp_path / "he.zarr", "0.5", unit=None)
    change(folder, [SCALE, step("scale", [1, 0.2, 0.2], "other")], dataset=1.0)
    slide = open_slide(folder)
    assert slide.mpp == pytest.approx((0.25, 0.5))
    np.testing.assert_array_equal(whole(slide), IMAGE)
    change(folder, [step("scale", [1, 0.2, 0.2], "other")], dataset=1.0, unit="micrometer")
    assert open_slide(folder).mpp == pytest.approx((1.0, 1.0))  # of the OME-Zarr itself


def change(folder: Path, steps: list[dict], dataset: float, unit: str | None = None) -> None:
    """Write the transformations of an element, and the scale of the finest level."""
    import zarr

    group = zarr.open_group(str(folder))
    facts = dict(group.attrs["ome"])
    image = facts["multiscales"][0]
    image["coordinateTransformations"] = steps
    image["axes"] = [{**axis, **({"unit": unit} if unit and axis["type"] == "space" else {})} for axis in image["axes"]]
    for level, entry in enumerate(image["datasets"]):
        scale = [1.0, dataset * 2**level, dataset * 2**level]
        entry["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    group.attrs["ome"] = facts


def test_as_spatialdata_writes_it(tmp_path: Path):
    """A quarter turn with a scale to micrometres, beside pixels."""
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Affine, Identity, Scale, Sequence

    pixels = np.ascontiguousarray(np.moveaxis(IMAGE, -1, 0))
    turn = Affine([[0, 2.0, 10], [-2.0, 0, 3], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    to_um = Sequence([Scale([0.125, 0.25], axes=("y", "x")), turn])
    image = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), scale_factors=[2], transformations={"global": Identity(), "um": to_um}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spatialdata.SpatialData(images={"he": image}).write(tmp_path / "sd.zarr")
    slide = open_slide(tmp_path / "sd.zarr")
    assert slide.mpp == pytest.approx((0.25, 0.5))
    np.testing.assert_array_equal(whole(slide), IMAGE)
