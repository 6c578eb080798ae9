"""The out-of-domain score on its way from the network into the map and onto disk."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr

from fakes import ColorModel, settings
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap, map_files, predict_map
from napari_cpnn.models.prediction import Prediction
from napari_cpnn.prediction import Predictor

RNG = np.random.default_rng(2)
SHAPE = (5, 7)


@pytest.fixture
def cmap(model):
    """Half of the cells done; one of them without a score."""
    made = CompositionMap(Grid(SHAPE, 32.0), model.decoder())
    made.fill(np.arange(15), RNG.dirichlet(np.ones(3), 15), RNG.normal(size=(15, 1)), np.r_[RNG.random(14), np.nan])
    return made


def test_scores_lie_beside_the_weights(cmap):
    scores = cmap.out_of_domain
    assert scores.shape == SHAPE
    assert scores.dtype == np.float16
    assert np.isnan(scores.ravel()[14:]).all()
    assert np.isfinite(scores.ravel()[:14]).all()
    scores[:] = 0  # a copy
    assert np.isnan(cmap.out_of_domain[-1]).all()


def test_a_cell_without_a_score_is_done_all_the_same(cmap):
    assert np.isfinite(cmap.weights.reshape(-1, 3)[14]).all()
    cmap.fill(np.array([0]), np.full((1, 3), 1 / 3), np.zeros((1, 1)))  # computed again by a model that cannot tell
    assert np.isnan(cmap.out_of_domain[0, 0])
    weights, programs, scores = cmap.block((slice(0, 2), slice(1, 3)))
    np.testing.assert_array_equal(scores, cmap.out_of_domain[0:2, 1:3])
    assert weights.shape[:2] == programs.shape[:2] == scores.shape


def test_a_map_says_how_much_of_it_is_unlike_the_training_tissue(model):
    cmap = CompositionMap(Grid((1, 8), 32.0), model.decoder())
    assert "unlike" not in repr(cmap)
    cmap.fill(np.arange(8), np.full((8, 3), 1 / 3), np.zeros((8, 1)), np.r_[np.full(6, 0.95), 0.96, 1.0])
    assert "8 of 8 tissue patches done, 25% of them unlike the training tissue, 3 cell types" in repr(cmap)


def test_a_coarser_cell_lends_its_score_too(model):
    cmap = CompositionMap(Grid((8, 8), 32.0), model.decoder())
    cell = int(cmap.lattice.representatives(4)[0, 1])
    cmap.fill(np.array([cell]), np.full((1, 3), 1 / 3), np.zeros((1, 1)), np.array([0.25]))
    assert cmap.values_at(3, 7).out_of_domain == 0.25


def test_a_failed_cell_has_no_score(cmap):
    cmap.fill(np.array([20]), np.full((1, 3), np.nan), np.zeros((1, 1)), np.array([0.4]))
    cmap.fail(np.array([1]))
    assert np.isnan(cmap.out_of_domain.ravel()[[1, 20]]).all()


def test_saved_and_loaded(cmap, tmp_path):
    cmap.save(tmp_path / "map.zarr")
    again = CompositionMap.load(tmp_path / "map.zarr")
    np.testing.assert_array_equal(again.out_of_domain, cmap.out_of_domain)
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "map.zarr")["out_of_domain"][...], cmap.out_of_domain)


def test_a_map_of_an_earlier_version_has_none(cmap, tmp_path):
    cmap.save(tmp_path / "map.zarr")
    shutil.rmtree(tmp_path / "map.zarr" / "out_of_domain")
    again = CompositionMap.load(tmp_path / "map.zarr")
    assert np.isnan(again.out_of_domain).all()
    np.testing.assert_array_equal(again.weights, cmap.weights)


def test_an_earlier_map_of_a_plain_head_has_none(tmp_path):
    from napari_cpnn.models.decoder import Decoder

    ones = np.ones(2, np.float32)
    decoder = Decoder(("A", "B"), (), np.zeros((0, 2), np.float32), ones, ones, np.ones((3, 2), np.float32))
    cmap = CompositionMap(Grid(SHAPE, 32.0), decoder)
    cmap.fill(np.array([3]), np.zeros((1, 0)), np.ones((1, 3)), np.array([0.7]))
    cmap.save(tmp_path / "map.zarr")
    assert CompositionMap.load(tmp_path / "map.zarr").out_of_domain[0, 3] == np.float16(0.7)
    shutil.rmtree(tmp_path / "map.zarr" / "out_of_domain")
    assert np.isnan(CompositionMap.load(tmp_path / "map.zarr").out_of_domain).all()


@pytest.mark.parametrize("at", ["weights", "out_of_domain", "state"])
def test_a_save_that_is_killed_leaves_the_old_map(cmap, tmp_path, monkeypatch, at):
    cmap.save(tmp_path / "map.zarr")
    before = cmap.out_of_domain
    cmap.fill(np.arange(5), RNG.dirichlet(np.ones(3), 5), np.zeros((5, 1)), np.zeros(5))
    create = map_files.create_array

    def killed(group, name, array, **options):
        if name == at:
            raise KeyboardInterrupt
        create(group, name, array, **options)

    monkeypatch.setattr(map_files, "create_array", killed)
    with pytest.raises(KeyboardInterrupt):
        cmap.save(tmp_path / "map.zarr")
    np.testing.assert_array_equal(CompositionMap.load(tmp_path / "map.zarr").out_of_domain, before)


def test_the_cache_gives_scores_back_and_takes_up_those_of_an_earlier_version(slide, model, tmp_path):
    chosen = settings(cache_dir=str(tmp_path))
    first = predict_map(slide, model, settings=chosen)
    (path,) = tmp_path.rglob("*.zarr")

    class Counting(ColorModel):
        def forward(self, x):
            raise AssertionError("everything is in the cache")

    again = predict_map(slide, Counting().eval(), settings=chosen)
    np.testing.assert_array_equal(again.out_of_domain, first.out_of_domain)
    shutil.rmtree(path / "out_of_domain")
    old = predict_map(slide, Counting().eval(), settings=chosen)
    assert np.isnan(old.out_of_domain).all()
    np.testing.assert_array_equal(old.weights, first.weights)
    # What is computed from now on has scores, beside what has none.
    group = zarr.open_group(path, mode="r+")
    state = group["state"][...]
    (missing,) = np.argwhere(state == 2)[:1]
    group["state"][tuple(missing)] = 0
    mixed = predict_map(slide, model, settings=chosen)
    assert np.isfinite(mixed.out_of_domain).sum() == 1
    assert np.isfinite(mixed.out_of_domain[tuple(missing)])
    np.testing.assert_array_equal(zarr.open_group(path)["out_of_domain"][...], mixed.out_of_domain)


def test_a_mapped_slide_holds_what_the_network_says(slide, model, image):
    cmap = predict_map(slide, model, settings=settings(cache=False))
    done = np.argwhere(cmap.tissue)
    patches = np.stack([image[r * 32 : r * 32 + 32, c * 32 : c * 32 + 32] for r, c in done])
    expected = patches.astype(float).mean(axis=(1, 2, 3)) / 300  # what ColorModel takes for unlike: bright
    np.testing.assert_allclose(cmap.out_of_domain[tuple(done.T)].astype(float), expected, atol=1e-3)
    assert np.isnan(cmap.out_of_domain[~cmap.tissue]).all()


def test_on_a_cluster_too(slide, model):
    distributed = pytest.importorskip("distributed")
    here = predict_map(slide, model, settings=settings(cache=False))
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = predict_map(slide, model, client=client, settings=settings(cache=False))
    assert np.isfinite(there.out_of_domain[there.tissue]).all()
    np.testing.assert_allclose(there.out_of_domain.astype(float), here.out_of_domain.astype(float), atol=1e-3)


def test_memory_that_runs_out_loses_no_score(model):
    images = RNG.integers(0, 255, (11, 32, 32, 3), dtype=np.uint8)
    expected = Predictor(model, "cpu", "float32").predict(images)
    assert isinstance(expected, Prediction)

    class Small(ColorModel):
        def forward(self, x):
            if len(x) > 3:
                raise RuntimeError("can't allocate memory")
            return super().forward(x)

    found = Predictor(Small().eval(), "cpu", "float32").predict(images)
    np.testing.assert_allclose(found.out_of_domain, expected.out_of_domain, atol=1e-6)
    assert found.out_of_domain.dtype == np.float32
