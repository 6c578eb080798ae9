from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from tests.ui.conftest import MPP, SHAPE, tissue_image, write_slide

from cases import case
from napari_cpnn.errors import CpnnError
from napari_cpnn.ui.layers.reader import get_reader, is_slide_path
from ome_zarr_files import IMAGE, write


def test_slide_opens_in_micrometres(slide_path):
    ((data, keywords, kind),) = get_reader(str(slide_path))(str(slide_path))
    assert kind == "image"
    assert data[0].shape == (*SHAPE, 3)
    assert len(data) >= 2
    assert keywords["scale"] == pytest.approx((MPP, MPP))
    assert keywords["translate"] == pytest.approx((MPP / 2, MPP / 2))
    assert keywords["units"] == ("um", "um")
    assert keywords["rgb"]
    assert keywords["multiscale"]
    assert "name" not in keywords["metadata"]


def test_list_of_paths(slide_path, tmp_path):
    other = write_slide(tmp_path / "other.tif", tissue_image())
    paths = [str(slide_path), str(other)]
    assert [keywords["name"] for _, keywords, _ in get_reader(paths)(paths)] == ["section", "other"]


@pytest.mark.parametrize("name", ["cells.csv", "picture.png", "photo.jpg", "notes.txt", "noextension"])
def test_other_files_are_declined(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"anything")
    assert get_reader(str(path)) is None
    assert get_reader([str(path)]) is None


def test_small_or_grey_tiffs_are_left_to_other_readers(tmp_path):
    stack, picture, text = tmp_path / "stack.tif", tmp_path / "picture.tif", tmp_path / "text.tif"
    tifffile.imwrite(stack, np.zeros((5, 64, 64), np.uint16))
    tifffile.imwrite(picture, np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    text.write_text("not a TIFF")
    start = time.perf_counter()
    assert [get_reader(str(p)) for p in (stack, picture, text)] == [None, None, None]
    assert time.perf_counter() - start < 1.0


def test_colours_in_planes_of_their_own_and_small_slides_with_a_pixel_size_are_slides(tmp_path):
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    colours = {"Channel": {"Name": ["Red", "Green", "Blue"]}}
    for number, (named, more) in enumerate([(colours, sizes), (colours, {}), ({}, sizes)]):
        planes = tmp_path / f"planes{number}.ome.tif"
        data = np.full((3, 600, 600), 200, np.uint8)
        tifffile.imwrite(planes, data, photometric="minisblack", metadata={"axes": "CYX", **named, **more})
        assert (get_reader(str(planes)) is not None) == (number == 0)
    small = tmp_path / "small.ome.tif"
    tifffile.imwrite(small, np.full((90, 80, 3), 200, np.uint8), photometric="rgb", metadata={"axes": "YXS", **sizes})
    assert get_reader(str(small)) is not None


def test_an_ome_zarr_of_colours_with_a_pixel_size_is_a_slide_and_a_spatialdata_is_not(tmp_path):
    """The folder is taken by this plugin; the store of which it is an element is left to the reader of spots."""
    store = zarr.open_group(str(tmp_path / "store.zarr"), mode="w", zarr_format=2)
    for name, channels in (("images/he.zarr", 3), ("images/dapi.zarr", 1)):
        group = store.create_group(name)
        group.create_array("0", data=np.full((channels, 300, 400), 200, np.uint8), chunks=(1, 256, 256))
        axes = [{"name": "c"}, *({"name": a, "unit": "micrometer"} for a in "yx")]
        scale = {"coordinateTransformations": [{"type": "scale", "scale": [1, 0.5, 0.5]}]}
        group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0", **scale}]}]
    path = str(tmp_path / "store.zarr/images/he.zarr")
    ((data, keywords, kind),) = get_reader(path)(path)
    assert (data[0].shape, keywords["scale"], keywords["name"], kind) == ((300, 400, 3), (0.5, 0.5), "he", "image")
    for other in ("store.zarr", "store.zarr/images", "store.zarr/images/dapi.zarr"):
        assert get_reader(str(tmp_path / other)) is None
        assert not is_slide_path(tmp_path / other)
    assert is_slide_path(Path(path))
    series = zarr.open_group(str(tmp_path / "b.zarr"), mode="w", zarr_format=2)
    series.attrs["bioformats2raw.layout"] = 3
    shutil.copytree(path, tmp_path / "b.zarr/0")
    ((data, keywords, _),) = get_reader(str(tmp_path / "b.zarr"))(str(tmp_path / "b.zarr"))
    assert (data[0].shape, keywords["name"]) == ((300, 400, 3), "b")


def test_a_zip_file_of_an_ome_zarr_is_a_slide_if_it_is_one(tmp_path):
    files = {"a.ozx": write(tmp_path / "a.zarr", "0.5"), "b.zarr.zip": write(tmp_path / "b.zarr", unit=None)}
    for name, folder in files.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                archive.write(file, file.relative_to(folder).as_posix())
    [(levels, keywords, kind)] = get_reader(str(tmp_path / "a.ozx"))(str(tmp_path / "a.ozx"))
    assert (kind, keywords["scale"]) == ("image", (0.25, 0.5))
    np.testing.assert_array_equal(levels[0][100:130, 200:240].compute(), IMAGE[100:130, 200:240])
    assert get_reader(str(tmp_path / "b.zarr.zip")) is None  # no pixel size: for other readers
    assert get_reader("http://127.0.0.1:9/a.zarr") is None  # nobody there
    (tmp_path / "c.zip").write_bytes(b"PK")
    assert get_reader(str(tmp_path / "c.zip")) is None


def test_the_case_of_three_planes():
    assert get_reader(str(case("18-ome-tiff-of-three-planes/slide.ome.tiff"))) is not None


def test_missing_file_is_declined_and_mixed_lists_too(slide_path, tmp_path):
    assert get_reader(str(tmp_path / "gone.tif")) is None
    assert get_reader([str(slide_path), str(tmp_path / "cells.csv")]) is None


def test_slide_without_pixel_size_opens_in_pixels_and_says_so(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("napari_cpnn.ui.layers.reader.warn", said.append)
    path = write_slide(tmp_path / "bare.tif", tissue_image(), mpp=None)
    ((_, keywords, _),) = get_reader(str(path))(str(path))
    assert "scale" not in keywords
    assert "bare" in said[0]
    assert "pixel" in said[0]


def test_truncated_slide_is_an_error_of_one_sentence(slide_path):
    slide_path.write_bytes(slide_path.read_bytes()[:5000])
    with pytest.raises(CpnnError, match=r"section\.tif"):
        get_reader("broken.svs")(str(slide_path))


def test_aperio_slide(shared_data, make_napari_viewer):
    path = str(shared_data / "wsi-samples" / "aperio-cmu" / "CMU-1-Small-Region.svs")
    viewer = make_napari_viewer()
    ((data, keywords, _),) = get_reader(path)(path)
    layer = viewer.add_image(data, **keywords)
    assert layer.multiscale
    assert tuple(layer.scale) == pytest.approx((0.499, 0.499))
    # napari's extent is that of the pixel centres
    expected = [[0.499 / 2, 0.499 / 2], [(2967 - 0.5) * 0.499, (2220 - 0.5) * 0.499]]
    assert np.allclose(layer.extent.world, expected)
    assert np.asarray(data[0][1000:1010, 1000:1010]).std() > 0
