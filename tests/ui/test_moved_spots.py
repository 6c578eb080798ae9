"""Spots that were moved are moved again when their slide is opened again."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.samples import SAMPLE_FILES, cache_folder, sample_folder
from napari_cpnn.slides import open_slide
from napari_cpnn.spots import move_back, read_spots
from napari_cpnn.ui.compare.spots_controller import SpotsController
from napari_cpnn.ui.viewer.slide_memory import Memory, keep, recall
from napari_cpnn.ui.viewer.state import ExploreState


def test_moved_spots_are_moved_again_with_their_slide(slide_path):
    """Opened again or dropped again; and a move that was taken back is forgotten."""
    path = sample_folder() / SAMPLE_FILES["spots"]
    there = read_spots(path).obsm["spatial"]

    def at_once(work, done, failed):
        done(work())

    def opened() -> SpotsController:
        state = ExploreState()
        slide = open_slide(slide_path)
        state.set_slide(None, slide, recall(slide))
        return SpotsController(state, at_once, lambda error: pytest.fail(str(error)))

    def closed(controller: SpotsController) -> None:
        keep(controller.state.slide, controller.state.memory)

    first = opened()
    first.open(path)
    first.fix_by("0.5 0 10 0 0.5 0")
    first.fix_by("1 0 -4 0 1 3")
    expected = there * 0.5 + (6, 3)
    np.testing.assert_allclose(first.table.obsm["spatial"], expected)
    closed(first)

    again = opened()
    again.recall()
    np.testing.assert_allclose(again.table.obsm["spatial"], expected)
    dropped = opened()
    dropped.use(dropped.moved_as_before(read_spots(path), path), path)
    np.testing.assert_allclose(dropped.table.obsm["spatial"], expected)
    before_the_slide = SpotsController(ExploreState(), at_once, lambda error: pytest.fail(str(error)))
    before_the_slide.use(read_spots(path), path)
    before_the_slide.state.set_slide(None, first.state.slide, recall(first.state.slide))
    np.testing.assert_allclose(before_the_slide.table.obsm["spatial"], expected)
    before_the_slide.state.history.undo()  # nothing was done yet, so nothing is taken back
    np.testing.assert_allclose(before_the_slide.table.obsm["spatial"], expected)

    again.apply_fix(move_back(again.table))
    np.testing.assert_allclose(again.table.obsm["spatial"], there)
    assert again.state.memory.move is None
    again.state.history.undo()
    np.testing.assert_allclose(again.table.obsm["spatial"], expected)
    assert again.state.memory.move is not None
    again.apply_fix(move_back(again.table))
    closed(again)
    third = opened()
    third.recall()
    np.testing.assert_array_equal(third.table.obsm["spatial"], there)


@pytest.mark.parametrize(
    "text", ['{"move": ["by", [1, 0, 0]]}', '{"move": 3}', '{"move": ["by", [1, 0, 0, 0, 1, "x"]]}']
)
def test_a_move_that_survives_and_one_that_is_damaged(slide_path, text):
    slide = open_slide(slide_path)
    memory = Memory(spots=("a.h5ad",), move=("turned", (0.0, -1.0, 9.5, 1.0, 0.0, 0.0)))
    keep(slide, memory)
    assert recall(slide) == memory
    next((cache_folder() / "slides").glob("*.json")).write_text(text)
    assert recall(slide) == Memory()
