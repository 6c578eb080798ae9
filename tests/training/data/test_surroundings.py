"""What surrounds the spots of a run, and how far apart the tokens of their slides are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cpnn import Slide
from napari_cpnn.errors import TrainingError
from napari_cpnn.models import SlideTokens, Surroundings, build_model
from napari_cpnn.models.triplex import turned
from napari_cpnn.prediction import SlideSurroundings
from napari_cpnn.prediction.context import CENTER
from napari_cpnn.prediction.predictor import Predictor
from napari_cpnn.training.data import check_samples, inputs_for
from napari_cpnn.training.data.augmentation import apply_symmetries
from napari_cpnn.training.data.surroundings import SpotSurroundings, around, spot_surroundings
from training.prepared import prepare
from training.triplex_world import MPP, SETTINGS, on_glass, shrink


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture
def samples(world):
    return [on_glass(world.sample(1, rows=4, cols=5)), on_glass(world.sample(2, rows=3, cols=4))]


def model_for(data, world, settings=SETTINGS):
    profiles = world.prototypes.select(data.genes).profiles
    return build_model(settings, data.genes, world.prototypes.cell_types, profiles, data.mean_expression()).eval()


def seen(samples, world, tmp_path, settings=SETTINGS):
    tmp_path.mkdir(exist_ok=True)
    data = prepare(samples, world.prototypes, settings, tmp_path)
    model = model_for(data, world, settings)
    return data, spot_surroundings(data, model, settings, tmp_path), model


def test_they_are_those_that_maps_and_evaluation_see(samples, world, tmp_path):
    data, found, model = seen(samples, world, tmp_path)
    assert found.neighbours.dtype == np.float16
    assert 0 < found.present.mean() < 1  # some neighbours are on glass
    for i, (slide, _) in enumerate(samples):
        rows = np.flatnonzero(data.slide_of == i)
        expected = SlideSurroundings(slide, model, Predictor(model, "cpu", "float32"), keep=False)
        there = expected.at(found.places_um[rows])
        assert np.array_equal(found.present[rows], there.present.numpy())
        own = Predictor(model, "cpu", "float32").features(data.images[rows])
        for got, wanted in (
            (found.neighbours[rows], there.neighbours),
            (found.slides[i].features, expected.tokens.features),
            (found.own(rows), own),
        ):  # within one step of float16, since they were computed in other company
            np.testing.assert_allclose(np.float32(got), wanted, rtol=1e-3, atol=1e-6)
        assert found.present[rows, CENTER].all()


def test_features_are_computed_once_per_slide_and_encoder(samples, world, tmp_path, private_cache, monkeypatch):
    looked_at = []
    original = Predictor.features
    monkeypatch.setattr(Predictor, "features", lambda p, x: looked_at.append(len(x)) or original(p, x))
    _, first, _ = seen(samples, world, tmp_path / "a")
    n_places = sum(looked_at)
    looked_at.clear()
    _, again, _ = seen(samples, world, tmp_path / "b")
    assert n_places > 0
    assert not looked_at
    assert np.array_equal(first.neighbours, again.neighbours)
    assert len(list((private_cache / "features").iterdir())) == 2
    # Another seed means other random weights of the encoder, whose features are not these.
    _, other, _ = seen(samples, world, tmp_path / "c", SETTINGS.replace(seed=1))
    assert sum(looked_at) == n_places
    assert len(list((private_cache / "features").iterdir())) == 4
    assert not np.array_equal(first.neighbours, other.neighbours)


def test_nothing_is_kept_when_that_is_asked_for(samples, world, tmp_path, private_cache):
    _, kept, _ = seen(samples, world, tmp_path / "a")
    used = set(private_cache.rglob("*.safetensors"))
    _, found, _ = seen(samples, world, tmp_path / "b", SETTINGS.replace(patch_cache="none", patch=SETTINGS.patch))
    assert set(private_cache.rglob("*.safetensors")) == used
    assert np.array_equal(found.neighbours, kept.neighbours)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_full_disk_is_one_sentence(samples, world, tmp_path):
    data = prepare(samples, world.prototypes, SETTINGS, tmp_path)
    (tmp_path / "neighbours.f16").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"neighbours.f16 cannot be written \(No space left on device\); free some"):
        spot_surroundings(data, model_for(data, world), SETTINGS, tmp_path)


def some(n=6, n_features=5):
    rng = np.random.default_rng(0)
    neighbours = rng.normal(size=(n, 25, n_features)).astype(np.float16)
    present = rng.random((n, 25)) > 0.3
    places = rng.random((n, 2)).astype(np.float32) * 500
    slides = {k: SlideTokens(torch.randn(4 + k, n_features), torch.rand(4 + k, 2) * 500, 100.0) for k in range(3)}
    return SpotSurroundings(neighbours, present, places, np.array([0, 0, 1, 1, 2, 2]), slides)


def test_a_batch_has_the_slides_of_its_spots_only():
    spots = some()
    rows = np.array([5, 1, 4])
    found = spots.at(rows)
    assert isinstance(found, Surroundings)
    assert found.slide_of.tolist() == [1, 0, 1]
    assert [len(slide.features) for slide in found.slides] == [4, 6]
    assert found.neighbours.dtype == torch.float32
    np.testing.assert_array_equal(found.neighbours.numpy(), spots.neighbours[rows])


def test_blocks_are_turned_as_their_patches_are():
    spots, rows, symmetries = some(8 - 2), np.arange(6), np.array([0, 3, 5, 6, 7, 2])
    batch = {**spots.batch(rows, symmetries), "slide": torch.from_numpy(spots.slide_of[rows])}
    found = around(batch, spots.slides)
    images = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    patches = apply_symmetries(images, symmetries)
    for i, symmetry in enumerate(symmetries):
        expected = spots.at(rows[i : i + 1]).turned(int(symmetry))
        assert torch.equal(found.neighbours[i : i + 1], expected.neighbours)
        assert torch.equal(found.present[i : i + 1], expected.present)
        # Patches are turned here by numpy and at test time by torch; both mean the same.
        image = turned(torch.from_numpy(images[i : i + 1]).permute(0, 3, 1, 2), int(symmetry))
        assert np.array_equal(image.permute(0, 2, 3, 1).numpy(), patches[i : i + 1])


def arranged(sample, pixels, name=None):
    slide, spots = sample
    spots = spots[: len(pixels)].copy()
    spots.obsm["spatial"] = np.asarray(pixels, dtype=float)
    return Slide.from_arrays([np.asarray(slide.levels[0])], MPP, name=name or slide.name), spots


def square(n=20, step=32.0):
    y, x = np.divmod(np.arange(n), 5)
    return np.c_[x * step + 16, y * step + 16]


def hexagonal(n=20, step=32.0):
    y, x = np.divmod(np.arange(n), 5)
    return np.c_[(x + y % 2 / 2) * step + 16, y * step * 3**0.5 / 2 + 16]


def scattered(n=20):
    return np.random.default_rng(3).uniform(0, 150, (n, 2))


def completed(samples, settings):
    return inputs_for(settings).complete(check_samples(samples, settings)[0])


@pytest.mark.filterwarnings("ignore::napari_cpnn.errors.CpnnWarning")
def test_the_pitch_is_that_of_the_training_spots(world):
    sample = world.sample(1, rows=4, cols=5)
    asked = SETTINGS.replace(context_pitch_um=None, validation="none")
    for place, expected in ((square(), 128.0), (hexagonal(), 128.0), (square(step=50.0), 200.0)):
        found = completed([arranged(sample, place)], asked).context_pitch_um
        assert found == pytest.approx(expected, rel=1e-3)
    three = [arranged(sample, p, str(i)) for i, p in enumerate((square(), square(step=40.0), square(step=80.0)))]
    assert completed(three, asked).context_pitch_um == pytest.approx(160.0)
    # What is held out has no say: the last slide.
    assert completed(three, asked.replace(validation="auto")).context_pitch_um == pytest.approx(144.0)
    # Nor has a slide of a few spots, on which no array can be seen.
    few = [arranged(sample, scattered(4), "few"), arranged(sample, square())]
    assert completed(few, asked).context_pitch_um == pytest.approx(128.0)


@pytest.mark.filterwarnings("ignore::napari_cpnn.errors.CpnnWarning")
def test_a_pitch_that_is_set_and_other_backbones_are_left_alone(world):
    sample = arranged(world.sample(1, rows=4, cols=5), scattered())
    assert completed([sample], SETTINGS) is SETTINGS
    other = SETTINGS.replace(backbone="squeezenet", context_pitch_um=None)
    assert completed([sample], other) is other


@pytest.mark.filterwarnings("ignore::napari_cpnn.errors.CpnnWarning")
def test_an_array_that_cannot_be_recognised_is_one_sentence(world):
    sample = arranged(world.sample(1, rows=4, cols=5), scattered(), "odd")
    with pytest.raises(TrainingError, match=r"odd lie on no array .* set context_pitch_um"):
        completed([sample], SETTINGS.replace(context_pitch_um=None))


def test_a_slide_of_tokens_is_bounded(samples, world, tmp_path):
    _, found, _ = seen(samples, world, tmp_path, SETTINGS.replace(max_tokens=2))
    assert all(len(tokens.features) <= 2 for tokens in found.slides.values())
