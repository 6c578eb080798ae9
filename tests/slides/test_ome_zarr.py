"""OME-Zarr of all versions and axes as slides, against the arrays that were written and against other writers."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import napari_cpnn as nc
from napari_cpnn.errors import SlideError
from napari_cpnn.slides import Slide, copy_identity
from napari_cpnn.slides.backends.ome_zarr import OmeZarrSource
from napari_cpnn.slides.backends.zarr_places import METADATA, FolderPlace
from napari_cpnn.slides.identity import _files_of
from ome_zarr_files import IMAGE, LEVELS, RNG, write


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "yxc", "tczyx", "xcy"])
def test_each_box_of_each_level(tmp_path, version, axes):
    with nc.open_slide(write(tmp_path / "a.ome.zarr", version, axes)) as slide:
        assert (slide.name, slide.backend, slide.is_rgb) == ("a", "zarr", True)
        assert slide.mpp == (0.25, 0.5)
        assert slide.level_shapes == [level.shape[:2] for level in LEVELS]
        assert slide.downsamples == [(1, 1), (2, 2), (4, 4)]
        assert slide.properties["format"] == f"OME-Zarr {version}"
        for n, level in enumerate(LEVELS):
            np.testing.assert_array_equal(slide.read_region(0, 0, *level.shape[:2], n), level)
            for _ in range(10):
                y, x = RNG.integers(0, np.asarray(level.shape[:2]) - 1)
                h, w = RNG.integers(1, 300, 2)
                box = level[y : y + h, x : x + w]
                np.testing.assert_array_equal(
                    slide.read_region(int(y), int(x), int(h), int(w), n)[: box.shape[0], : box.shape[1]], box
                )


def test_shards_of_small_chunks(tmp_path):
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="w", zarr_format=3)
    group.create_array("0", data=IMAGE.transpose(2, 0, 1), chunks=(1, 50, 50), shards=(3, 400, 400))
    image = {"multiscales": [{"axes": [{"name": a} for a in "cyx"], "datasets": [{"path": "0"}]}]}
    group.attrs["ome"] = {"version": "0.5", **image}
    with nc.open_slide(tmp_path / "s.zarr", mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.read_region(33, 41, 600, 700), IMAGE[33:633, 41:741])


@pytest.mark.parametrize(
    ("unit", "mpp"),
    [
        ("micrometer", (0.25, 0.5)),
        ("millimeter", (250, 500)),
        ("meter", (250_000, 500_000)),
        ("angstrom", (0.25e-4, 0.5e-4)),
        (None, None),
        ("parsec", None),
    ],
)
def test_units(tmp_path, unit, mpp):
    info = OmeZarrSource(FolderPlace(write(tmp_path / "a.zarr", unit=unit))).info
    assert info.pixel_sizes == (() if mpp is None else (("OME-Zarr", mpp),))


def test_scales_of_the_whole_image_multiply_those_of_its_levels(tmp_path):
    path = write(tmp_path / "a.zarr")
    steps = [{"type": "scale", "scale": [1, 2, 2]}]
    attributes(path, lambda f: f["multiscales"][0].update(coordinateTransformations=steps))
    with nc.open_slide(path) as slide:
        assert slide.mpp == (0.5, 1.0)


def test_the_finest_level_is_shown_though_it_is_listed_last(tmp_path):
    path = write(tmp_path / "a.zarr")
    attributes(path, lambda f: f["multiscales"][0]["datasets"].reverse())
    with nc.open_slide(path) as slide:
        assert slide.level_shapes == [level.shape[:2] for level in LEVELS]
        assert slide.mpp == (0.25, 0.5)
        np.testing.assert_array_equal(slide.read_region(0, 0, 700, 900), IMAGE)


def test_a_level_points_to_its_image(tmp_path):
    path = write(tmp_path / "a.zarr")
    with pytest.raises(SlideError, match=r"0 is a Zarr folder .* part of .*a\.zarr; choose that folder"):
        nc.open_slide(path / "0")


def test_what_other_programs_write(tmp_path):
    """The same pixels by ome-zarr-py, and by SpatialData as one element of a store."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries about each other
        import spatialdata
        from ome_zarr.io import parse_url
        from ome_zarr.writer import write_multiscale

        group = zarr.open_group(parse_url(str(tmp_path / "o.ome.zarr"), mode="w").store, mode="a")
        steps = [[{"type": "scale", "scale": [1, 0.25 * 2**i, 0.25 * 2**i]}] for i in range(3)]
        axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "micrometer"} for a in "yx")]
        levels = [level.transpose(2, 0, 1) for level in LEVELS]
        write_multiscale(levels, group, axes=axes, coordinate_transformations=steps)
        picture = spatialdata.models.Image2DModel.parse(levels[0], dims=("c", "y", "x"), scale_factors=[2])
        spatialdata.SpatialData(images={"he": picture}).write(tmp_path / "store.zarr")
    for path, mpp in ((tmp_path / "o.ome.zarr", (0.25, 0.25)), (tmp_path / "store.zarr", None)):
        with nc.open_slide(path) as slide:
            assert slide.mpp == mpp
            assert slide.is_rgb
            np.testing.assert_array_equal(slide.read_region(100, 200, 300, 400), IMAGE[100:400, 200:600])


