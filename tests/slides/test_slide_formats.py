"""Formats read by the packages of the extra ``formats``: by these, where they are installed, and by stand-ins."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

import napari_cpnn as nc
from czi_files import JPEG_XR, pyramid_of, write_czi
from napari_cpnn.errors import CpnnWarning, SlideError
from napari_cpnn.slides import open_slide
from napari_cpnn.slides.backends import open_source
from slide_files import picture, whole

PACKAGES = Path(__file__).resolve().parents[1] / "slide_packages"


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules with the interfaces of slideio and pyisyntax, also for child processes."""
    for name in ("slideio", "isyntax"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(PACKAGES))
    yield
    for name in ("slideio", "isyntax"):
        sys.modules.pop(name, None)


@pytest.fixture
def slideio():
    return pytest.importorskip("slideio", reason="slideio is not installed (extra formats)")


def scene(pixels: np.ndarray, channels: list[str], **facts: object) -> tuple[np.ndarray, dict]:
    """A scene of one or several planes, as SlideIO stores its samples."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    usual = {"name": "Image", "channels": channels, "compression": "Jpeg", "resolution": [0.25e-6, 0.5e-6]}
    return pixels[None] if pixels.ndim == 3 else pixels, usual | facts


def write(path: Path, *scenes: tuple[np.ndarray, dict]) -> Path:
    arrays = {str(i): pixels for i, (pixels, _) in enumerate(scenes)}
    with path.open("wb") as file:
        np.savez(file, facts=json.dumps([facts for _, facts in scenes]), **arrays)
    return path


@pytest.mark.usefixtures("stand_ins")
def test_vsi_is_the_slide_not_its_label(tmp_path: Path):
    colours, label = picture(300, 420), picture(700, 700, seed=1)
    path = write(
        tmp_path / "a.vsi",
        scene(label, ["R", "G", "B"], name="Label"),
        scene(picture(80, 90), ["R", "G", "B"], name="Overview_1"),
        scene(colours, ["R", "G", "B"], name="40x_BF_macrophages"),
    )
    slide = open_slide(path)
    assert (slide.backend, slide.mpp) == ("slideio", (0.5, 0.25))
    np.testing.assert_array_equal(whole(slide), colours)
    np.testing.assert_array_equal(whole(slide, 1), colours[::2, ::2])
    np.testing.assert_array_equal(whole(pickle.loads(pickle.dumps(slide))), colours)
    with ThreadPoolExecutor(4) as pool:
        boxes = list(pool.map(lambda x: slide.read_region(30, x, 50, 40), range(0, 380, 20)))
    for x, box in zip(range(0, 380, 20), boxes, strict=True):
        np.testing.assert_array_equal(box, colours[30:80, x : x + 40])


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    ("name", "channels", "stored", "rgb"),
    [
        ("a.czi", ["TL:1", "TL:2", "TL:3"], "bgr", True),
        ("a.czi", ["DAPI", "FITC", "Cy3"], "rgb", False),
        ("a.zvi", ["blue", "green", "red"], "bgr", True),
        ("a.vsi", ["", "", ""], "rgb", True),
    ],
)
def test_colours_are_red_green_and_blue(tmp_path: Path, name: str, channels: list[str], stored: str, rgb: bool):
    colours = picture(120, 160)
    pixels = colours[..., ::-1] if stored == "bgr" else colours
    _, source = open_source(write(tmp_path / name, scene(pixels, channels)), "slideio")
    assert source.info.rgb is rgb
    np.testing.assert_array_equal(source.read(0, 0, 0, 120, 160), colours)


@pytest.mark.usefixtures("stand_ins")
def test_colours_of_unknown_order_are_refused(tmp_path: Path):
    colours = picture(120, 160)
    raw = write(tmp_path / "raw.vsi", scene(colours, ["", "", ""], compression="Uncompressed"))
    with pytest.raises(SlideError, match=r"3 channels of uint8 \(Uncompressed\) are not RGB in JPEG"):
        open_slide(raw)
    flat = np.zeros((2000, 1500, 3), np.uint8)
    packed = tmp_path / "packed.zvi"
    with packed.open("wb") as file:  # smaller than its pixels, as with JPEG
        arrays, facts = scene(flat, ["blue", "green", "red"])
        np.savez_compressed(file, facts=json.dumps([facts]), **{"0": arrays})
    with pytest.raises(SlideError, match="compressed, and their order is unknown"):
        open_slide(packed)
    with pytest.raises(SlideError, match="alpha"):
        open_slide(write(tmp_path / "four.czi", scene(np.dstack([colours] * 2)[..., :4], [f"TL:{i}" for i in "1234"])))


@pytest.mark.usefixtures("stand_ins")
def test_the_largest_part_and_the_middle_plane_are_shown(tmp_path: Path):
    planes = np.stack([picture(100, 130, seed=n)[..., 0].astype(np.uint16) * 9 for n in range(5)])[..., None]
    titled = scene(planes, ["y"], resolution=[0, 0], name="overview of the liver")
    path = write(tmp_path / "a.zvi", scene(picture(40, 50)[..., 0], ["x"]), titled)
    with pytest.warns(CpnnWarning, match=r"holds 2 scanned parts; only the largest is opened \(130 x 100 px\)"):
        slide = open_slide(path)
    assert (slide.dtype, slide.mpp) == (np.uint16, None)
    np.testing.assert_array_equal(whole(slide), planes[2, ..., 0])


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", ["a.vsi", "a.zvi", "a.isyntax"])
def test_damage_is_one_sentence(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"abort" * 99)
    with pytest.raises(SlideError, match=r"reading its headers ended the process.*damaged\.$"):
        open_slide(path)  # in a child
    path.write_bytes(b"nothing of this kind" * 99)
    with pytest.raises(SlideError) as error:
        open_slide(path)
    assert "/build" not in str(error.value)
    if name != "a.isyntax":
        write(path, scene(picture(60, 60), ["blue", "green", "red"], fails=True))
        slide = open_slide(path)
        with pytest.raises(SlideError, match=r"row 3, column 5 \(Tile is damaged\); the file may be damaged"):
            slide.read_region(3, 5, 10, 10)


@pytest.mark.usefixtures("stand_ins")
def test_isyntax(tmp_path: Path):
    rgba = np.dstack([picture(256, 320), np.full((256, 320), 255, np.uint8)])
    rgba[:64, :64] = 0  # nothing was scanned there
    path = tmp_path / "a.isyntax"
    with path.open("wb") as file:
        np.savez(file, pixels=rgba)
    slide = open_slide(path)
    expected = rgba[..., :3].copy()
    expected[:64, :64] = 255
    assert (slide.backend, slide.mpp, slide.level_shapes) == (
        "pyisyntax",
        (0.26, 0.25),
        [(256, 320), (128, 160), (64, 80)],
    )
    np.testing.assert_array_equal(whole(slide), expected)
    np.testing.assert_array_equal(slide.read_region(20, 30, 40, 50, level=1), expected[::2, ::2][20:60, 30:80])
    np.testing.assert_array_equal(whole(pickle.loads(pickle.dumps(slide))), expected)
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read_region(0, 0, 9, 9)


@pytest.mark.parametrize("name", ["a.vsi", "a.zvi", "a.isyntax", "a.czi"])
def test_without_the_packages_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setitem(sys.modules, "slideio", None)
    monkeypatch.setitem(sys.modules, "isyntax", None)
    path = tmp_path / name
    if name == "a.vsi":  # a TIFF of the label
        tifffile.imwrite(tmp_path / "a.tif", picture(64, 64), photometric="rgb")
        (tmp_path / "a.tif").rename(path)
    else:
        path.write_bytes(b"0123456789" * 99)
    with pytest.raises(SlideError, match=r"pip install 'napari-cpnn\[formats\]'"):
        open_slide(path)


def test_slideio_reads_what_openslide_reads(slideio, shared_data: Path):
    """SlideIO is asked last; its pixels of an SVS, and of four levels of an NDPI, are those of OpenSlide."""
    ndpi = next((shared_data / "wsi-samples/hamamatsu-fluo").glob("*.ndpi"))
    for path in (shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs", ndpi):
        _, source = open_source(path, "slideio")
        _, other = open_source(path, "OpenSlide")
        assert source.info.pixel_sizes[0][1] == pytest.approx(other.info.pixel_sizes[0][1], rel=1e-4)
        for level, (height, width) in enumerate(source.info.level_shapes):
            assert (height, width) == other.info.level_shapes[level]
            box = level, height // 3, width // 4, min(height // 2, 300), min(width // 2, 400)
            np.testing.assert_array_equal(source.read(*box), other.read(*box))


def test_czi_of_jpeg_xr(slideio, tmp_path: Path):
    colours = picture(600, 760)
    slide = open_slide(write_czi(tmp_path / "a.czi", pyramid_of(colours), compression=JPEG_XR))
    assert (slide.backend, slide.mpp, slide.level_shapes) == ("slideio", (0.25, 0.25), [(600, 760), (300, 380)])
    np.testing.assert_array_equal(whole(slide), colours)
    np.testing.assert_array_equal(whole(slide, 1), colours[::2, ::2])
    assert slide.properties["objective power"] == "40"
    assert "Doe" not in str(slide.properties)  # the patient and the operator, in the file


def test_gaps_between_tiles_of_czi_are_white(slideio, tmp_path: Path):
    colours = picture(200, 200)
    tiles = [(1000, 500, 1, colours), (1300, 650, 1, colours)]
    slide = open_slide(write_czi(tmp_path / "a.czi", tiles, compression=JPEG_XR))
    expected = np.full((350, 500, 3), 255, np.uint8)
    expected[:200, :200] = expected[150:, 300:] = colours
    np.testing.assert_array_equal(whole(slide), expected)


def test_czi_is_of_openslide_first(tmp_path: Path):
    colours = picture(600, 760)
    path = write_czi(tmp_path / "a.czi", pyramid_of(colours))
    with openslide.OpenSlide(path) as by_itself:
        rgb = np.asarray(by_itself.read_region((0, 0), 0, (760, 600)).convert("RGB"))
    np.testing.assert_array_equal(rgb, colours)  # the order of the colours in our file
    slide = open_slide(path)
    assert slide.backend == "OpenSlide"
    np.testing.assert_array_equal(whole(slide), colours)


def test_a_damaged_czi_is_refused(slideio, tmp_path: Path):
    path = write_czi(tmp_path / "a.czi", pyramid_of(picture(600, 760)), compression=JPEG_XR)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(SlideError, match="cannot be opened as a slide") as error:
        nc.open_slide(path)
    assert ".cpp" not in str(error.value)


def test_a_false_isyntax_is_refused(tmp_path: Path):
    pytest.importorskip("isyntax", reason="pyisyntax is not installed (extra formats)")
    path = tmp_path / "a.isyntax"
    path.write_bytes(b'<DataObject ObjectType="DPUfsImport">' + b"?" * 9999)
    with pytest.raises(SlideError):
        open_slide(path)
