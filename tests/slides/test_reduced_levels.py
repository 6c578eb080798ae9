"""Levels decoded from JPEG tiles at a half, a quarter or an eighth: against means of what tifffile decodes whole."""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from napari_cpnn.errors import SlideError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.slides import PatchReader, Slide, open_slide
from slide_files import picture, whole, write_tiff

IN_JPEG: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": 92}}
#: um per px of the slides: 0.25.
SIZE: dict[str, Any] = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}


def means(pixels: np.ndarray, factor: int) -> np.ndarray:
    rows, cols = (n // factor for n in pixels.shape[:2])
    return pixels[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor, 3).mean(axis=(1, 3))


def tissue(height: int, width: int) -> np.ndarray:
    """Colours within the gamut, so that none is clipped before a mean is taken."""
    return (90 + 0.45 * ndimage.gaussian_filter(picture(height, width), (3, 3, 0))).astype(np.uint8)


def reduced(slide: Slide, factor: int) -> np.ndarray:
    view = slide.with_reduced_levels()
    return whole(view, view.downsamples.index((factor, factor))).astype(float)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize(
    "layout",
    [
        {"tile": (64, 64), "compressionargs": {"level": 92, "outcolorspace": "rgb"}},
        {"subsampling": (1, 1), "tile": (64, 64)},
        {"subsampling": (2, 1), "tile": (64, 48)},
        {"subsampling": (2, 2), "tile": (16, 128)},
    ],
    ids=lambda layout: str(layout.get("subsampling", "RGB")),
)
def test_pixels_are_means(tmp_path: Path, layout: dict[str, Any], factor: int):
    path = write_tiff(tmp_path / "a.tif", tissue(213, 171), **{**IN_JPEG, **layout})
    found = reduced(open_slide(path), factor)
    expected = means(tifffile.imread(path), factor)
    assert found.shape == expected.shape == (213 // factor, 171 // factor, 3)
    # What tifffile writes beyond the slide in its last tiles is black, and shines through in their blocks.
    found, expected = found[: 192 // factor, : 128 // factor], expected[: 192 // factor, : 128 // factor]
    difference = found - expected
    # Chroma of half the size is not interpolated first (2, 2), or stays half as wide (2, 1): no colour changes by it.
    limit, typical = {(2, 1): (32, 6), (2, 2): (12, 2)}.get(layout.get("subsampling", (1, 1)), (3, 1))
    assert np.abs(difference).max() <= limit
    assert np.abs(difference).mean() < typical
    assert np.abs(difference.mean(axis=(0, 1))).max() < 0.5
    # A shift by one pixel would show in the brightness, which no layout has at half the size.
    found, expected = (pixels @ [0.299, 0.587, 0.114] for pixels in (found, expected))
    assert np.abs(found[:, 1:] - expected[:, :-1]).mean() > 5 * np.abs(found - expected).mean()


def test_shared_tables_and_colours_without_a_marker(shared_data: Path):
    """Aperio's tiles have no tables and no marker of their colours, which are red, green and blue."""
    path = shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs"
    expected = means(tifffile.imread(path, key=0), 4)
    assert np.abs(reduced(open_slide(path), 4) - expected).mean() < 0.5


def encoded(pixels: np.ndarray, **options: Any) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=92, **options)
        return file.getvalue()


def write_tiles(path: Path, tiles: list[bytes], n: int, **options: Any) -> Path:
    """A page of ``n`` x ``n`` tiles of 64 px, whatever they hold."""
    shape = (64 * n, 64 * n, 3)
    tifffile.imwrite(
        path, iter(tiles), shape=shape, dtype=np.uint8, tile=(64, 64), compression="jpeg", metadata=None, **options
    )
    return path


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_colours_are_what_they_are_when_tiles_are_decoded_whole(tmp_path: Path, photometric: str):
    """Tiles with JFIF's marker hold YCbCr even in a page that says RGB; the marker decides, here as there."""
    pixels = tissue(128, 128)
    tiles = [encoded(pixels[y : y + 64, x : x + 64], subsampling=0) for y in (0, 64) for x in (0, 64)]
    options = {"subsampling": (1, 1)} if photometric == "ycbcr" else {}
    path = write_tiles(tmp_path / "a.tif", tiles, 2, photometric=photometric, **options)
    slide = open_slide(path)
    assert np.abs(whole(slide) - pixels.astype(int)).mean() < 4
    assert np.abs(reduced(slide, 2) - means(whole(slide), 2)).max() <= 3


def test_tiles_that_libjpeg_cannot_shrink_are_averaged(tmp_path: Path):
    """Lossless JPEG has no coefficients; it is decoded whole, as without reduced levels."""
    pixels = picture(64, 64)
    lossless = imagecodecs.jpeg8_encode(pixels, lossless=True)
    slide = open_slide(write_tiles(tmp_path / "a.tif", [lossless], 1, photometric="rgb"))
    np.testing.assert_array_equal(whole(slide), pixels)
    np.testing.assert_array_equal(reduced(slide, 4), np.floor(means(pixels, 4) + 0.5))


def test_levels_lie_between_those_of_the_file(tmp_path: Path):
    path = tmp_path / "steps.tif"
    pixels = picture(512, 384)
    with tifffile.TiffWriter(path) as tif:
        for step in (1, 4):
            small = means(pixels, step).astype(np.uint8)
            tif.write(small, tile=(64, 64), photometric="rgb", subfiletype=int(step > 1), metadata=None, **IN_JPEG)
    slide = open_slide(path, mpp=0.25)
    view = slide.with_reduced_levels()
    assert slide.downsamples == [(1, 1), (4, 4)]
    assert [down for down, _ in view.downsamples] == [1, 2, 4, 8, 16, 32]
    assert view.level_shapes[:3] == [(512, 384), (256, 192), (128, 96)]
    np.testing.assert_array_equal(whole(view, 2), whole(slide, 1))  # the file's own level, where it has one
    assert view.identity != slide.identity
    assert view.with_reduced_levels().identity != slide.identity


def test_without_jpeg_it_is_the_same_slide(tmp_path: Path, shared_data: Path):
    plain = open_slide(write_tiff(tmp_path / "a.tif", picture(128, 128), tile=(64, 64)))
    strips = open_slide(write_tiff(tmp_path / "b.tif", picture(128, 128), rowsperstrip=16, **IN_JPEG))
    dicom = next((shared_data / "wsi-samples/dicom-cmu/CMU-1-Small-Region").glob("*.dcm"))
    for slide in (plain, strips, open_slide(dicom), Slide.from_arrays([picture(128, 128)], 0.5)):
        assert slide.with_reduced_levels() is slide


@pytest.fixture
def slide(tmp_path: Path) -> Slide:
    """Of 0.25 um/px in tiles of 64 px."""
    path = write_tiff(tmp_path / "a.tif", tissue(700, 610), subsampling=(2, 2), tile=(64, 64), **IN_JPEG, **SIZE)
    return open_slide(path)


@pytest.mark.parametrize("mpp", [0.5, 1.0, 1.3])
def test_patches_lie_where_they_lay(slide: Slide, mpp: float):
    spec = PatchSpec(48, mpp)
    centers = np.random.default_rng(0).uniform(40, 110, (12, 2))
    centers = np.round(centers / mpp) * mpp  # pixels of the patch are pixels of the reduced level
    before = PatchReader(slide, spec).read(centers)[0].astype(float)
    images, ok = PatchReader(slide.with_reduced_levels(), spec).read(centers)
    moved = PatchReader(slide, spec).read(centers + np.array([0, mpp]))[0]
    assert ok.all()
    assert np.abs(images - before).mean() < min(6.0, np.abs(moved - before).mean() / 2)
    assert abs(images.mean() - before.mean()) < 0.3


def test_bits_do_not_depend_on_the_grouping_or_the_process(slide: Slide):
    view, spec = slide.with_reduced_levels(), PatchSpec(40, 0.5)
    centers = np.random.default_rng(1).uniform(0, 170, (30, 2))
    together, _ = PatchReader(view, spec).read(centers)
    one_by_one = [PatchReader(view, spec).read([center])[0][0] for center in centers]
    np.testing.assert_array_equal(together, one_by_one)
    copy = pickle.loads(pickle.dumps(view))
    assert copy.identity == view.identity
    np.testing.assert_array_equal(PatchReader(copy, spec).read(centers)[0], together)


def test_missing_tiles_are_white(tmp_path: Path):
    tile = encoded(picture(64, 64))
    path = write_tiles(tmp_path / "a.tif", [tile, b"", b"", tile], 2, photometric="ycbcr")
    found = reduced(open_slide(path), 2)
    assert (found[:32, 32:] == 255).all()
    assert (found[32:, :32] == 255).all()
    assert found[:32, :32].mean() < 200


@pytest.mark.parametrize("how", ["cleared", "half", "header"])
def test_a_damaged_tile_is_an_error(shared_data: Path, tmp_path: Path, how: str):
    path = tmp_path / "damaged.svs"
    shutil.copy(shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs", path)
    path.chmod(0o644)
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[20], tif.pages[0].databytecounts[20]
    with path.open("r+b") as file:
        start, value = {"cleared": (0, b"\xff"), "half": (count // 2, b"\0"), "header": (2, b"\0")}[how]
        file.seek(offset + start)
        file.write(value * (40 if how == "header" else count - start))
    view = open_slide(path).with_reduced_levels()
    with pytest.raises(
        SlideError, match=r"damaged.svs cannot be read at row 480, column 0 of a level with 2220 x 2967"
    ):
        view.read_region(200, 50, 150, 150, 1)
    images, ok = PatchReader(view, PatchSpec(50, 1.0)).read(np.array([[300, 300], [600, 120]]) * 0.499)
    np.testing.assert_array_equal(ok, [True, False])
    assert (images[1] == 255).all()
