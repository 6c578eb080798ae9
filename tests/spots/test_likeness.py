"""Which of several slides of one size the small copy beside the spots shows."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cases import case
from napari_cpnn import open_slide, read_spots
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.spots import find_slide
from napari_cpnn.spots.likeness import likeness, most_alike
from slide_files import write_tiff


def tissue(seed: int) -> np.ndarray:
    """Smooth shapes on white glass, 300 x 400 px."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 255, (6, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((400, 300), Image.Resampling.BICUBIC))


@pytest.fixture
def slides(tmp_path):
    opened = [
        open_slide(write_tiff(tmp_path / f"{name}.tif", tissue(i), tile=(64, 64))) for i, name in enumerate("abc")
    ]
    yield opened
    for slide in opened:
        slide.close()


def small(seed: int) -> np.ndarray:
    return np.asarray(Image.fromarray(tissue(seed)).resize((80, 60), Image.Resampling.LANCZOS))


def test_a_slide_is_like_its_own_small_copy_in_any_type(slides):
    for picture in (small(1), small(1) / 255, small(1).mean(axis=2), np.dstack([small(1), np.full((60, 80), 255)])):
        assert likeness(slides[1], picture) > 0.98
    assert abs(likeness(slides[0], small(1))) < 0.5


@pytest.mark.parametrize("picture", [np.zeros((5, 5)), np.full((4, 4, 3), 255), np.empty((0, 3)), np.zeros(3), "text"])
def test_pictures_that_tell_nothing(slides, picture):
    assert likeness(slides[0], picture) is None


def test_the_one_that_is_shown_is_found(slides):
    assert [most_alike(slides, small(i), "run") for i in range(3)] == slides


def test_when_it_cannot_be_told_there_is_none_and_a_warning(slides):
    assert most_alike(slides[:1], None, "run") is slides[0]
    with pytest.warns(CpnnWarning, match="Cannot tell which of the slides a, b, c of equal size belongs to run"):
        assert most_alike(slides, None, "run") is None
    with pytest.warns(CpnnWarning, match="a is as large as the slide of run, but does not resemble the image"):
        assert most_alike(slides[:1], small(2), "run") is None


def test_two_files_of_one_picture_are_one_slide(slides, tmp_path):
    with open_slide(write_tiff(tmp_path / "copy.tif", tissue(1), tile=(32, 32))) as copy:
        assert most_alike([slides[0], copy, slides[1]], small(1), "run") is copy


def test_the_case_of_two_slides_beside_a_run():
    outs = case("10-two-slides-of-one-size-beside-a-run") / "outs"
    with find_slide(outs, read_spots(outs)) as found:
        assert found.path.name == "sectionB.tif"
