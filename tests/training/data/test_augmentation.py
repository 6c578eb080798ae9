"""Turns, flips and stains of training patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import separate_stains

from napari_cpnn.training.data.augmentation import _stain_matrix, apply_stains, apply_symmetries, draw_stains
from training.prepared import batches_of, prepare


def test_symmetries_are_the_eight_of_the_square():
    patch = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    views = apply_symmetries(np.repeat(patch, 8, axis=0), np.arange(8))
    assert (views[0] == patch[0]).all()
    assert len({v.tobytes() for v in views}) == 8
    transforms = [np.rot90(f, k) for f in (patch[0], patch[0][:, ::-1]) for k in range(4)]
    assert {v.tobytes() for v in views} == {np.ascontiguousarray(t).tobytes() for t in transforms}


@pytest.fixture
def images():
    """Patches whose colours are mixtures of the two stains, with some noise."""
    rng = np.random.default_rng(0)
    amounts = rng.gamma(2.0, 0.2, (5, 16, 16, 2))
    density = amounts @ _stain_matrix().numpy()[:2] + rng.normal(0, 0.01, (5, 16, 16, 3))
    return torch.from_numpy(np.clip(256 * np.exp(-density) - 1, 0, 255).round().astype(np.uint8))


def concentrations(images):
    """By scikit-image, whose densities are in units of ``-log(1e-6)``."""
    unit = -np.log(1e-6)
    return unit * separate_stains((images.numpy() + 1) / 256, np.linalg.inv(_stain_matrix().numpy()))


def test_no_change_is_no_change(images):
    neutral = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).repeat(5, 1, 1)
    assert torch.equal(apply_stains(images, neutral), images)


def test_concentrations_are_scaled_and_shifted_as_asked(images):
    changes = torch.tensor([[[1.2, 0.8], [0.05, -0.02]]] * 5)
    before, after = concentrations(images), concentrations(apply_stains(images, changes))
    # Eight bits, and black and white, leave a little.
    inside = ((images > 20) & (images < 235)).all(dim=3).numpy()
    wanted = before * [1.2, 0.8, 1.0] + [0.05, -0.02, 0.0]
    difference = np.abs(after - wanted)[inside]
    assert np.median(difference) < 0.01
    assert np.quantile(difference, 0.99) < 0.08


def test_each_patch_gets_its_own_change(images):
    changes = torch.from_numpy(draw_stains(5, 0.2, np.random.default_rng(1)))
    together = apply_stains(images, changes)
    for i in range(5):
        assert torch.equal(together[i], apply_stains(images[i : i + 1], changes[i : i + 1])[0])
    assert together.dtype == torch.uint8
    assert together.shape == images.shape


def test_draws_have_the_strength_that_is_asked_for():
    drawn = draw_stains(20_000, 0.1, np.random.default_rng(0))
    assert drawn[:, 0].mean() == pytest.approx(1, abs=0.005)
    assert drawn[:, 0].std() == pytest.approx(0.1, rel=0.03)
    assert drawn[:, 1].mean() == pytest.approx(0, abs=0.001)
    assert drawn[:, 1].std() == pytest.approx(0.02, rel=0.03)
    assert draw_stains(10_000, 1.0, np.random.default_rng(0))[:, 0].min() == 0


@pytest.mark.parametrize("unit", ["slide", "patch"])
def test_batches_carry_stains_of_slides_or_of_patches(world, quick, tmp_path, unit):
    samples = [world.sample(1, rows=4), world.sample(2, rows=4), world.sample(3, rows=4)]
    settings = quick.replace(stain_augment=0.1, stain_unit=unit, validation="none", batch_size=30)
    data = prepare(samples, world.prototypes, settings, tmp_path)

    def epoch(number):
        loader = batches_of(data, settings).train_dataloader()
        loader.sampler.set_epoch(number)
        return list(loader)

    batches = epoch(0)
    for batch in batches:
        assert batch["stains"].shape == (len(batch["slide"]), 2, 2)
        n_different = len(torch.unique(batch["stains"], dim=0))
        assert n_different == len(torch.unique(batch["slide"]) if unit == "slide" else batch["slide"])
    assert all(torch.equal(a["stains"], b["stains"]) for a, b in zip(batches, epoch(0), strict=True))
    assert not torch.equal(batches[0]["stains"][0], epoch(1)[0]["stains"][0])


def test_without_it_batches_are_as_they_were(world, quick, tmp_path):
    data = prepare([world.sample(1)], world.prototypes, quick.replace(validation="none"), tmp_path)
    batches = {
        strength: list(batches_of(data, quick.replace(stain_augment=strength)).train_dataloader())
        for strength in (0.0, 0.1)
    }
    assert "stains" not in batches[0.0][0]
    assert torch.equal(batches[0.0][0]["images"], batches[0.1][0]["images"])
    held_out = next(iter(batches_of(data, quick.replace(stain_augment=0.1)).in_order(data.train)))
    assert "stains" not in held_out
