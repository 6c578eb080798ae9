"""Nuclei of images of labels: OME-Zarr, SpatialData, TIFF; against scikit-image on the whole image."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.draw import ellipse
from skimage.measure import regionprops

import napari_cpnn as nc
from napari_cpnn.errors import CpnnWarning, NucleiError
from napari_cpnn.nuclei import read_labels as module
from napari_cpnn.slides import labels_in
from ome_zarr_files import write

MPP = (0.25, 0.5)


def drawn(height: int, width: int, n: int = 60) -> np.ndarray:
    """Ellipses that do not touch, with numbers in no order."""
    rng = np.random.default_rng(0)
    labels = np.zeros((height, width), np.uint32)
    for number in rng.permutation(100_000)[:n] + 1:
        y, x, a, b = rng.integers(30, height - 30), rng.integers(30, width - 30), *rng.integers(5, 14, 2)
        at = ellipse(y, x, a, b, shape=labels.shape)
        if not labels[max(y - 30, 0) : y + 30, max(x - 30, 0) : x + 30].any():
            labels[at] = number
    return labels


def check(nuclei: nc.Nuclei, labels: np.ndarray) -> None:
    """Centres as scikit-image has them, and outlines of the areas of the labels."""
    expected = regionprops(labels.astype(np.int32))
    assert len(nuclei.centers_um) == len(expected) > 10
    centers = np.array([(np.array(one.centroid) + 0.5) * MPP for one in expected])
    order = np.lexsort(np.round(centers, 3).T)
    found = np.lexsort(np.round(nuclei.centers_um, 3).T)
    np.testing.assert_allclose(nuclei.centers_um[found], centers[order], atol=1e-3)
    areas = np.array([one.area for one in expected])[order] * MPP[0] * MPP[1]
    assert nuclei.outlines is not None
    np.testing.assert_allclose(nuclei.outlines.areas_um2()[found], areas, rtol=0.08)  # outlines are smooth


@pytest.mark.parametrize("core", [128, 1536])
def test_labels_of_an_ome_zarr(tmp_path, monkeypatch, core):
    """Nuclei at the borders of blocks are found once and whole."""
    monkeypatch.setattr(module, "_CORE", core)
    monkeypatch.setattr(module, "_RIM", 40)
    labels = drawn(500, 600)
    image = write(tmp_path / "a.ome.zarr")
    write(image / "labels" / "nuclei", axes="yx", levels=[labels])
    write(image / "labels" / "tissue", axes="yx", levels=[labels])
    for path, element in ((image, None), (image, "nuclei"), (image / "labels" / "nuclei", None)):
        check(nc.read_nuclei(path, element=element), labels)
    with pytest.raises(NucleiError, match="has no shapes"):
        nc.read_nuclei(image, element="other")


def test_a_tiff_of_labels_is_on_the_slide(tmp_path):
    labels = drawn(400, 300)
    tifffile.imwrite(tmp_path / "labels.tif", labels, tile=(128, 128), compression="zlib")
    with pytest.raises(NucleiError, match="has no pixel size; give that of the slide"):
        nc.read_nuclei(tmp_path / "labels.tif")
    check(nc.read_nuclei(tmp_path / "labels.tif", mpp=MPP), labels)
    slide = nc.Slide.from_arrays([np.full((400, 300, 3), 200, np.uint8)], MPP)
    check(nc.read_nuclei(tmp_path / "labels.tif", slide=slide), labels)


def test_labels_of_half_the_size_are_not_taken_for_those_of_the_slide(tmp_path):
    tifffile.imwrite(tmp_path / "half.tif", drawn(400, 300)[::2, ::2])
    slide = nc.Slide.from_arrays([np.full((400, 300, 3), 200, np.uint8)], MPP)
    with pytest.raises(NucleiError, match="has 150 x 200 px of unknown size, but the slide has 300 x 400 px"):
        nc.read_nuclei(tmp_path / "half.tif", slide=slide)
    scaled = {"resolution": (1e4 / 1.0, 1e4 / 0.5), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "scaled.tif", drawn(400, 300)[::2, ::2], tile=(128, 128), **scaled)
    assert nc.read_nuclei(tmp_path / "scaled.tif", slide=slide).centers_um.max() > 60


def test_labels_of_a_spatialdata(tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import Labels2DModel

    labels = drawn(300, 300)
    element = Labels2DModel.parse(labels.astype(np.int32), dims=("y", "x"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of spatialdata's own libraries
        spatialdata.SpatialData(labels={"cell_labels": element}).write(tmp_path / "s.zarr")
    check(nc.read_nuclei(tmp_path / "s.zarr", mpp=MPP), labels)


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((300, 300), np.uint16), "has no nucleus: all its pixels are 0"),
        (np.where(drawn(300, 300) > 0, 5, -1).astype(np.int32), "has negative labels; write 0 where there is no"),
        ((drawn(300, 300) > 0).astype(np.uint8) * 255, r"has the one label 255 in \d+ places, so it is a mask"),
        (np.zeros((300, 300, 3), np.uint8), "is no image of labels: it has colours"),
        (np.zeros((300, 300), np.float32), "is no image of labels: it has values of the kind float32"),
    ],
)
def test_other_images_are_refused(tmp_path, pixels, sentence):
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(128, 128), photometric="rgb" if pixels.ndim == 3 else None)
    with pytest.raises(NucleiError, match=sentence):
        nc.read_nuclei(tmp_path / "a.tif", mpp=0.5)


def test_several_images_of_labels_are_a_choice_and_large_objects_are_told(tmp_path, monkeypatch):
    labels = drawn(300, 300)
    image = write(tmp_path / "a.ome.zarr")
    for name in ("nuclei_1", "nuclei_2"):
        write(image / "labels" / name, axes="yx", levels=[labels])
    with pytest.raises(NucleiError, match="several images of labels; give one as element: nuclei_1, nuclei_2"):
        nc.read_nuclei(image)
    monkeypatch.setattr(module, "_CORE", 128)
    monkeypatch.setattr(module, "_RIM", 4)
    with pytest.warns(CpnnWarning, match="larger than 4 px"):
        nc.read_nuclei(image, element="nuclei_1")


def test_what_is_labels_by_its_attributes(tmp_path):
    folder = write(tmp_path / "segmentation.zarr", axes="yx", levels=[drawn(200, 200)])
    assert labels_in(folder) == {}
    facts = json.loads((folder / ".zattrs").read_text())
    (folder / ".zattrs").write_text(json.dumps({**facts, "image-label": {"version": "0.4"}}))
    assert labels_in(folder) == {"segmentation.zarr": folder}
    assert labels_in(Path(tmp_path / "nothing")) == {}


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"ome": True}])
def test_several_planes_are_refused(tmp_path, options):
    """A slide shows the middle one, which is not that of the nuclei for certain."""
    path = tmp_path / "planes.tif"
    one = drawn(200, 300).astype(np.uint16)
    tifffile.imwrite(path, np.stack([one, one, one]), metadata={"axes": "ZYX"}, photometric="minisblack", **options)
    with pytest.raises(NucleiError, match="has 3 planes of labels, and a slide has one"):
        nc.read_nuclei(path, mpp=0.5)
    with nc.open_slide(path) as slide:
        assert slide.properties["planes"] == "3, one is shown"
    tifffile.imwrite(path, one, photometric="minisblack")
    assert len(nc.read_nuclei(path, mpp=0.5)) > 10
    with nc.open_slide(path) as slide:
        assert "planes" not in slide.properties
