"""Patches: where they are, how they are resampled, and that grouping changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_cpnn.errors import PixelSizeError, SlideError
from napari_cpnn.geometry import Grid, Mpp, PatchSpec
from napari_cpnn.slides import PatchReader, Slide, open_slide, read_patches
from napari_cpnn.slides.patches import _groups
from slide_files import picture, write_tiff

HEIGHT, WIDTH = 900, 1100


def slide_of(mpp: Mpp, smooth: float = 6.0) -> tuple[Slide, np.ndarray]:
    pixels = ndimage.gaussian_filter(picture(HEIGHT, WIDTH), (smooth, smooth, 0))
    return Slide.from_arrays([pixels], mpp), pixels


def splines(pixels: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.spline_filter(pixels[..., c].astype(float), order=3) for c in range(3)])


def reference(coefficients: np.ndarray, mpp: Mpp, center: tuple[float, float], spec: PatchSpec) -> np.ndarray:
    """Cubic interpolation at the centres of the patch's pixels: pixel i covers [i, i + 1)."""
    offsets = (np.arange(spec.size_px) + 0.5 - spec.size_px / 2) * spec.mpp
    rows, cols = ((center[axis] + offsets) / mpp[axis] - 0.5 for axis in (0, 1))
    grid = np.meshgrid(rows, cols, indexing="ij")
    channels = [ndimage.map_coordinates(c, grid, order=3, mode="nearest", prefilter=False) for c in coefficients]
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize("mpp", [(0.25, 0.25), (0.686, 0.690), (0.5, 0.5), (0.47, 0.53), (1.1, 0.9)])
def test_against_an_independent_resampling(mpp: Mpp):
    slide, pixels = slide_of(mpp)
    spec = PatchSpec(96, 0.5)
    rng = np.random.default_rng(1)
    low = np.array([60.0, 60.0])
    high = np.array([HEIGHT * mpp[0] - 60, WIDTH * mpp[1] - 60])
    centers = rng.uniform(low, high, (12, 2))
    images, ok = PatchReader(slide, spec).read(centers)
    assert ok.all()
    coefficients = splines(pixels)
    for image, center in zip(images, centers, strict=True):
        difference = np.abs(image - reference(coefficients, mpp, center, spec))
        assert difference.mean() < 1.5
        # A shift by half a level pixel would show: the picture's gradients are steeper than that.
        shifted = np.abs(image - reference(coefficients, mpp, center + 2 * np.asarray(mpp), spec))
        assert shifted.mean() > 3 * difference.mean()


def test_position_is_unbiased():
    """A ramp tells the position of every pixel: half a pixel off would be seen in the mean."""
    ramp = np.repeat(np.repeat(np.linspace(0, 255, 256)[None, :, None], 200, 0), 3, 2).astype(np.uint8)
    slide = Slide.from_arrays([ramp], 1.0)  # value = column
    images = read_patches(slide, [[100.0, 128.0]], PatchSpec(64, 0.5))
    columns = 128.0 + (np.arange(64) + 0.5 - 32) * 0.5 - 0.5
    np.testing.assert_allclose(images[0, 32, :, 0], columns, atol=0.51)
    coarse = read_patches(slide, [[100.0, 128.0]], PatchSpec(64, 2.0))
    np.testing.assert_allclose(coarse[0, 32, :, 0], 128.0 + (np.arange(64) + 0.5 - 32) * 2 - 0.5, atol=0.51)


def test_whole_pixels_are_copied():
    slide, pixels = slide_of((0.5, 0.5), smooth=0)
    images = read_patches(slide, [[(100 + 32) * 0.5, (200 + 32) * 0.5]], PatchSpec(64, 0.5))
    np.testing.assert_array_equal(images[0], pixels[100:164, 200:264])
    # An objective's 0.499 is 0.5: less than a pixel over the patch.
    almost = read_patches(slide.with_mpp(0.499), [[132 * 0.499, 232 * 0.499]], PatchSpec(64, 0.5))
    np.testing.assert_array_equal(almost[0], pixels[100:164, 200:264])


def test_averages_when_it_shrinks():
    """Without anti-aliasing a checkerboard would turn into black, white or stripes."""
    board = np.indices((800, 800)).sum(0) % 2 * 255
    slide = Slide.from_arrays([np.repeat(board[..., None], 3, 2).astype(np.uint8)], 0.25)
    images = read_patches(slide, [[100.0, 100.0]], PatchSpec(64, 0.6))
    assert np.abs(images.astype(int) - 127).max() < 12


@pytest.mark.parametrize(("spec_mpp", "level"), [(0.25, 0), (0.5, 1), (0.49, 1), (0.47, 0), (1.5, 2), (9.0, 3)])
def test_takes_the_coarsest_level_that_is_fine_enough(spec_mpp: float, level: int):
    pixels = picture(800, 800)
    slide = Slide.from_arrays([pixels[:: 2**i, :: 2**i] for i in range(4)], 0.25)
    assert PatchReader(slide, PatchSpec(32, spec_mpp)).level == level