def test_series_of_bioformats2raw(tmp_path):
    root = zarr.open_group(str(tmp_path / "b.zarr"), mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    write(tmp_path / "b.zarr" / "0")
    with nc.open_slide(tmp_path / "b.zarr") as slide:
        assert (slide.name, slide.mpp) == ("b", (0.25, 0.5))
    with nc.open_slide(tmp_path / "b.zarr" / "0") as slide:
        assert slide.name == "b"


def test_alpha_lies_over_white_and_grey_is_no_slide(tmp_path):
    clear = np.dstack([IMAGE, np.zeros(IMAGE.shape[:2], np.uint8)])
    with nc.open_slide(write(tmp_path / "a.zarr", levels=[clear])) as slide:
        assert slide.is_rgb
        assert (slide.read_region(0, 0, 100, 100) == 255).all()
    with nc.open_slide(write(tmp_path / "g.zarr", levels=[IMAGE[..., 0]])) as slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, 100, 100), IMAGE[:100, :100, 0])
        with pytest.raises(SlideError, match="is grey; only RGB slides"):
            slide.require_mappable()


@pytest.mark.parametrize(
    ("colours", "rgb"),
    [(["FF0000", "00FF00", "0000FF"], True), (["0000FF", "00FF00", "FF0000"], False), (["", "", ""], True)],
)
def test_three_channels_of_fluorescence_are_no_slide(tmp_path, colours, rgb):
    facts = {"omero": {"channels": [{"color": c} for c in colours]}}
    with nc.open_slide(write(tmp_path / "a.zarr", facts=facts)) as slide:
        assert slide.is_rgb is rgb


def test_four_channels_of_fluorescence_are_shown_without_alpha(tmp_path):
    four = np.dstack([IMAGE, IMAGE[..., 0]])
    facts = {"omero": {"channels": [{"color": c} for c in ("0000FF", "00FF00", "FF0000", "FFFFFF")]}}
    with nc.open_slide(write(tmp_path / "a.zarr", levels=[four], facts=facts)) as slide:
        assert (slide.is_rgb, slide.shape) == (False, (700, 900, 4))
        np.testing.assert_array_equal(slide.read_region(0, 0, 300, 300), four[:300, :300])


def test_a_level_that_is_deleted_is_not_black(tmp_path):
    """Zarr reads the fill value where files are missing, also where all of them are."""
    path = write(tmp_path / "a.zarr")
    with nc.open_slide(path) as slide:
        shutil.rmtree(path / "0")
        with pytest.raises(SlideError, match="0 has been moved or deleted since the slide was opened"):
            slide.read_region(0, 0, 50, 50)
        np.testing.assert_array_equal(slide.read_region(0, 0, 50, 50, 1), LEVELS[1][:50, :50])


def test_labels_of_a_segmentation_leave_the_identity(tmp_path):
    path = write(tmp_path / "a.zarr")
    with nc.open_slide(path) as slide:
        before = slide.identity, copy_identity(path)
        write(path / "labels" / "cells", axes="yx", levels=[IMAGE[..., 0]])
    with nc.open_slide(path) as slide:
        assert (slide.identity, copy_identity(path)) == before


def test_only_the_first_chunks_are_looked_at_in_order(tmp_path):
    """The identity of a slide with a level of very many chunks is known at once, and is the same on each disk."""
    path = write(tmp_path / "a.zarr", levels=[IMAGE])
    want = sorted(f for f in (path / "0").rglob("*") if f.is_file() and f.name not in METADATA)
    found = [f for f in _files_of(path) if f.name not in METADATA]
    assert found == want[:64]
    for other in range(100):
        (path / "0" / f"9.{other}").write_bytes(b"x")
    assert len([f for f in _files_of(path) if f.name not in METADATA]) == 64


