"""Features of a frozen network on disk: which are taken again, and which never."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_cpnn.errors import CpnnWarning, TrainingError
from napari_cpnn.models import ENCODERS
from napari_cpnn.prediction import Predictor
from napari_cpnn.slides import PatchReader
from napari_cpnn.training.data.feature_cache import FeatureCache
from napari_cpnn.training.data.inputs import FeatureInputs
from napari_cpnn.training.fit import fit


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two versions of the weights of an encoder."""
    paths = [tmp_path_factory.mktemp("weights") / f"version{i}.safetensors" for i in range(2)]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        save_file(ENCODERS["squeezenet"].build("none").state_dict(), path)
    return paths


@pytest.fixture
def settings(quick, weights):
    return quick.replace(
        backbone="frozen", encoder="squeezenet", encoder_weights=str(weights[0]), max_epochs=2, validation="none",
        precision="float32",
    )  # fmt: skip


@pytest.fixture
def looked(monkeypatch):
    """Counts of patches: cut, and seen by the network in each of their symmetries."""
    counts = {"cut": 0, "seen": 0}
    read, look = PatchReader.read, Predictor.patch_features

    def counted_read(self, centers_um):
        counts["cut"] += len(centers_um)
        return read(self, centers_um)

    def counted_look(self, images):
        counts["seen"] += len(images)
        return look(self, images)

    monkeypatch.setattr(PatchReader, "read", counted_read)
    monkeypatch.setattr(Predictor, "patch_features", counted_look)
    return counts


@pytest.fixture
def run(world, tmp_path, looked):
    """Train on one section, and say how many patches were cut and looked at."""

    def train(settings, sample=None, name=None):
        looked.update(cut=0, seen=0)
        sample = sample or world.sample(1, rows=5, cols=6)
        out = tmp_path / (name or f"run{len(list(tmp_path.glob('run*')))}")
        return fit.train([sample], world.prototypes, settings, out=out, progress=False), dict(looked)

    return train


def test_a_second_run_reads_no_slide_and_learns_the_same(run, settings):
    first, counts = run(settings)
    assert counts == {"cut": 30, "seen": 8 * 30}
    second, counts = run(settings)
    assert counts == {"cut": 0, "seen": 0}
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    # Another head on the same spots sees the same.
    _, counts = run(settings.replace(head="linear", composition_weight=0.0, free_mixture=0.0, n_programs=0))
    assert counts == {"cut": 0, "seen": 0}


@pytest.mark.parametrize(("symmetries", "of_held_out"), [(False, 1), (True, 8)])
def test_a_slide_that_is_held_out_is_looked_at_as_it_lies(world, settings, tmp_path, looked, symmetries, of_held_out):
    """Other symmetries of its patches are needed only if predictions are averaged over them."""
    samples = [world.sample(number, rows=5, cols=6) for number in (1, 2)]
    settings = settings.replace(validation="slide2", symmetries=symmetries)
    model = fit.train(samples, world.prototypes, settings, out=tmp_path / "run", progress=False)
    assert looked["seen"] == (8 + of_held_out) * 30
    assert np.isfinite(model.provenance["metrics"]["held_out"]["pcc_mean"])
    looked.update(seen=0)
    # Trained on, it is seen in the ones that are missing.
    settings = settings.replace(validation="slide1")
    fit.train(samples, world.prototypes, settings, out=tmp_path / "other", progress=False)
    assert looked["seen"] == (8 - of_held_out) * 30


@pytest.mark.parametrize("change", ["encoder version", "patch", "places", "symmetries", "slide", "pixel size"])
def test_features_of_anything_else_are_not_taken(run, world, settings, weights, change):
    run(settings)
    sample = slide, spots = world.sample(1, rows=5, cols=6)
    wanted = 8 * 30
    if change == "encoder version":
        settings = settings.replace(encoder_weights=str(weights[1]))
    elif change == "patch":
        settings = settings.replace(patch=type(settings.patch)(32, 0.6))
    elif change == "places":
        spots.obsm["spatial"] = spots.obsm["spatial"] + [0.25, 0]
    elif change == "symmetries":
        settings, wanted = settings.replace(augment=False), 0  # one of the eight is all that is needed
    elif change == "slide":
        sample = world.sample(2, rows=5, cols=6)
    else:
        sample = slide.with_mpp(0.5 * 1.0001), spots
    _, counts = run(settings, sample)
    assert counts["seen"] == wanted


def test_random_weights_are_the_ones_of_their_seed(run, settings):
    random = settings.replace(encoder_weights="none", seed=1)
    run(random)
    assert run(random)[1] == {"cut": 0, "seen": 0}
    assert run(random.replace(seed=2))[1] == {"cut": 0, "seen": 240}  # the patches are there


