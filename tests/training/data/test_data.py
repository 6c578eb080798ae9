"""Samples become batches: the right patches with the right targets, and clear refusals."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from napari_cpnn import DeconvolutionSettings, Slide, deconvolve
from napari_cpnn.errors import CpnnWarning, GenesError, PixelSizeError, SlideError, SpotsError, TrainingError
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.models import build_model
from napari_cpnn.slides import read_patches
from napari_cpnn.training.fit.module import CpnnTraining
from training.prepared import batches_of, patches_of, prepare


def change_counts(spots, where, value):
    counts = spots.layers["counts"].toarray()
    counts[where] = value
    spots.layers["counts"] = sparse.csr_matrix(counts)


def reordered(spots, names):
    return spots[:, names].copy()


def test_patches_targets_and_shares_belong_together(world, quick, tmp_path):
    quick = quick.replace(deconvolution="nnls")  # each spot by itself, in whatever order
    samples = [world.sample(1, name="one"), world.sample(2, rows=6, name="two")]
    samples[1] = samples[1][0], reordered(samples[1][1], list(world.prototypes.genes)[::-1])
    data = prepare(samples, world.prototypes, quick, tmp_path)
    assert data.slides == ("one", "two")
    assert data.held_out_name == "two"
    assert set(data.slide_of[data.train]) == {0}
    assert set(data.slide_of[data.held_out]) == {1}
    for i, (slide, spots) in enumerate(samples):
        rows = np.flatnonzero(data.slide_of == i)
        wanted = read_patches(slide, spatial_to_um(spots.obsm["spatial"], slide.mpp), quick.patch)
        # The order within a slide is free: each row must match one spot in all of patch, target and shares.
        counts = spots.layers["counts"].toarray().astype(float)
        columns = [list(spots.var_names).index(g) for g in data.genes]
        targets = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))[:, columns]
        shares = deconvolve(spots, world.prototypes, DeconvolutionSettings(method=quick.deconvolution)).to_numpy()
        match = [int(np.flatnonzero((wanted == image).all(axis=(1, 2, 3)))[0]) for image in data.images[rows]]
        assert sorted(match) == list(range(spots.n_obs))
        np.testing.assert_allclose(data.targets[rows], targets[match], rtol=1e-5)
        np.testing.assert_allclose(data.shares[rows], shares[match], atol=1e-6)
    np.testing.assert_allclose(data.mean_expression(), data.targets[data.train].mean(axis=0), rtol=1e-5)


def test_genes_are_shared_by_all_and_seen_often_enough_in_training_spots(world, quick, tmp_path):
    first, second = world.sample(1), world.sample(2)
    change_counts(first[1], (slice(None), 3), 0)  # frequent in the held-out slide, absent in training
    missing = reordered(second[1], [g for g in second[1].var_names if g != "GENE5"])
    data = prepare([first, (second[0], missing)], world.prototypes, quick.replace(min_spot_fraction=0.6), tmp_path)
    counts = first[1].layers["counts"].toarray()
    frequent = [g for g, n in zip(first[1].var_names, (counts > 0).mean(axis=0), strict=True) if n >= 0.6]
    assert list(data.genes) == [g for g in frequent if g != "GENE5"]
    assert "GENE3" not in data.genes


def test_single_slide_holds_a_part_out_and_mixes_nothing(world, quick, tmp_path):
    data = prepare([world.sample(1, rows=8, cols=16)], world.prototypes, quick, tmp_path)
    assert data.held_out_name == "a quarter of slide1"
    assert len(data.held_out) == 32
    assert len(data.train) == 96


def test_none_trains_on_everything(world, quick, tmp_path):
    data = prepare([world.sample(1)], world.prototypes, quick.replace(validation="none"), tmp_path)
    assert len(data.train) == 90
    assert not len(data.held_out)


class HalfBroken(Slide):
    """Reads fail in the upper half."""

    def read_region(self, y, x, height, width, level=0):
        if y < 100:
            raise SlideError("bad tile")
        return super().read_region(y, x, height, width, level)


def test_unreadable_patches_are_dropped_and_counted(world, quick, tmp_path):
    slide, spots = world.sample(1)
    broken = HalfBroken.from_arrays([np.asarray(slide.levels[0])], 0.5, name="broken")
    with pytest.warns(CpnnWarning, match=r"40 of 90 patches of broken cannot be read"):
        data = prepare([(broken, spots)], world.prototypes, quick.replace(validation="none"), tmp_path)
    assert len(data.train) == 50
    assert len(data.images) == len(data.targets) == len(data.shares) == 50


def test_spots_without_counts_are_dropped_and_counted(world, quick, tmp_path):
    slide, spots = world.sample(1)
    change_counts(spots, slice(7), 0)
    with pytest.warns(CpnnWarning, match="7 of 90 spots of slide1"):
        data = prepare([(slide, spots)], world.prototypes, quick.replace(validation="none"), tmp_path)
    assert len(data.train) == 83


def without_pixel_size(slide, spots):
    return Slide.from_arrays([np.asarray(slide.levels[0])], None, name="bare"), spots


def renamed(slide, spots):
    spots.var_names = [f"ENSG0000000{i:04d}" for i in range(spots.n_vars)]
    return slide, spots


def without_positions(slide, spots):
    del spots.obsm["spatial"]
    return slide, spots


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda slide, spots: (slide, spots[:0].copy()), TrainingError, "has no spots"),
        (lambda slide, spots: (slide, spots[:1].copy()), TrainingError, "Only 1 spot"),
        (renamed, GenesError, "share no gene names: .*Ensembl ids"),
        (without_pixel_size, PixelSizeError, "bare has no pixel size"),
        (without_positions, SpotsError, "spatial"),
        (lambda slide, spots: (slide, AnnData(spots.X, var=spots.var, obsm=spots.obsm)), SpotsError, "counts"),
    ],
)
def test_impossible_samples_are_refused(world, quick, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        prepare([change(*world.sample(1))], world.prototypes, quick.replace(validation="none"), tmp_path)


def fractional(slide, spots):
    spots.layers["counts"] = spots.layers["counts"].astype(np.float32) * 0.37
    return slide, spots


def log_transformed(slide, spots):
    spots.layers["counts"] = spots.layers["counts"].astype(np.float32).log1p()
    return slide, spots


def with_missing_counts(slide, spots):
    spots.layers["counts"] = spots.layers["counts"].astype(np.float32)
    spots.layers["counts"].data[5] = np.nan
    return slide, spots


def negative(slide, spots):
    spots.layers["counts"].data[5] = -1
    return slide, spots


def silent(slide, spots):
    spots.layers["counts"] = sparse.csr_matrix(spots.shape, dtype=np.int32)
    return slide, spots


@pytest.mark.parametrize("validation", ["auto", "none"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (fractional, SpotsError, r"slide1 does not hold raw counts \(it has fractional values"),
        (log_transformed, SpotsError, "log-transformed"),
        (with_missing_counts, SpotsError, "missing or infinite values"),
        (negative, SpotsError, "the smallest value is -1"),
        (silent, TrainingError, "None of the 90 spots of slide1 has counts and a position"),
    ],
)
def test_tables_that_hold_no_counts_are_refused(world, quick, tmp_path, change, error, message, validation):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CpnnWarning)
        with pytest.raises(error, match=message):
            prepare([change(*world.sample(1))], world.prototypes, quick.replace(validation=validation), tmp_path)


def test_spots_without_a_position_are_dropped_and_counted(world, quick, tmp_path):
    slide, spots = world.sample(1)
    spots.obsm["spatial"][:4] = np.nan
    spots.obsm["spatial"][4, 0] = np.inf
    with pytest.warns(CpnnWarning, match="5 of 90 spots of slide1 have no counts or no position"):
        data = prepare([(slide, spots)], world.prototypes, quick.replace(validation="none"), tmp_path)
    assert len(data.train) == 85
    assert list(data.targets.sum(axis=1) > 0) == [True] * 85


def test_a_held_out_slide_with_a_single_spot(world, quick, tmp_path):
    first, second = world.sample(1), world.sample(2)
    change_counts(second[1], slice(1, None), 0)
    with (
        pytest.warns(CpnnWarning, match="left out"),
        pytest.raises(TrainingError, match=r"slide2 is held out and has 1 usable spot\(s\), but a correlation needs"),
    ):
        prepare([first, second], world.prototypes, quick, tmp_path)


def test_a_training_slide_with_a_single_spot_is_no_trouble(world, quick, tmp_path):
    """Its spot comes with those of another slide, and has no correlation of its own."""
    lonely, other = world.sample(1), world.sample(2)
    samples = [(lonely[0], lonely[1][:1].copy()), other]
    settings = quick.replace(validation="none", batch_size=20)
    data = prepare(samples, world.prototypes, settings, tmp_path)
    chosen = world.prototypes.select(data.genes)
    model = build_model(settings, data.genes, chosen.cell_types, chosen.profiles, data.mean_expression())
    module = CpnnTraining(model, patches_of(data, settings), settings, "float32")
    for batch in batches_of(data, settings).train_dataloader():
        assert len(batch["slide"]) >= 2
        loss = sum(module.terms(batch).values())
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_no_samples(world, quick, tmp_path):
    with pytest.raises(TrainingError, match="at least one slide"):
        prepare([], world.prototypes, quick, tmp_path)


def test_all_genes_filtered(world, quick, tmp_path):
    slide, spots = world.sample(1)
    change_counts(spots, slice(10, None), 0)
    change_counts(spots, (slice(None), 0), 1)
    spots.var_names = ["OTHER", *spots.var_names[1:]]  # not among the prototypes, and all that most spots have
    settings = quick.replace(validation="none", min_spot_fraction=0.2)
    with pytest.raises(TrainingError, match=r"None of the 39 shared genes is detected in 20% of the 90"):
        prepare([(slide, spots)], world.prototypes, settings, tmp_path)


def test_too_little_disk_space(world, quick, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 1000})())
    with pytest.raises(TrainingError, match="are free; free some space"):
        prepare([world.sample(1)], world.prototypes, quick, tmp_path)


def test_batches_repeat_with_the_seed_and_change_with_the_epoch(world, quick, tmp_path):
    data = prepare([world.sample(1)], world.prototypes, quick.replace(validation="none"), tmp_path)

    def epoch(seed, number):
        loader = batches_of(data, quick.replace(seed=seed, batch_size=30)).train_dataloader()
        loader.sampler.set_epoch(number)
        return [batch["images"].numpy().copy() for batch in loader]

    first, again, later, other = epoch(0, 0), epoch(0, 0), epoch(0, 1), epoch(1, 0)
    assert [len(b) for b in first] == [30, 30, 30]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not all((a == b).all() for a, b in zip(first, later, strict=True))
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))


def test_held_out_batches_are_in_order_and_unturned(world, quick, tmp_path):
    data = prepare([world.sample(1), world.sample(2)], world.prototypes, quick, tmp_path)
    images = np.concatenate([b["images"].numpy() for b in batches_of(data, quick).val_dataloader()])
    assert (images == data.images[data.held_out]).all()


def test_a_disk_that_fills_up_while_targets_are_written(world, quick, tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "targets.f32").symlink_to(full)
    with pytest.raises(TrainingError, match=r"targets\.f32 cannot be written \(No space left on device\)"):
        prepare([world.sample(1)], world.prototypes, quick, tmp_path)