def test_it_is_pickled_copied_and_known_again(tmp_path):
    path = write(tmp_path / "a.zarr")
    with nc.open_slide(path) as slide:
        again: Slide = pickle.loads(pickle.dumps(slide))
        np.testing.assert_array_equal(again.read_region(5, 5, 50, 50), IMAGE[5:55, 5:55])
        before = slide.identity
        shutil.copytree(path, tmp_path / "copy.zarr")
        assert copy_identity(tmp_path / "copy.zarr") == copy_identity(path)
    write(path, levels=[255 - level for level in LEVELS])
    with nc.open_slide(path) as slide:
        assert slide.identity != before
    assert copy_identity(tmp_path / "copy.zarr") != copy_identity(path)


@pytest.mark.filterwarnings("ignore:.*of this tissue is unlike:napari_cpnn.errors.CpnnWarning")
def test_it_is_mapped(tmp_path):
    """A map of an OME-Zarr is that of the TIFF with its pixels."""
    source = nc.open_slide(nc.sample_folder() / "slide.tiff")
    picture = source.read_region(4000, 4000, 1200, 1200)
    model = nc.load_model(nc.sample_folder() / "model.safetensors")
    with nc.open_slide(write(tmp_path / "a.zarr", levels=[picture]), mpp=source.mpp) as slide:
        ours = nc.predict_map(slide, model, settings=nc.MappingSettings(cache=False))
    plain = nc.predict_map(nc.Slide.from_arrays([picture], source.mpp), model, settings=nc.MappingSettings(cache=False))
    np.testing.assert_array_equal(ours.weights, plain.weights)


def attributes(path: Path, change: Any) -> None:
    facts = json.loads((path / ".zattrs").read_text())
    change(facts)
    (path / ".zattrs").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("multiscales"), "without an OME-Zarr image"),
        (lambda f: f.update(multiscales=[]), "without an OME-Zarr image"),
        (lambda f: f["multiscales"][0].update(datasets=[]), "has no levels"),
        (lambda f: f["multiscales"][0]["datasets"][0].update(path="../../etc"), "outside the folder"),
        (lambda f: f["multiscales"][0]["datasets"][0].update(path="/etc"), "outside the folder"),
        (lambda f: f["multiscales"][0]["datasets"][0].update(path="9"), "lacks the level '9'"),
        (lambda f: f["multiscales"][0].update(axes=[{"name": a} for a in "cab"]), "no axes y and x"),
        (lambda f: f["multiscales"][0].update(axes=[{"name": a} for a in "zyx"]), "has 3 planes; a slide has one"),
        (lambda f: (f.pop("multiscales"), f.update(plate={})), "is a plate of many images"),
    ],
)
def test_damaged_metadata_are_one_sentence(tmp_path, change, message):
    path = write(tmp_path / "a.zarr")
    attributes(path, change)
    with pytest.raises(SlideError, match=message):
        nc.open_slide(path)


def test_hostile_and_damaged_arrays(tmp_path):
    path = write(tmp_path / "a.zarr")
    facts = json.loads((path / "0" / ".zarray").read_text())
    (path / "0" / ".zarray").write_text(json.dumps(facts | {"compressor": {"id": "pickle"}}))
    with pytest.raises(SlideError, match="'pickle', which is not allowed"):
        nc.open_slide(path)
    (path / "0" / ".zarray").write_text(json.dumps(facts))
    chunk = max((p for p in (path / "0").rglob("*") if p.is_file() and p.name != ".zarray"), key=lambda p: p.name)
    chunk.write_bytes(b"no chunk")
    with nc.open_slide(path) as slide:
        with pytest.raises(SlideError, match="cannot be read at row"):
            slide.read_region(0, 0, *slide.shape[:2])
        np.testing.assert_array_equal(slide.read_region(0, 0, 50, 50), IMAGE[:50, :50])


def test_of_several_images_one_is_chosen(tmp_path):
    zarr.open_group(str(tmp_path / "s.zarr"), mode="w", zarr_format=2)
    zarr.open_group(str(tmp_path / "s.zarr" / "images"), mode="w", zarr_format=2)
    for name in ("he", "dapi"):
        write(tmp_path / "s.zarr" / "images" / name)
    with pytest.raises(SlideError, match=r"holds 2 images \(dapi, he\); choose one"):
        nc.open_slide(tmp_path / "s.zarr")
    with nc.open_slide(tmp_path / "s.zarr" / "images" / "he") as slide:
        assert slide.name == "he"
