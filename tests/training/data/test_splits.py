"""Held-out spots and batches."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.errors import TrainingError
from napari_cpnn.training.data.splits import contiguous_quarter, deal_batches, held_out_slide


def test_auto_holds_the_last_of_several_slides_out():
    assert held_out_slide(["A", "B", "C"], "auto") == 2
    assert held_out_slide(["A"], "auto") is None
    assert held_out_slide(["A", "B"], "none") is None


def test_a_slide_can_be_named_with_or_without_its_ending():
    assert held_out_slide(["a.svs", "b.tif"], "a") == 0
    assert held_out_slide(["a.svs", "b.tif"], "b.tif") == 1


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [(["A", "B"], "C", "No slide is called 'C'"), (["A", "A"], "A", "More than one"), (["A"], "A", "only slide")],
)
def test_impossible_hold_outs_are_refused(names, wanted, message):
    with pytest.raises(TrainingError, match=message):
        held_out_slide(names, wanted)


def lattice(rows, cols, pitch, angle=0.0):
    y, x = np.mgrid[:rows, :cols]
    points = np.c_[y.ravel(), x.ravel()] * float(pitch)
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, -s], [s, c]])


@pytest.mark.parametrize("angle", [0.0, 0.001])
def test_quarter_is_contiguous_and_shares_no_tissue_with_training(angle):
    centers = lattice(10, 20, 100, angle)
    train, held_out = contiguous_quarter(centers, patch_um=112)
    assert 40 <= len(held_out) <= 60
    assert not set(train) & set(held_out)
    distance = np.abs(centers[train][:, None] - centers[held_out][None]).max(axis=2)
    assert distance.min() >= 112
    assert centers[held_out][:, 1].min() > centers[train][:, 1].max()  # the far end of the longer side


def test_touching_patches_lose_only_the_seam():
    train, held_out = contiguous_quarter(lattice(10, 20, 200), patch_um=112)
    assert len(train) + len(held_out) == 200


@pytest.mark.parametrize("per_slide", [False, True])
@pytest.mark.parametrize(("n", "size"), [(2, 64), (3, 2), (64, 64), (65, 64), (130, 64), (650, 64), (7, 2)])
def test_batches_are_even_complete_and_never_single(n, size, per_slide):
    batches = deal_batches(np.zeros(n), size, np.random.default_rng(0), per_slide)
    assert sorted(np.concatenate(batches)) == list(range(n))
    sizes = [len(b) for b in batches]
    assert min(sizes) >= 2
    assert max(sizes) <= max(size, 4)
    if not per_slide:
        assert max(sizes) - min(sizes) <= 1


def test_batches_are_mixed_over_slides_in_proportion():
    slides = np.repeat([0, 1, 2], [300, 100, 50])
    for batch in deal_batches(slides, 45, np.random.default_rng(0)):
        np.testing.assert_allclose(np.bincount(slides[batch], minlength=3), [30, 10, 5], atol=2)


def test_batches_per_slide_have_enough_of_each_however_many_there_are():
    slides = np.repeat(np.arange(30), 100)
    batches = deal_batches(slides, 64, np.random.default_rng(0), per_slide=True)
    assert sorted(np.concatenate(batches)) == list(range(3000))
    for batch in batches:
        counts = np.bincount(slides[batch])
        assert counts[counts > 0].min() >= 25
        assert len(batch) <= 64
    assert any(len(np.unique(slides[b])) == 2 for b in batches)


def test_a_slide_with_a_single_spot_never_comes_alone():
    for seed in range(20):
        batches = deal_batches([0, 0, 0, 0, 1], 4, np.random.default_rng(seed), per_slide=True)
        assert sorted(np.concatenate(batches)) == list(range(5))
        assert min(len(b) for b in batches) >= 2


@pytest.mark.parametrize("per_slide", [False, True])
def test_batches_depend_on_the_seed_alone(per_slide):
    slides = np.repeat([0, 1], 50)
    first, again, other = (
        np.concatenate(deal_batches(slides, 16, np.random.default_rng(s), per_slide)) for s in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()
