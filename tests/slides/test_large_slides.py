"""A slide of 150,000 px a side costs no more memory, and no more reading, than what is asked for."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_cpnn.slides import Slide, find_tissue, open_slide
from napari_cpnn.slides import thumbnail as thumbnail_module

SIDE = 150_000
TILE = 512
MIB = 2**20


class VirtualLevel:
    """Pixels that are computed when they are read: a disc of tissue in the middle, glass around it."""

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, side: int) -> None:
        self.shape = (side, side, 3)
        self.read_px = 0

    def __getitem__(self, index: tuple[slice, slice, slice]) -> np.ndarray:
        (y0, y1, _), (x0, x1, _) = (s.indices(n) for s, n in zip(index[:2], self.shape[:2], strict=True))
        self.read_px += (y1 - y0) * (x1 - x0)
        y, x = np.arange(y0, y1)[:, None], np.arange(x0, x1)[None]
        half = self.shape[0] / 2
        inside = (y - half) ** 2 + (x - half) ** 2 < (0.3 * self.shape[0]) ** 2
        nuclei = (y * 7 + x * 13) % 11 < 4
        colours = np.array([[244, 244, 244], [230, 160, 200], [120, 70, 150]], np.uint8)
        return colours[inside * (1 + nuclei)]


@contextmanager
def peak_below(limit_mib: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit_mib * MIB
    finally:
        tracemalloc.stop()


def virtual(downs: tuple[int, ...]) -> tuple[Slide, list[VirtualLevel]]:
    import dask.array as da

    levels = [VirtualLevel(-(-SIDE // down)) for down in downs]
    arrays = [da.from_array(level, chunks=(TILE, TILE, 3), asarray=False) for level in levels]
    return Slide.from_arrays(arrays, 0.5), levels


def test_tissue_and_thumbnail_read_coarse_levels_only():
    with peak_below(350):
        slide, levels = virtual((1, 4, 16, 64))
        tissue = find_tissue(slide)
        picture = slide.thumbnail()
    assert picture.shape == (1024, 1024, 3)
    assert tissue.mask.mean() == pytest.approx(np.pi * 0.3**2, rel=0.02)
    assert [level.read_px for level in levels[:3]] == [0, 0, 0]
    # Once for the identity, once for the thumbnail, once for the tissue; chunks are cut by bands.
    assert levels[3].read_px <= 4 * np.prod(levels[3].shape[:2])


def test_a_thumbnail_from_a_level_that_is_far_too_large_is_read_in_bands():
    """Levels in steps of 16: 9,375 px are read for 2,000."""
    slide, levels = virtual((1, 16, 256))
    before = levels[1].read_px
    with peak_below(200):  # 264 MB are read
        picture = slide.thumbnail(2_000)
    assert picture.shape == (2000, 2000, 3)
    assert levels[0].read_px == 0
    assert levels[1].read_px - before <= 1.5 * np.prod(levels[1].shape[:2])


@pytest.mark.parametrize("size", [(700, 901), (333, 1000)])
def test_bands_of_a_thumbnail_do_not_show(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]):
    rng = np.random.default_rng(0)
    for pixels in (rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 9_000, size, np.uint16)):
        slide = Slide.from_arrays([pixels], 0.5)
        monkeypatch.setattr(thumbnail_module, "_BAND_PX", 2**24)
        for max_px in (1, 77, 256, 5_000):
            whole = slide.thumbnail(max_px)
            with monkeypatch.context() as patch:
                patch.setattr(thumbnail_module, "_BAND_PX", 1_500)
                bands = slide.thumbnail(max_px)
            assert np.abs(bands.astype(int) - whole).max() <= 1  # rounding of the places where rows are cut


def test_a_file_without_levels_opens_at_once_and_blank_parts_are_not_decoded(tmp_path: Path):
    from imagecodecs import jpeg8_encode

    path, across = tmp_path / "one level.tif", -(-SIDE // TILE)
    tissue = jpeg8_encode(VirtualLevel(TILE)[:, :, :], level=90)
    tiles = (tissue if row in (100, 101) and col in (50, 51) else b"" for row in range(across) for col in range(across))
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(
            tiles,
            shape=(SIDE, SIDE, 3),
            dtype=np.uint8,
            tile=(TILE, TILE),
            photometric="ycbcr",
            subsampling=(2, 2),
            compression="jpeg",
            resolution=(20_000, 20_000),
            resolutionunit="CENTIMETER",
            metadata=None,
        )
    with peak_below(350), open_slide(path) as slide:
        assert slide.shape == (SIDE, SIDE, 3)
        picture = slide.thumbnail()
        tissue_mask = find_tissue(slide)
    assert (picture < 240).all(axis=2).any()
    assert 0 < tissue_mask.area_um2 < 1.2 * 4 * (TILE * 0.5) ** 2
