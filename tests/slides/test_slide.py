"""Slide: overviews, threads, pickling, arrays, pictures, identity, a file that goes away."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from PIL import Image

from napari_cpnn.errors import CpnnWarning, SettingsError, SlideError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.slides import PatchReader, Slide, open_slide
from slide_files import picture, whole, write_tiff


@pytest.fixture
def tiff(tmp_path: Path) -> Path:
    return write_tiff(
        tmp_path / "a.tif", picture(700, 900), tile=(128, 128), resolution=(20_000, 20_000), resolutionunit="CENTIMETER"
    )


def test_importing_is_quick_and_loads_no_torch():
    code = (
        "import sys, time; t = time.process_time(); import napari_cpnn.slides; t = time.process_time() - t;"
        "assert t < 0.3, t; heavy = {'torch', 'dask', 'tifffile', 'openslide', 'skimage', 'napari'} & set(sys.modules);"
        "assert not heavy, heavy; from napari_cpnn.slides import PatchReader, find_tissue, open_slide;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_overviews_are_means_of_the_level_before(tmp_path: Path):
    pixels = picture(2501, 4203)
    slide = open_slide(write_tiff(tmp_path / "a.tif", pixels, tile=(256, 256)))
    assert slide.level_shapes == [(2501, 4203), (1251, 2102), (626, 1051)]
    assert slide.downsamples == [(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)]
    padded = np.pad(pixels, ((0, 3), (0, 1), (0, 0)), mode="edge").astype(float)
    for level, factor in ((1, 2), (2, 4)):
        rows, cols = (n // factor for n in padded.shape[:2])
        mean = padded.reshape(rows, factor, cols, factor, 3).mean(axis=(1, 3))
        ours = whole(slide, level)
        # The last row and column repeat an edge, once per level, so only what is inside is the plain mean.
        inner = (slice(0, 2501 // factor), slice(0, 4203 // factor))
        assert np.abs(ours[inner] - mean[inner]).max() <= 1.0
        assert np.abs(ours[inner] - mean[inner]).mean() < 0.5
        np.testing.assert_array_equal(np.asarray(slide.levels[level]), ours)
        np.testing.assert_array_equal(slide.read_region(300, 500, 99, 98, level), ours[300:399, 500:598])


def test_levels_are_dask_arrays_in_square_chunks(tiff: Path):
    slide = open_slide(tiff)
    level = slide.levels[0]
    assert isinstance(level, da.Array)
    assert level.chunks == ((512, 188), (512, 388), (3,))
    assert level.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(level[100:690:3, 33:800:2]), picture(700, 900)[100:690:3, 33:800:2])


def test_outside_the_slide_is_white(tiff: Path):
    slide = open_slide(tiff)
    around = slide.read_region(-10, -20, 720, 940)
    assert (around[:10] == 255).all()
    assert (around[-10:] == 255).all()
    assert (around[:, :20] == 255).all()
    assert (around[:, -20:] == 255).all()
    np.testing.assert_array_equal(around[10:-10, 20:-20], picture(700, 900))
    assert (slide.read_region(5000, -5000, 7, 8) == 255).all()
    assert slide.read_region(0, 0, 0, 5).shape == (0, 5, 3)
    with pytest.raises(SlideError, match="has 1 levels, so there is no level 1"):
        slide.read_region(0, 0, 1, 1, level=1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_what_is_read_belongs_to_the_caller(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(100, 80)).save(path)
    slide = open_slide(path)
    for box in ((0, 0, 100, 80), (10, 0, 30, 80), (5, 5, 20, 20)):
        first = slide.read_region(*box)
        expected = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(slide.read_region(*box), expected)


def test_thumbnail(tiff: Path):
    small = open_slide(tiff).thumbnail(90)
    assert small.shape == (70, 90, 3)
    mean = picture(700, 900).reshape(70, 10, 90, 10, 3).mean(axis=(1, 3))
    assert np.abs(small - mean).max() <= 1
    assert open_slide(tiff).thumbnail(5000).shape == (700, 900, 3)


def test_many_threads_read_what_one_reads(shared_data: Path):
    path = shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs"
    rng = np.random.default_rng(0)
    boxes = [
        (int(y), int(x), 150, 170)
        for y, x in zip(rng.integers(-50, 2900, 150), rng.integers(-50, 2200, 150), strict=True)
    ]
    serial = [open_slide(path).read_region(*box) for box in boxes[:1]]
    one = open_slide(path)
    serial = [one.read_region(*box) for box in boxes]
    for slide in (open_slide(path), open_slide(shared_data / "wsi-samples/dicom-cmu/CMU-1-Small-Region")):
        expected = serial if slide.backend == "tifffile" else [slide.read_region(*box) for box in boxes]
        with ThreadPoolExecutor(8) as pool:
            parallel = list(pool.map(lambda box, s=slide: s.read_region(*box), boxes))
        for a, b in zip(parallel, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_many_threads_share_overviews(tmp_path: Path):
    pixels = picture(3000, 3000)
    path = write_tiff(tmp_path / "a.tif", pixels, tile=(256, 256))
    serial = whole(open_slide(path), 1)
    slide = open_slide(path)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: whole(slide, 1), range(8)):
            np.testing.assert_array_equal(got, serial)


def test_pickled_slides_open_their_file_again(tiff: Path):
    slide = open_slide(tiff, mpp=(0.4, 0.5))
    _ = slide.levels
    data = pickle.dumps(slide)
    assert len(data) < 5000
    copy = pickle.loads(data)
    assert copy._handles._pyramid is None
    for name in ("path", "name", "mpp", "shape", "level_shapes", "downsamples", "identity", "properties", "backend"):
        assert getattr(copy, name) == getattr(slide, name)
    np.testing.assert_array_equal(whole(copy), picture(700, 900))
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(slide.levels[0]))), picture(700, 900))


def test_pickled_arrays_travel_along():
    slide = Slide.from_arrays([picture(60, 50)], 0.5)
    np.testing.assert_array_equal(whole(pickle.loads(pickle.dumps(slide))), picture(60, 50))


def test_identity_follows_the_content(tiff: Path):
    first = open_slide(tiff).identity
    assert open_slide(tiff).identity == first
    stat = tiff.stat()
    os.utime(tiff, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert open_slide(tiff).identity != first
    a, b = (Slide.from_arrays([picture(60, 50, seed)], 0.5).identity for seed in (0, 1))
    assert a != b
    assert Slide.from_arrays([picture(60, 50)], None, name="other").identity == a


def test_closed(tiff: Path):
    with open_slide(tiff) as slide:
        other = slide.with_mpp(0.3)
        slide.read_region(0, 0, 5, 5)
    for closed in (slide, other):
        with pytest.raises(SlideError, match=r"a.tif has been closed; open it again"):
            closed.read_region(0, 0, 5, 5)


@pytest.mark.parametrize("kind", ["tif", "jpg", "svs"])
def test_deleted_while_open(tmp_path: Path, shared_data: Path, kind: str):
    path = tmp_path / f"a.{kind}"
    if kind == "svs":
        path.write_bytes((shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs").read_bytes())
    elif kind == "jpg":
        Image.fromarray(picture(300, 300)).save(path)
    else:
        write_tiff(path, picture(300, 300), tile=(64, 64))
    slide = open_slide(path, mpp=0.5)
    slide.read_region(0, 0, 20, 20)
    path.unlink()
    with pytest.raises(SlideError, match=rf"a.{kind} has been moved or deleted since it was opened"):
        slide.read_region(0, 0, 20, 20)
    with pytest.raises(SlideError, match="moved or deleted"):
        np.asarray(slide.levels[0])
    images, ok = PatchReader(slide, PatchSpec(16, 0.5)).read([[20, 20], [50, 50]])
    assert not ok.any()
    assert (images == 255).all()
    with pytest.raises(SlideError, match=r"There is no file .*a\."):
        open_slide(path)


@pytest.mark.parametrize("make", ["numpy", "dask", "zarr"])
def test_from_arrays(tmp_path: Path, make: str):
    pixels = picture(1500, 1250)
    levels: list[object] = [pixels, pixels[::2, ::2]]
    if make == "dask":
        levels = [da.from_array(level, chunks=(300, 1250, 3)) for level in levels]
    elif make == "zarr":
        stored = []
        for i, level in enumerate(levels):
            stored.append(
                zarr.create_array(str(tmp_path / f"{i}.zarr"), shape=level.shape, chunks=(500, 500, 3), dtype="u1")
            )
            stored[-1][:] = level
        levels = stored
    slide = Slide.from_arrays(levels, (0.4, 0.5), name="mine")
    assert (slide.name, slide.mpp, slide.backend, slide.path) == ("mine", (0.4, 0.5), "arrays", None)
    assert slide.level_shapes == [(1500, 1250), (750, 625)]
    assert slide.require_mappable() == (0.4, 0.5)
    np.testing.assert_array_equal(slide.read_region(1000, 900, 80, 70), pixels[1000:1080, 900:970])
    np.testing.assert_array_equal(np.asarray(slide.levels[1]), pixels[::2, ::2])


def test_from_arrays_with_a_path_has_the_identity_of_the_file(tiff: Path):
    slide = Slide.from_arrays([picture(700, 900)], 0.5, path=tiff)
    assert slide.path == tiff
    assert slide.identity == open_slide(tiff).identity


def test_from_arrays_takes_alpha_and_grey():
    pixels = picture(60, 50, channels=4)
    slide = Slide.from_arrays([pixels], None)
    alpha = pixels[..., 3:] / 255
    assert np.abs(whole(slide) - (pixels[..., :3] * alpha + 255 * (1 - alpha))).max() <= 0.51
    with pytest.raises(SlideError, match="is grey"):
        Slide.from_arrays([pixels[..., 0]], 0.5).require_mappable()


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        ([], "needs at least one array"),
        ([np.zeros((3, 60, 50), np.uint8)], r"\(3, 60, 50\) has its channels first; move them last"),
        ([np.zeros((60, 50, 7), np.uint8)], r"\(60, 50, 7\) is not a slide"),
        ([np.zeros((0, 50, 3), np.uint8)], r"is not a slide"),
        ([np.zeros(60, np.uint8)], r"is not a slide"),
        ([np.zeros((60, 50, 3), np.uint8), np.zeros((30, 25), np.uint8)], "the same number of channels"),
    ],
)
def test_from_arrays_refuses(levels: list[np.ndarray], sentence: str):
    with pytest.raises(SlideError, match=sentence):
        Slide.from_arrays(levels, 0.5)


def test_from_arrays_checks_the_pixel_size():
    with pytest.raises(SettingsError, match="not plausible"):
        Slide.from_arrays([picture(60, 50)], 100)


MODES = {
    "jpg": ["RGB", "L", "CMYK"],
    "png": ["RGB", "RGBA", "L", "P", "1", "LA", "I;16"],
    "tif": ["RGB", "RGBA", "L", "P", "1", "CMYK", "I;16"],
    "bmp": ["RGB", "L", "P", "1"],
}


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix, modes in MODES.items() for mode in modes])
def test_pictures(tmp_path: Path, suffix: str, mode: str):
    rgb = Image.fromarray(picture(90, 70))
    if mode == "I;16":
        image = Image.fromarray(picture(90, 70)[..., 0].astype(np.uint16) * 257)
    else:
        image = rgb.convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(Image.fromarray(picture(90, 70, 5)[..., 0]))
    path = tmp_path / f"a.{suffix}"
    image.save(path, **({"quality": 95} if suffix == "jpg" else {}))
    slide = open_slide(path, mpp=0.5)
    ours = whole(slide).astype(int)
    if mode == "I;16":
        expected = np.asarray(image).astype(int)
    elif mode in ("L", "1"):
        expected = np.asarray(image.convert("L")).astype(int)
    elif mode in ("RGBA", "LA"):
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        expected = np.asarray(white.convert("RGB" if mode == "RGBA" else "L")).astype(int)
    else:
        expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= (12 if suffix == "jpg" else 1)
    assert slide.is_rgb is (mode not in ("L", "1", "I;16", "LA"))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_are_shown_as_they_are_stored(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.jpg"):
        Image.fromarray(picture(90, 70)).save(tmp_path / name, exif=exif)
        if orientation == 1:
            slide = open_slide(tmp_path / name)
        else:
            with pytest.warns(
                CpnnWarning, match=rf"(rotated|upside down).* \(orientation {orientation}\); it is shown as"
            ):
                slide = open_slide(tmp_path / name)
        assert slide.shape == (90, 70, 3)
        np.testing.assert_array_equal(whole(slide), np.asarray(Image.open(tmp_path / name)))


def test_pictures_of_many_pixels_open_without_a_warning(tmp_path: Path):
    """Pillow warns of decompression bombs from 89 Mpx on, and nothing is decoded on opening."""
    path = tmp_path / "a.png"
    Image.new("1", (19_999, 10_000)).save(path)
    start = time.perf_counter()
    slide = open_slide(path)
    assert time.perf_counter() - start < 1
    assert slide.shape == (10_000, 19_999, 1)


def test_too_many_pixels_for_a_picture(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.new("1", (20_001, 10)).save(path)
    with pytest.raises(SlideError, match=r"a.png has 20001 x 10 px, too many for a plain PNG image"):
        open_slide(path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_cut_short_pictures(tmp_path: Path, suffix: str, part: float):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(500, 500)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(SlideError, match=rf"a.{suffix} cannot be (decoded|opened)"):
        open_slide(path).read_region(0, 0, 500, 500)


def test_damage_is_told_once(tmp_path: Path):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(500, 500)).save(path)
    path.write_bytes(path.read_bytes()[:-2])
    slide = open_slide(path)
    with pytest.warns(CpnnWarning, match=r"a.jpg is damaged: unreadable parts are shown in grey"):
        assert (slide.thumbnail(100) == 128).all()
    assert (slide.thumbnail(100) == 128).all()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("notes.txt", b"hello", "is not a slide or image of a known format"),
        ("empty.svs", b"", "is empty"),
        ("text.svs", b"hello", r"cannot be opened as a slide \(OpenSlide: unknown format\)"),
    ],
)
def test_not_a_slide(tmp_path: Path, name: str, content: bytes, sentence: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SlideError, match=f"{name} {sentence}"):
        open_slide(path)


def test_folders(tmp_path: Path):
    with pytest.raises(SlideError, match="is a folder without DICOM files"):
        open_slide(tmp_path)
    with pytest.raises(SlideError, match=r"There is no file .*nothing.svs"):
        open_slide(tmp_path / "nothing.svs")
