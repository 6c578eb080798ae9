"""What the samples of a pixel mean: alpha or not, floats, planes that are colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cases import case
from napari_cpnn.errors import SlideError
from napari_cpnn.slides import open_slide
from slide_files import picture, whole, write_tiff

RED, GREEN, BLUE = -16776961, 16711935, 65535


@pytest.mark.parametrize("layout", ["tiles", "strips", "planar tiles", "planar strips"])
@pytest.mark.parametrize(
    ("extra", "n_extra"), [("unspecified", 1), ("unspecified", 2), ("assocalpha", 1), ("unassalpha", 1)]
)
def test_extra_samples_decide(tmp_path: Path, layout: str, extra: str, n_extra: int):
    straight, alpha = picture(130, 110).astype(int), picture(130, 110, 5)[..., :1].astype(int)
    on_white = straight * alpha / 255 + 255 - alpha
    colours, expected = {
        "unspecified": (straight, straight),
        "assocalpha": (np.round(straight * alpha / 255), on_white),
        "unassalpha": (straight, on_white),
    }[extra]
    stored = np.concatenate([colours, *[alpha] * n_extra], axis=-1).astype(np.uint8)
    options: dict[str, Any] = {"tile": (64, 64)} if "tiles" in layout else {"rowsperstrip": 50}
    if "planar" in layout:
        stored, options["planarconfig"] = np.moveaxis(stored, -1, 0), "separate"
    path = write_tiff(tmp_path / "a.tif", stored, extrasamples=[extra] * n_extra, **options)
    slide = open_slide(path, mpp=0.5)
    assert slide.shape == (130, 110, 3)
    slide.require_mappable()
    assert np.abs(whole(slide) - expected).max() <= 0.51


def test_alpha_behind_a_sample_that_is_none(tmp_path: Path):
    stored = np.concatenate([picture(64, 64), picture(64, 64, 5)], axis=-1)[..., :5]
    path = write_tiff(tmp_path / "a.tif", stored, tile=(64, 64), extrasamples=["unspecified", "unassalpha"])
    alpha = stored[..., 4:].astype(int)
    expected = stored[..., :3] * alpha / 255 + 255 - alpha
    assert np.abs(whole(open_slide(path)) - expected).max() <= 0.51


def test_grey_with_alpha_is_grey(tmp_path: Path):
    stored = picture(64, 64)[..., :2]
    path = write_tiff(
        tmp_path / "a.tif", stored, tile=(64, 64), photometric="minisblack", extrasamples=["unassalpha"],
        planarconfig="contig",
    )  # fmt: skip
    slide = open_slide(path)
    assert slide.shape == (64, 64, 1)
    alpha = stored[..., 1].astype(int)
    assert np.abs(whole(slide) - (stored[..., 0] * alpha / 255 + 255 - alpha)).max() <= 0.51


def test_the_fourth_sample_of_the_case():
    path = case("11-fourth-sample-that-is-not-alpha/x.tif")
    np.testing.assert_array_equal(whole(open_slide(path)), tifffile.imread(path)[..., :3])


@pytest.mark.parametrize("tile", [None, (64, 64)])
@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int32", "float16", "float32", "float64", "uint16"])
def test_other_depths_open_and_say_that_they_are_not_mapped(tmp_path: Path, dtype: str, tile: tuple[int, int] | None):
    unit = picture(100, 90) / 255
    stored = unit.astype(dtype) if "float" in dtype else (unit * np.iinfo(dtype).max).astype(dtype)
    options = {} if tile is None else {"tile": tile}
    grey = open_slide(write_tiff(tmp_path / "g.tif", stored[..., 0], photometric="minisblack", **options), mpp=0.5)
    rgb = open_slide(write_tiff(tmp_path / "c.tif", stored, **options), mpp=0.5)
    np.testing.assert_array_equal(whole(grey), stored[..., 0])
    np.testing.assert_array_equal(whole(rgb), stored)
    for slide in (grey, rgb):
        assert slide.thumbnail(100).shape == (100, 90, 3)
        assert slide.thumbnail(100).max() >= 254
    with pytest.raises(SlideError, match="is grey; only RGB"):
        grey.require_mappable()
    with pytest.raises(SlideError, match=r"has (8|16|32|64) bits per sample( of another kind)?; only 8-bit RGB"):
        rgb.require_mappable()


def test_floats_that_are_no_numbers_are_black_in_a_thumbnail(tmp_path: Path):
    stored = picture(64, 64)[..., 0].astype(np.float32)
    stored[:32] = np.nan
    slide = open_slide(write_tiff(tmp_path / "a.tif", stored, photometric="minisblack"))
    assert (slide.thumbnail(64)[:32] == 0).all()
    assert slide.thumbnail(64)[32:].max() == 255


def test_the_floats_of_the_case():
    folder = case("19-float-tiffs")
    for name, sentence in (("grey32.tif", "is grey; only RGB"), ("rgb32.tif", "has 32 bits per sample")):
        slide = open_slide(folder / name, mpp=0.5)
        np.testing.assert_array_equal(whole(slide), tifffile.imread(folder / name))
        with pytest.raises(SlideError, match=sentence):
            slide.require_mappable()


@pytest.mark.parametrize(
    ("mode", "pixels"),
    [("F", picture(40, 30)[..., 0].astype(np.float32)), ("I", picture(40, 30)[..., 0].astype(np.int32) * 70_000)],
)
def test_grey_of_pillow_keeps_its_values(
    tmp_path: Path, mode: str, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    from napari_cpnn.slides.backends import plain

    Image.fromarray(pixels).save(tmp_path / "a.tif")
    source = plain.PlainBackend().open(tmp_path / "a.tif")
    assert source.info.channels == 1
    assert not source.info.rgb
    np.testing.assert_array_equal(source.read(0, 0, 0, 40, 30), pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_colour_that_is_transparent_is_white(tmp_path: Path, mode: str):
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = 80
    stored = Image.fromarray(pixels).convert(mode)
    stored.save(tmp_path / "a.png", transparency=stored.getpixel((0, 0)))
    image = Image.open(tmp_path / "a.png").convert("RGBA")
    see_through = np.asarray(image)[..., 3] == 0
    assert see_through.any()
    assert (whole(open_slide(tmp_path / "a.png"))[see_through] == 255).all()


def ome_planes(path: Path, planes: np.ndarray, channels: list[dict[str, Any]]) -> Path:
    """Two levels; the elements of the channels are put in place of those that the library writes."""
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(planes, tile=(64, 64), photometric="minisblack", metadata={"axes": "CYX"}, subifds=1)
        tif.write(planes[:, ::2, ::2], tile=(64, 64), photometric="minisblack", subfiletype=1)
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
    assert xml is not None
    head, tail = xml.split("<Channel", 1)
    tail = (
        tail[tail.rindex("</Channel>") + len("</Channel>") :] if "</Channel>" in tail else tail[tail.index("/>") + 2 :]
    )
    tags = ("".join(f' {key}="{value}"' for key, value in channel.items()) for channel in channels)
    elements = "".join(f'<Channel ID="Channel:0:{i}" SamplesPerPixel="1"{tag}/>' for i, tag in enumerate(tags))
    tifffile.tiffcomment(path, (head + elements + tail).encode())
    return path


@pytest.mark.parametrize(
    ("channels", "order"),
    [
        ([{"Color": RED}, {"Color": GREEN}, {"Color": BLUE}], (0, 1, 2)),
        ([{"Color": RED % 2**32}, {"Color": GREEN}, {"Color": BLUE}], (0, 1, 2)),
        ([{"Name": "Red"}, {"Name": "Green"}, {"Name": "Blue"}], (0, 1, 2)),
        ([{"Name": "B"}, {"Name": "G"}, {"Name": "R"}], (2, 1, 0)),
        ([{"Color": BLUE}, {"Color": GREEN}, {"Color": RED}], None),
        ([{"Name": "DAPI", "Color": RED}, {"Color": GREEN}, {"Color": BLUE}], None),
        ([{"Color": RED, "EmissionWavelength": 600}, {"Color": GREEN}, {"Color": BLUE}], None),
        ([{"Color": RED, "IlluminationType": "Epifluorescence"}, {"Color": GREEN}, {"Color": BLUE}], None),
        ([{}, {}, {}], None),
    ],
)
def test_three_planes_of_ome(tmp_path: Path, channels: list[dict[str, Any]], order: tuple[int, ...] | None):
    pixels = picture(300, 200)
    path = ome_planes(tmp_path / "a.ome.tif", np.moveaxis(pixels, -1, 0), channels)
    slide = open_slide(path, mpp=0.5)
    assert slide.level_shapes == [(300, 200), (150, 100)]
    assert slide.is_rgb is (order is not None)
    expected = pixels if order is None else pixels[..., list(order)]
    np.testing.assert_array_equal(whole(slide), expected)
    np.testing.assert_array_equal(whole(slide, 1), expected[::2, ::2])
    if order is None:
        with pytest.raises(SlideError, match="is an image of 3 channels; only RGB"):
            slide.require_mappable()
    else:
        slide.require_mappable()


def test_the_planes_of_the_case():
    path = case("18-ome-tiff-of-three-planes/slide.ome.tiff")
    slide = open_slide(path)
    assert slide.require_mappable() == (0.499, 0.499)
    np.testing.assert_array_equal(whole(slide), np.moveaxis(tifffile.imread(path), 0, -1))
