"""TIFF in its many layouts: the pixels that come out are those that were written."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cpnn.errors import CpnnWarning, SlideError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.slides import PatchReader, open_slide
from napari_cpnn.slides.backends.tiff_tiles import FileReader
from napari_cpnn.slides.pyramid import true_levels
from slide_files import picture, whole, write_tiff

LAYOUTS: dict[str, dict[str, Any]] = {
    "tiled": {"tile": (64, 64)},
    "tiles wider than high": {"tile": (16, 128), "compression": "adobe_deflate"},
    "tiled, predictor": {"tile": (64, 64), "compression": "adobe_deflate", "predictor": True},
    "one strip": {},
    "strips": {"rowsperstrip": 13},
    "strips, lzw": {"rowsperstrip": 13, "compression": "lzw"},
    "planar tiles": {"tile": (64, 64), "planarconfig": "separate"},
    "planar strips": {"rowsperstrip": 50, "planarconfig": "separate"},
    "big tiff": {"tile": (64, 64), "bigtiff": True},
    "big endian": {"tile": (64, 64), "byteorder": ">"},
    "jpeg 2000": {"tile": (64, 64), "compression": "jpeg2000", "compressionargs": {"reversible": True}},
    "zstd": {"tile": (64, 64), "compression": "zstd"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str):
    options = dict(LAYOUTS[layout])
    pixels = picture(210, 170)
    stored = np.moveaxis(pixels, -1, 0) if options.get("planarconfig") == "separate" else pixels
    with open_slide(write_tiff(tmp_path / "a.tif", stored, **options)) as slide:
        assert slide.backend == "tifffile"
        assert slide.shape == (210, 170, 3)
        assert slide.is_rgb
        np.testing.assert_array_equal(whole(slide), pixels)
        np.testing.assert_array_equal(slide.read_region(57, 61, 77, 80), pixels[57:134, 61:141])


def test_rows_of_a_huge_uncompressed_strip_are_read_by_themselves(tmp_path: Path):
    pixels = picture(2000, 900)
    slide = open_slide(write_tiff(tmp_path / "a.tif", pixels))
    slide.read_region(1000, 0, 10, 900)
    tiles = slide._handles.pyramid().source._tiles
    assert tiles._cache._bytes < pixels.nbytes / 10
    np.testing.assert_array_equal(whole(slide), pixels)


@pytest.mark.parametrize(
    ("stored", "options", "shape", "dtype"),
    [
        (picture(90, 80)[..., 0], {"photometric": "minisblack"}, (90, 80, 1), np.uint8),
        (picture(90, 80).astype(np.uint16) * 257, {}, (90, 80, 3), np.uint16),
        (
            np.moveaxis(picture(90, 80, channels=4), -1, 0).astype(np.uint16),
            {"photometric": "minisblack"},
            (90, 80, 1),
            np.uint16,
        ),
    ],
)
def test_what_cannot_be_mapped_still_opens(
    tmp_path: Path, stored: np.ndarray, options: dict[str, Any], shape: tuple[int, int, int], dtype: type
):
    slide = open_slide(write_tiff(tmp_path / "a.tif", stored, tile=(64, 64), **options), mpp=0.5)
    assert slide.shape == shape
    assert slide.dtype == dtype
    expected = stored[0] if shape[2] == 1 and stored.ndim == 3 else stored
    np.testing.assert_array_equal(np.asarray(slide.levels[0]), expected)
    assert slide.thumbnail(50).shape == (50, 44, 3)
    with pytest.raises(SlideError, match=r"a.tif (is grey|has 16 bits per sample); only"):
        slide.require_mappable()


def test_channels_of_fluorescence(tmp_path: Path):
    stored = np.moveaxis(picture(90, 80, channels=5), -1, 0)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, stored, tile=(64, 64), photometric="minisblack", metadata={"axes": "CYX"})
    slide = open_slide(path, mpp=0.5)
    assert slide.name == "a"
    np.testing.assert_array_equal(np.asarray(slide.levels[0]), np.moveaxis(stored, 0, -1))
    with pytest.raises(SlideError, match=r"is an image of 5 channels; only RGB"):
        slide.require_mappable()


@pytest.mark.parametrize(("names", "rgb"), [(["Red", "Green", "Blue"], True), (["DAPI", "FITC", "Cy3"], False)])
def test_three_channels_are_rgb_when_they_say_so(tmp_path: Path, names: list[str], rgb: bool):
    stored = np.moveaxis(picture(90, 80), -1, 0)
    path = tmp_path / "a.ome.tif"
    meta = {"axes": "CYX", "Channel": {"Name": names}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, stored, tile=(64, 64), photometric="minisblack", metadata=meta)
    assert open_slide(path).is_rgb is rgb


def ome_xml(names: list[str], files: list[str], own: int) -> bytes:
    """OME-XML of one image, each channel of which is the first page of a file; ``own`` is the number of this file."""
    uuids = [f"urn:uuid:{number:08d}-0000-0000-0000-000000000000" for number in range(len(files))]
    data = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{file}">{uuids[c]}</UUID></TiffData>'
        for c, file in enumerate(files)
    )
    channels = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1" Name="{n}"/>' for c, n in enumerate(names))
    return (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuids[own]}"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="80" SizeY="90" SizeC="{len(names)}" '
        f'SizeZ="1" SizeT="1">{channels}{data}</Pixels></Image></OME>'
    ).encode()


def test_planes_in_several_files_are_refused(tmp_path: Path):
    """OpenSlide would show the plane of a file as a grey slide."""
    files = ["r.ome.tif", "g.ome.tif", "b.ome.tif"]
    for own, file in enumerate(files):
        text = ome_xml(["Red", "Green", "Blue"], files, own)
        write_tiff(
            tmp_path / file, picture(90, 80)[..., own], photometric="minisblack", tile=(64, 64), description=text
        )
    for file in files:
        with pytest.raises(SlideError, match=r"planes are stored in several files; join them in one OME-TIFF"):
            open_slide(tmp_path / file)
    (tmp_path / "b.ome.tif").unlink()
    with pytest.raises(SlideError, match="planes are stored in several files"):
        open_slide(tmp_path / "r.ome.tif")


def test_a_renamed_ome_tiff_is_read_from_itself(tmp_path: Path):
    """Its metadata have its former name, which another file may have by now."""
    text = ome_xml(["H"], ["old.ome.tif"], 0)
    for name, pixels in (("new.ome.tif", picture(90, 80)), ("old.ome.tif", picture(90, 80, seed=1))):
        write_tiff(tmp_path / name, pixels[..., 0], photometric="minisblack", tile=(64, 64), description=text)
    np.testing.assert_array_equal(whole(open_slide(tmp_path / "new.ome.tif")), picture(90, 80)[..., 0])
    (tmp_path / "old.ome.tif").unlink()
    np.testing.assert_array_equal(whole(open_slide(tmp_path / "new.ome.tif")), picture(90, 80)[..., 0])


@pytest.mark.parametrize("layout", ["pages", "samples"])
def test_red_green_and_blue_planes_are_a_slide(tmp_path: Path, layout: str):
    planes, path = np.moveaxis(picture(90, 80), -1, 0), tmp_path / "a.ome.tif"
    if layout == "samples":
        options: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate", "metadata": {"axes": "CYX"}}
    else:
        names = {"Name": ["Blue", "Red", "Green"]}
        options = {"photometric": "minisblack", "metadata": {"axes": "CYX", "Channel": names}}
        planes = planes[[2, 0, 1]]
    tifffile.imwrite(path, planes, tile=(64, 64), **options)
    slide = open_slide(path)
    assert slide.is_rgb
    np.testing.assert_array_equal(whole(slide), picture(90, 80))


def test_alpha_is_laid_over_white(tmp_path: Path):
    pixels = picture(64, 64, channels=4)
    path = write_tiff(tmp_path / "a.tif", pixels, tile=(64, 64), extrasamples=["unassalpha"])
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(whole(open_slide(path)) - expected).max() <= 0.51


def test_white_is_zero(tmp_path: Path):
    pixels = picture(64, 64)[..., 0]
    path = write_tiff(tmp_path / "a.tif", pixels, tile=(64, 64), photometric="miniswhite")
    np.testing.assert_array_equal(whole(open_slide(path)), 255 - pixels)


@pytest.mark.parametrize(
    "options", [{"photometric": "rgb"}, {"photometric": "ycbcr"}, {"photometric": "ycbcr", "subsampling": (2, 2)}]
)
def test_jpeg_colours_are_those_of_openslide(tmp_path: Path, options: dict[str, Any]):
    from openslide import OpenSlide

    path, pixels = tmp_path / "a.tif", picture(256, 256)
    args = {"compression": "jpeg", "compressionargs": {"level": 95}, "metadata": None}
    stored = pixels if options["photometric"] == "rgb" else np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    with tifffile.TiffWriter(path) as tif:
        tif.write(stored, tile=(128, 128), **args, **options)
    ours = whole(open_slide(path)).astype(int)
    theirs = np.asarray(OpenSlide(path).read_region((0, 0), 0, (256, 256)))[..., :3]
    assert np.abs(ours - theirs).max() <= 2
    assert np.abs(ours - pixels).mean() < 6


@pytest.mark.parametrize("orientation", range(9))
def test_pixels_count_as_they_are_stored(tmp_path: Path, orientation: int):
    """As OpenSlide shows JPEG tiles, whatever the tag says; 0 is no valid value and counts as upright."""
    from openslide import OpenSlide

    path, stored = tmp_path / "a.tif", picture(150, 100)
    write_tiff(path, stored, tile=(64, 64), extratags=[(274, "H", 1, orientation, True)], compression="jpeg")
    theirs = np.asarray(OpenSlide(path).read_region((0, 0), 0, (100, 150)))[..., :3]
    assert np.abs(theirs.astype(int) - stored).mean() < 6
    resolution = {"resolution": (20_000, 40_000), "resolutionunit": "CENTIMETER"}
    write_tiff(path, stored, tile=(64, 64), extratags=[(274, "H", 1, orientation, True)], **resolution)
    if orientation > 1:
        with pytest.warns(
            CpnnWarning, match=rf"\(orientation {orientation}\); it is shown as stored, like in OpenSlide"
        ):
            slide = open_slide(path)
    else:
        slide = open_slide(path)
    assert slide.mpp == pytest.approx((0.25, 0.5))
    np.testing.assert_array_equal(whole(slide), stored)


def pyramid_pages(pixels: np.ndarray, n: int) -> list[np.ndarray]:
    return [pixels[:: 2**i, :: 2**i] for i in range(n)]


def check_pyramid(path: Path, pages: list[np.ndarray]) -> None:
    slide = open_slide(path, mpp=0.5)
    assert slide.level_shapes == [p.shape[:2] for p in pages]
    assert slide.downsamples == [(2.0**i, 2.0**i) for i in range(len(pages))]
    for level, page in enumerate(pages):
        np.testing.assert_array_equal(whole(slide, level), page)


def test_pyramid_of_reduced_pages(tmp_path: Path):
    pages = pyramid_pages(picture(509, 401), 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for i, page in enumerate(pages):
            tif.write(page, tile=(64, 64), photometric="rgb", subfiletype=int(i > 0), metadata=None)
    check_pyramid(tmp_path / "a.tif", pages)


def test_pyramid_of_sub_ifds(tmp_path: Path):
    pages = pyramid_pages(picture(509, 401), 3)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        tif.write(pages[0], tile=(64, 64), photometric="rgb", subifds=2)
        for page in pages[1:]:
            tif.write(page, tile=(64, 64), photometric="rgb", subfiletype=1)
    check_pyramid(tmp_path / "a.ome.tif", pages)


def test_pyramid_of_separate_images_without_label_and_macro(tmp_path: Path):
    pages = pyramid_pages(picture(509, 401), 3)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        tif.write(picture(300, 900), photometric="rgb", metadata={"Name": "macro image"})
        for i, page in enumerate(pages):
            tif.write(page, tile=(64, 64), photometric="rgb", metadata={"Name": f"resolution {i}"})
        tif.write(picture(255, 201), photometric="rgb", metadata={"Name": "label image"})
        tif.write(picture(100, 300), photometric="rgb", metadata={"Name": "something else"})
    check_pyramid(tmp_path / "a.ome.tif", pages)


@pytest.mark.parametrize(
    ("shapes", "kept"),
    [
        ([(32914, 46000), (8228, 11500), (2057, 2875)], [0, 1, 2]),
        ([(1000, 1000), (431, 1280), (250, 250)], [0, 2]),
        ([(1000, 1000), (1000, 1000), (500, 500)], [0, 2]),
        ([(1000, 2000), (500, 900)], [0]),
        ([(1000, 2000), (0, 0)], [0]),
    ],
)
def test_true_levels(shapes: list[tuple[int, int]], kept: list[int]):
    assert true_levels(shapes) == kept


def test_missing_tiles_are_white(tmp_path: Path):
    pixels = picture(256, 256)
    tiles = [pixels[:64, :64]] + [None] * 14 + [pixels[192:, 192:]]
    path = tmp_path / "sparse.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(iter(tiles), shape=(256, 256, 3), dtype=np.uint8, tile=(64, 64), photometric="rgb", metadata=None,
                  compression="adobe_deflate")  # fmt: skip
    expected = np.full_like(pixels, 255)
    expected[:64, :64] = pixels[:64, :64]
    expected[192:, 192:] = pixels[192:, 192:]
    np.testing.assert_array_equal(whole(open_slide(path)), expected)


def test_a_hundred_thousand_pixels_square(tmp_path: Path):
    """Opens in a moment, and its overview costs memory for a few chunks only."""
    tile = picture(512, 512)
    n = -(-100_000 // 512)
    path = tmp_path / "large.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tiles = (tile if i % 5000 == 0 else None for i in range(n * n))
        layout = {"shape": (100_000, 100_000, 3), "dtype": np.uint8, "tile": (512, 512), "metadata": None}
        size = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
        tif.write(tiles, photometric="rgb", compression="jpeg", **layout, **size)
    slide = open_slide(path)
    assert slide.shape == (100_000, 100_000, 3)
    assert slide.mpp == pytest.approx((0.25, 0.25))
    assert len(slide.levels) == 7
    assert (slide.read_region(50_000, 50_001, 600, 600) == 255).all()
    coarse = np.asarray(slide.levels[-1])
    assert coarse.shape == (1563, 1563, 3)
    assert coarse[:8, :8].mean() < 200
    assert (coarse[8:100, 8:100] == 255).all()
    assert sum(cache._bytes for cache in slide._handles.pyramid()._caches) < 200 * 2**20


def damage(path: Path, number: int, how: str) -> None:
    """Spoil one tile of the first page."""
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[number], tif.pages[0].databytecounts[number]
    with path.open("r+b") as file:
        if how == "second half":
            file.seek(offset + count // 2)
            file.write(bytes(count - count // 2))
        else:
            file.seek(offset)
            file.write(b"\xff" * count)


@pytest.mark.parametrize("how", ["all", "second half"])
def test_a_damaged_tile(shared_data: Path, tmp_path: Path, how: str):
    """Decoders fill a JPEG that ends early with grey; that must not pass for tissue."""
    path = tmp_path / "damaged.svs"
    source = shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs"
    shutil.copy(source, path)
    path.chmod(0o644)
    damage(path, 20, how)  # tiles are 240 px, ten a row: row 480, column 0
    slide, intact = open_slide(path), open_slide(source)
    with pytest.raises(
        SlideError, match=r"damaged.svs cannot be read at row 480, column 0 of a level with 2220 x 2967"
    ):
        slide.read_region(400, 100, 300, 300)
    np.testing.assert_array_equal(slide.read_region(0, 0, 480, 2220), intact.read_region(0, 0, 480, 2220))

    centers = np.array([[300, 300], [600, 120], [600, 500], [700, 230]]) * 0.499
    images, ok = PatchReader(slide, PatchSpec(100, 0.5)).read(centers)
    np.testing.assert_array_equal(ok, [True, False, True, False])
    np.testing.assert_array_equal(images[ok], PatchReader(intact, PatchSpec(100, 0.5)).read(centers)[0][ok])

    with pytest.warns(CpnnWarning, match="unreadable parts are shown in grey"):
        shown = np.asarray(slide.levels[0])
    assert (shown[480:720, :240] == 128).all()
    away = np.ones(shown.shape[:2], bool)
    away[480 - 128 : 720 + 128, : 240 + 128] = False
    np.testing.assert_array_equal(shown[away], whole(intact)[away])
    assert np.abs(slide.thumbnail(300).astype(int) - intact.thumbnail(300)).mean() < 5


def test_tiles_behind_the_end_of_the_file(tmp_path: Path):
    path = write_tiff(tmp_path / "a.tif", picture(256, 256), tile=(64, 64))
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags[324]
    struct.pack_into("<I", data, tag.valueoffset + 4 * 15, len(data) + 1000)
    path.write_bytes(data)
    with pytest.raises(SlideError, match=r"a.tif is incomplete: it has .* bytes but its tiles extend to"):
        open_slide(path)


def test_reading_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on Windows."""
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)))
    monkeypatch.delattr(os, "pread")
    reader = FileReader(path)
    assert reader.read(100, 3) == b"def"
    reader.close()
    with pytest.raises(SlideError, match=r"a.bin can no longer be read"):
        reader.read(0, 1)