@pytest.mark.parametrize("mpp", [(0.5, 0.5), (0.686, 0.690), (0.25, 0.25)])
def test_grouping_changes_nothing(tmp_path: Path, mpp: Mpp):
    """One by one, all at once, shuffled, as a grid, scattered, from threads: bit-equal."""
    path = write_tiff(tmp_path / "a.tif", picture(1500, 1700), tile=(240, 240))
    slide = open_slide(path, mpp=mpp)
    spec = PatchSpec(64, 0.5)
    rng = np.random.default_rng(3)
    extent = np.array(slide.shape[:2]) * mpp
    centers = np.concatenate([
        Grid.over(slide.shape[:2], mpp, 70.0).centers_um()[:60],
        rng.uniform(-40, extent + 40, (60, 2)),
    ])  # fmt: skip
    reader = PatchReader(slide, spec)
    together, ok = reader.read(centers)
    assert ok.all()
    alone = np.concatenate([reader.read(c[None])[0] for c in centers])
    np.testing.assert_array_equal(together, alone)
    order = rng.permutation(len(centers))
    np.testing.assert_array_equal(reader.read(centers[order])[0], together[order])
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda part: reader.read(centers[part])[0], np.array_split(order, 7)))
    np.testing.assert_array_equal(np.concatenate(parts), together[order])


def test_memory_that_is_given_back_is_read_into_and_changes_no_pixel():
    slide, _ = slide_of((0.5, 0.5))
    reader, fresh = PatchReader(slide, PatchSpec(64, 0.5)), PatchReader(slide, PatchSpec(64, 0.5))
    centers = np.random.default_rng(4).uniform(40, 400, (9, 2))
    large, _ = reader.read(centers)
    kept = large.copy()
    small, _ = reader.read(centers[:3])  # nothing was given back: it has its own memory
    assert not np.shares_memory(small, large)
    np.testing.assert_array_equal(large, kept)
    reader.give_back(large)
    again, ok = reader.read(centers[4:])  # fewer patches
    assert np.shares_memory(again, large)
    assert ok.all()
    np.testing.assert_array_equal(again, fresh.read(centers[4:])[0])
    reader.give_back(again)  # all of the memory, although fewer patches were read
    full, _ = reader.read(centers)
    assert np.shares_memory(full, large)
    np.testing.assert_array_equal(full, kept)
    reader.give_back(small)
    more, _ = reader.read(centers)  # the memory is too small
    np.testing.assert_array_equal(more, kept)
    reader.give_back(more)
    reader.release()
    assert not np.shares_memory(reader.read(centers)[0], more)


def test_groups_are_neighbours_and_bounded():
    rng = np.random.default_rng(0)
    start = np.concatenate([rng.integers(0, 100_000, (300, 2)), np.indices((20, 20)).reshape(2, -1).T * 224])
    boxes = np.concatenate([start, start + 224], axis=1)
    groups = list(_groups(boxes, np.arange(len(boxes))))
    np.testing.assert_array_equal(np.sort(np.concatenate(groups)), np.arange(len(boxes)))
    for group in groups:
        area = np.prod(boxes[group, 2:].max(0) - boxes[group, :2].min(0))
        assert len(group) == 1 or area <= 8 * 2**20
        assert area <= len(group) * 224**2 / 0.6
    assert len(groups) < 330


def test_outside_is_white():
    slide, _ = slide_of((0.5, 0.5))
    images, ok = PatchReader(slide, PatchSpec(32, 0.4)).read([[-100.0, -100.0], [0.0, 200.0], [1e9, -1e9]])
    assert ok.all()
    assert (images[[0, 2]] == 255).all()
    assert (images[1, :15] == 255).all()
    assert images[1, 17:].mean() < 200


def test_no_centres():
    slide, _ = slide_of((0.5, 0.5))
    images, ok = PatchReader(slide, PatchSpec(32, 0.5)).read(np.empty((0, 2)))
    assert images.shape == (0, 32, 32, 3)
    assert ok.shape == (0,)


def test_refusals(shared_data: Path):
    slide, _ = slide_of((0.5, 0.5))
    with pytest.raises(PixelSizeError, match="give mpp"):
        PatchReader(slide.with_mpp(None), PatchSpec())
    with pytest.raises(SlideError, match="must be finite"):
        read_patches(slide, [[float("nan"), 1.0]], PatchSpec())
    broken = open_slide(shared_data / "wsi-samples/openslide-python-fixtures/unreadable.svs")
    with pytest.raises(SlideError, match=r"2 of 3 patches of .*unreadable.svs cannot be read"):
        read_patches(broken, [[4, 4], [3, 3], [1000, 1000]], PatchSpec(8, 0.5))


def test_openslide_goes_on_after_an_error(shared_data: Path):
    """OpenSlide's handle refuses everything after one failure; ours is renewed."""
    from napari_cpnn.slides.backends.openslide import OpenSlideSource

    source = OpenSlideSource(shared_data / "wsi-samples/aperio-cmu/CMU-1-Small-Region.svs")
    expected = source.read(0, 100, 100, 50, 50)
    broken = OpenSlideSource(shared_data / "wsi-samples/openslide-python-fixtures/unreadable.svs")
    for _ in range(2):
        handle = broken._handle
        with pytest.raises(SlideError, match=r"unreadable.svs cannot be read at level 0, row 0, column 0"):
            broken.read(0, 0, 0, 16, 16)
        assert broken._handle is not handle
    np.testing.assert_array_equal(source.read(0, 100, 100, 50, 50), expected)
