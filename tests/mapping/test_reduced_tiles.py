"""Maps whose patches are read from JPEG tiles at reduced scale: nearly the same, by choice, and kept apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coloured_slide import image, model
from fakes import MPP, ColorModel, settings
from napari_cpnn.mapping import DONE, LiveMapper, predict_map
from napari_cpnn.slides import Slide, open_slide
from slide_files import write_tiff

__all__ = ["image", "model"]


@pytest.fixture
def slide(tmp_path: Path, image: np.ndarray) -> Slide:
    """Twice as fine as the patches, in JPEG tiles."""
    finer = image.repeat(2, axis=0).repeat(2, axis=1)
    path = write_tiff(tmp_path / "fine.tif", finer, tile=(64, 64), compression="jpeg", compressionargs={"level": 95})
    return open_slide(path, mpp=MPP / 2)


def test_it_reads_other_pixels_of_the_same_places(slide: Slide, model: ColorModel, tmp_path: Path):
    kept = settings(cache_dir=str(tmp_path))
    chosen = kept.replace(reduced_tiles=True)
    before = predict_map(slide, model, settings=kept)
    after = predict_map(slide, model, settings=chosen)
    assert "reduced_tiles" not in before.provenance
    assert after.provenance["reduced_tiles"] is True
    assert after.provenance["slide_identity"] == slide.identity
    np.testing.assert_array_equal(before.tissue, after.tissue)
    assert (after.state[after.tissue] == DONE).all()
    difference = np.abs(before.weights - after.weights)[after.tissue]
    assert 0 < difference.max() < 0.05
    # Each finds its own map again, and neither that of the other.
    for wanted, cmap in ((kept, before), (chosen, after)):
        with LiveMapper(slide, model, wanted) as mapper:
            np.testing.assert_array_equal(mapper.map.weights, cmap.weights)


def test_threads_processes_and_views_read_the_same(slide: Slide, model: ColorModel):
    chosen = settings(cache=False, reduced_tiles=True, max_batch=64)
    one = predict_map(slide, model, settings=chosen)
    other = predict_map(slide, model, settings=chosen.replace(reader_processes=1))
    for part in ("weights", "programs"):
        ours, theirs = (getattr(cmap, part).astype(float) for cmap in (one, other))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)  # float16; products of another size round differently


def test_where_there_is_nothing_to_shrink_it_changes_nothing(
    image: np.ndarray, model: ColorModel, tmp_path: Path, slide: Slide
):
    plain = Slide.from_arrays([image], MPP)
    kept = settings(cache_dir=str(tmp_path))
    before = predict_map(plain, model, settings=kept)
    with LiveMapper(plain, model, kept.replace(reduced_tiles=True)) as mapper:
        assert mapper.read_slide is plain
        np.testing.assert_array_equal(mapper.map.weights, before.weights)