def test_a_run_with_an_encoder_that_stays_out_of_the_file(run, settings, tmp_path):
    torch.manual_seed(3)
    path = tmp_path / "ciga.safetensors"
    save_file(ENCODERS["ciga"].build("none").state_dict(), path)
    model, _ = run(settings.replace(encoder="ciga", encoder_weights=str(path)), name="ciga")
    assert model.provenance["encoder"]["name"] == "ciga"
    assert (tmp_path / "ciga" / "model.safetensors").stat().st_size < 4e6 < path.stat().st_size
    assert model.provenance["metrics"] == {}


def test_a_backbone_of_rate_zero_uses_them_too(run, settings, weights):
    still = settings.replace(backbone="squeezenet", weights=str(weights[0]), backbone_learning_rate=0.0)
    run(still)
    assert run(still)[1] == {"cut": 0, "seen": 0}


def test_damaged_features_are_made_anew(run, settings, private_cache):
    first, _ = run(settings)
    (path,) = (p for p in private_cache.glob("patches/*/00003-*.npy") if np.load(p).ndim == 2)
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.warns(CpnnWarning, match="Cached features of slide1 were damaged"):
        second, counts = run(settings)
    assert counts == {"cut": 0, "seen": 30}  # the patches are whole
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_nothing_is_kept_when_asked_not_to(run, settings, private_cache):
    run(settings.replace(patch_cache="none"))
    assert not list(private_cache.glob("patches/**/*.npy"))
    assert run(settings.replace(patch_cache="none"))[1] == {"cut": 30, "seen": 240}


def test_features_of_a_slide_with_unreadable_patches_are_not_kept(run, world, settings, monkeypatch):
    read = PatchReader.read

    def failing(self, centers_um):
        images, ok = read(self, centers_um)
        ok[::7] = False
        return images, ok

    monkeypatch.setattr(PatchReader, "read", failing)
    for _ in range(2):
        with pytest.warns(CpnnWarning, match=r"of slide1 cannot be read and are left out"):
            _, counts = run(settings)
        assert counts["seen"] == 8 * 30


def test_patches_that_vanish_after_their_features_were_kept(world, settings, tmp_path, monkeypatch):
    from napari_cpnn.training.data.patch_cache import PatchCache
    from training.prepared import prepare

    slide, spots = world.sample(1, rows=5, cols=6)
    network = ENCODERS["squeezenet"].build(settings.encoder_weights)
    from napari_cpnn.models.backbones.frozen import FrozenEncoder

    known = FeatureCache(settings, tmp_path, FrozenEncoder(network))
    assert known.n_missing(slide, slide_centers(slide, spots))
    data = prepare([(slide, spots)], world.prototypes, settings, tmp_path, known=known)
    model = fit.build_model(
        settings, data.genes, world.prototypes.cell_types, world.prototypes.select(data.genes).profiles,
        data.mean_expression(),
    )  # fmt: skip
    FeatureInputs(settings).prepare(data, model, tmp_path)
    later = prepare([(slide, spots)], world.prototypes, settings, tmp_path, known=known)
    assert np.array_equal(later.images[:], data.images[:])
    later = prepare([(slide, spots)], world.prototypes, settings, tmp_path, known=known)
    monkeypatch.setattr(PatchCache, "read", lambda *_: ([np.asarray(data.images[:])], np.zeros(30, dtype=bool)))
    with pytest.raises(TrainingError, match="30 patches of slide1 can no longer be read"):
        later.images[:3]


def slide_centers(slide, spots):
    return spots.obsm["spatial"][:, ::-1] * slide.mpp


def test_encoders_side_by_side_learn_end_to_end(run, settings, weights, tmp_path):
    both = settings.replace(
        encoder="squeezenet+colour", encoder_weights=os.pathsep.join([str(weights[0]), "pretrained"])
    )
    model, counts = run(both)
    assert counts == {"cut": 30, "seen": 8 * 30}
    # Standardised on the training patches, whichever way the features came.
    assert torch.isfinite(model.backbone.center).all()
    assert model.backbone.spread[-21:-18].min() > 0
    again, counts = run(both)
    assert counts == {"cut": 0, "seen": 0}
    assert again.fingerprint == model.fingerprint
    _, counts = run(settings.replace(encoder="colour", encoder_weights="none"))
    assert counts["seen"] == 240
    assert run(both.replace(stain_augment=0.1))[0].backbone.center.allclose(model.backbone.center, atol=1e-3)
