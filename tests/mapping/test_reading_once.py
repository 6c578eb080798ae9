"""In a whole map no patch is cut or computed twice, neighbours share region reads, tiles are seldom decoded again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from fakes import PATCH, ColorModel, settings, tissue_image
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import DONE, LiveMapper, Viewport
from napari_cpnn.slides import PatchReader, Slide, open_slide
from napari_cpnn.slides.backends import tiff_tiles

# Two and a half patches a side, as tiles of 512 px are to patches of 224 px.
TILE = 80


class CountingModel(ColorModel):
    images = 0

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        type(self).images += len(x)
        return super().forward(x)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 x 90 patches, tissue everywhere but at the rim."""
    path = tmp_path_factory.mktemp("slide") / "tiled.tif"
    image = tissue_image(100, 90)
    tifffile.imwrite(
        path, image, tile=(TILE, TILE), photometric="rgb", metadata=None, resolution=(10_000, 10_000), resolutionunit=3
    )
    return path


def test_each_patch_once_neighbours_in_one_region_and_few_tiles_again(path: Path, monkeypatch: pytest.MonkeyPatch):
    cut: Counter[tuple[float, float]] = Counter()
    decoded: Counter[tuple[int, int]] = Counter()
    regions: list[int] = []
    read, read_region, load = PatchReader.read, Slide.read_region, tiff_tiles.Plane.load

    def counted_read(self, centers):
        cut.update(map(tuple, centers))
        return read(self, centers)

    def counted_region(self, *box):
        regions.append(1)
        return read_region(self, *box)

    def counted_load(self, file, row, col, path, factor=1):
        decoded[row, col] += 1
        return load(self, file, row, col, path, factor)

    monkeypatch.setattr(PatchReader, "read", counted_read)
    monkeypatch.setattr(Slide, "read_region", counted_region)
    # As many tiles as the cache holds of a large slide: 5 % of those with tissue.
    monkeypatch.setattr(tiff_tiles, "_CACHE_BYTES", 60 * 3 * TILE**2)
    CountingModel.images = 0
    with open_slide(path) as slide, LiveMapper(slide, CountingModel().eval(), settings(cache=False)) as mapper:
        monkeypatch.setattr(tiff_tiles.Plane, "load", counted_load)  # finding the tissue is another matter
        mapper.set_viewport(Viewport(Rect(0, 0, 3200, 2880), 0.3))  # then parts of it, then all
        assert mapper.wait_until_mapped(60)
        mapper.set_viewport(Viewport(Rect(500, 500, 1500, 1400), 1.0))
        assert mapper.wait_until_mapped(60)
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(60)
        assert (mapper.map.state[mapper.map.tissue] == DONE).all()
        cells = np.argwhere(mapper.map.tissue)
        n_apart = int((mapper.map.lattice.representatives(2) >= 0).sum())
    assert len(cells) > 8_000
    assert len(cut) == len(cells)
    assert set(cut.values()) == {1}
    assert CountingModel.images == len(cells)
    # Patches of the coarse lattices lie apart; of the others, several are cut from one region.
    assert len(regions) < n_apart + (len(cells) - n_apart) / 4
    # Each tile once, some for the lattices of 16 and 8 patches before, and again at the borders of blocks.
    touched = {
        (y // TILE, x // TILE)
        for row, col in cells
        for y in (row * PATCH.size_px, (row + 1) * PATCH.size_px - 1)
        for x in (col * PATCH.size_px, (col + 1) * PATCH.size_px - 1)
    }
    assert set(decoded) == touched
    assert sum(decoded.values()) <= 1.8 * len(touched)
    assert sum(decoded.values()) <= 0.3 * len(cells)


def test_a_whole_slide_without_a_view_decodes_hardly_a_tile_twice(path: Path, monkeypatch: pytest.MonkeyPatch):
    decoded: Counter[tuple[int, int]] = Counter()
    load = tiff_tiles.Plane.load

    def counted_load(self, file, row, col, path, factor=1):
        decoded[row, col] += 1
        return load(self, file, row, col, path, factor)

    monkeypatch.setattr(tiff_tiles, "_CACHE_BYTES", 80 * 3 * TILE**2)
    with open_slide(path) as slide, LiveMapper(slide, CountingModel().eval(), settings(cache=False)) as mapper:
        monkeypatch.setattr(tiff_tiles.Plane, "load", counted_load)
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(60)
        assert (mapper.map.state[mapper.map.tissue] == DONE).all()
        n_patches = int(mapper.map.tissue.sum())
    # Each tile once is 0.19 per patch; those at the borders of blocks are decoded for both.
    assert sum(decoded.values()) <= 0.3 * n_patches
