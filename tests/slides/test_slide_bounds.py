"""Slides of which a part was scanned begin at the corner of that part, as in QuPath."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from PIL import Image

from cases import case
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.regions import read_regions
from napari_cpnn.slides import PatchReader, find_tissue, open_slide
from napari_cpnn.slides.backends import openslide as backend
from napari_cpnn.slides.backends.bounds import Crop, crop_of, cropped_levels
from slide_files import picture, whole

BOUNDS = ("y", "x", "height", "width")


def properties(*values: object) -> dict[str, str]:
    return {f"openslide.bounds-{name}": str(value) for name, value in zip(BOUNDS, values, strict=True)}


@pytest.mark.parametrize(
    ("values", "crop"),
    [
        ((30, 20, 500, 700), Crop(30, 20, 500, 700)),
        ((0, 0, 5000, 4000), None),  # all of it
        ((0, 100, 5000, 3900), Crop(0, 100, 5000, 3900)),
        ((4900, 0, 500, 700), Crop(4900, 0, 100, 700)),  # no further than the slide
        ((-5, 0, 500, 700), Crop(0, 0, 495, 700)),
        ((6000, 0, 500, 700), None),
        ((0, 0, 0, 0), None),
        (("a", 0, 500, 700), None),
    ],
)
def test_crop_of_the_properties(values: tuple[object, ...], crop: Crop | None):
    assert crop_of(properties(*values), (5000, 4000)) == crop
    assert crop_of({}, (5000, 4000)) is None


def test_levels_keep_the_downsamples_of_the_whole():
    """Sides are rounded down as in QuPath; their ratio alone would make 71 of 64 for the last."""
    shapes = [(6400, 6401), (1600, 1600), (100, 100), (3, 3)]
    assert cropped_levels(Crop(5, 7, 501, 703), shapes) == (
        ((501, 703), (125, 175), (7, 10)),
        ((1.0, 1.0), (4.0, 4.0), (64.0, 64.0)),
    )


class FakeOpenSlide:
    """A scan that lies at 37, 21 of a large empty slide; its levels are every second and every eighth pixel."""

    scan = picture(331, 263)
    corner = (37, 21)  # y, x
    level_dimensions = ((1600, 1200), (800, 600), (200, 150))
    level_downsamples = (1.0, 2.0, 8.0)

    def __init__(self, _path: Any) -> None:
        y, x = self.corner
        self.properties = properties(y, x, *self.scan.shape[:2]) | {"openslide.mpp-x": "0,5", "openslide.mpp-y": "0.5"}
        self.canvas = np.zeros((1200, 1600, 4), np.uint8)
        self.canvas[y : y + 331, x : x + 263] = np.dstack([self.scan, np.full((331, 263), 255, np.uint8)])

    def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        step = int(self.level_downsamples[level])
        (x, y), (width, height) = corner, size
        box = self.canvas[y : y + step * height : step, x : x + step * width : step]
        out = np.zeros((height, width, 4), np.uint8)
        out[: box.shape[0], : box.shape[1]] = box
        return Image.fromarray(out)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(openslide, "OpenSlide", FakeOpenSlide)
    monkeypatch.setattr(backend, "require_readable", lambda *_: None)
    path = tmp_path / "a.mrxs"
    path.write_bytes(b"not empty")
    return path


def test_everything_counts_from_the_corner(fake: Path):
    slide = open_slide(fake)
    scan = FakeOpenSlide.scan
    assert slide.shape == (331, 263, 3)
    assert slide.mpp == (0.5, 0.5)
    assert slide.level_shapes == [(331, 263), (165, 131), (41, 32)]
    assert slide.downsamples == [(1, 1), (2, 2), (8, 8)]
    for level, step in enumerate((1, 2, 8)):
        height, width = slide.level_shapes[level]
        np.testing.assert_array_equal(whole(slide, level), scan[::step, ::step][:height, :width])
        np.testing.assert_array_equal(np.asarray(slide.levels[level]), whole(slide, level))
    np.testing.assert_array_equal(slide.read_region(-5, 10, 20, 20)[5:], scan[:15, 10:30])
    assert (slide.read_region(-5, 10, 5, 20) == 255).all()
    assert np.abs(slide.thumbnail(400).astype(int) - scan).max() == 0
    images = PatchReader(slide, PatchSpec(40, 0.5)).read(np.array([[50.0, 60.0]]))[0]
    np.testing.assert_array_equal(images[0], scan[80:120, 100:140])


def test_what_was_kept_of_the_whole_slide_is_not_taken_for_the_part(fake: Path, monkeypatch: pytest.MonkeyPatch):
    one = open_slide(fake).identity
    monkeypatch.setattr(FakeOpenSlide, "corner", (38, 21))
    assert open_slide(fake).identity != one


def test_an_outline_of_qupath_lies_on_the_tissue():
    folder = case("02-openslide-bounds-and-qupath")
    slide = open_slide(folder / "slide.scn")
    assert slide.shape == (500, 700, 3)
    assert slide.level_shapes == [(500, 700), (250, 350)]
    (region,) = read_regions(folder / "qupath.geojson", slide.mpp)
    assert region.outline.bounds == (30, 30, 320, 220)
    mask = find_tissue(slide)
    assert mask.area_um2 > 0.9 * region.area_mm2 * 1e6
    theirs = np.asarray(openslide.OpenSlide(folder / "slide.scn").read_region((2000, 3000), 0, (700, 500)))[..., :3]
    np.testing.assert_array_equal(whole(slide), theirs)
