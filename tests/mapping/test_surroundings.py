"""Live maps of a model that looks at the surroundings of a patch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fakes import MPP, settings, tissue_image
from napari_cpnn.errors import MappingError
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.mapping import DONE, FAILED, SKETCH, UNKNOWN, LiveMapper, Viewport, predict_map
from napari_cpnn.models import CPNN, Triplex
from napari_cpnn.prediction import PlacePredictor, Predictor
from napari_cpnn.prediction.context import CENTER, ContextPlan, keys_of
from napari_cpnn.prediction.feature_store import FeatureStore
from napari_cpnn.slides import PatchReader, Slide
from tiny_triplex import tiny_triplex


@pytest.fixture(autouse=True)
def small_tissue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tissue settings of a small slide, as the defaults that the context goes by."""
    monkeypatch.setattr("napari_cpnn.prediction.context.TissueSettings", lambda: settings().tissue)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return tissue_image(15, 18)


@pytest.fixture
def surrounded() -> CPNN:
    return tiny_triplex()


def at_places(slide: Slide, model: CPNN, centers: np.ndarray) -> np.ndarray:
    """What evaluation says there: weights and programs side by side."""
    prediction, ok = PlacePredictor(slide, model, Predictor(model, "cpu", "float32"), keep=False).predict(centers)
    assert ok.all()
    assert prediction is not None
    return np.concatenate(prediction[:2], axis=1)


def done_values(cmap: object) -> tuple[np.ndarray, np.ndarray]:
    cells = np.argwhere(cmap.state == DONE)
    values = np.concatenate([cmap.weights, cmap.programs], axis=2)[cells[:, 0], cells[:, 1]]
    return cmap.grid.centers_um(cells), values.astype(np.float32)


@pytest.mark.parametrize(
    "max_tokens", [pytest.param(1, marks=pytest.mark.slow), 7, pytest.param(1024, marks=pytest.mark.slow)]
)
def test_a_map_says_what_evaluation_says(slide: Slide, max_tokens: int) -> None:
    model = tiny_triplex(max_tokens=max_tokens)
    cmap = predict_map(slide, model, settings=settings(cache=False))
    assert (cmap.state[cmap.tissue] == DONE).all()
    centers, values = done_values(cmap)
    expected = at_places(slide, model, centers)
    assert expected.std(axis=0).max() > 0.02
    np.testing.assert_allclose(values, expected, atol=1e-3)


@pytest.mark.parametrize("stride", [32.0, 24.0, pytest.param(16.0, marks=pytest.mark.slow)])
def test_any_stride_and_region(slide: Slide, surrounded: CPNN, stride: float) -> None:
    """Neighbours and tokens that no cell stands for are read for their own sake."""
    region = Rect(100, 200, 300, 400)
    cmap = predict_map(slide, surrounded, stride, region, settings=settings(cache=False))
    assert (cmap.state[cmap.tissue] == DONE).all()
    centers, values = done_values(cmap)
    np.testing.assert_allclose(values, at_places(slide, surrounded, centers), atol=1e-3)


def test_the_surroundings_matter(slide: Slide, surrounded: CPNN, image: np.ndarray) -> None:
    """The same patch beside other neighbours, and on a slide with other tissue far away."""
    centers = np.array([[7.5 * 32, 8.5 * 32]])
    before = at_places(slide, surrounded, centers)
    near, far = image.copy(), image.copy()
    near[6 * 32 : 7 * 32, 7 * 32 : 8 * 32] = (90, 90, 180)
    far[11 * 32 : 13 * 32, 13 * 32 : 16 * 32] = (150, 80, 160)
    for changed in (near, far):
        after = at_places(Slide.from_arrays([changed, changed[::4, ::4].copy()], MPP), surrounded, centers)
        assert np.abs(after - before).max() > 1e-3


def test_each_patch_is_read_and_computed_once(slide: Slide, surrounded: CPNN, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[np.ndarray] = []
    cut = PatchReader.read

    def counting(self: PatchReader, centers: np.ndarray):
        read.append(keys_of(centers))
        return cut(self, centers)

    monkeypatch.setattr(PatchReader, "read", counting)
    with LiveMapper(slide, surrounded, settings(cache=False)) as mapper:
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(60)
        keys = np.concatenate(read)
        assert len(np.unique(keys)) == len(keys) == int(mapper.map.tissue.sum())
        backbone = mapper.predictor.model.backbone
        for network in (backbone.target.network, backbone.encoder.network):
            # Batches go through in pieces of eight, the last one filled up.
            assert len(keys) <= network.n_images <= len(keys) + 8 * len(read)


def test_a_value_is_sketched_once_and_final_once(slide: Slide, surrounded: CPNN) -> None:
    """Nothing flickers: each cell has at most one sketch, then one final value."""
    with LiveMapper(slide, surrounded, settings(cache=False, max_batch=16)) as mapper:
        history: dict[tuple[int, int], list[int]] = {}

        def note(cells: np.ndarray) -> None:
            for row, col in cells.tolist():
                history.setdefault((row, col), []).append(int(mapper.map.state[row, col]))

        mapper.map.changed.connect(note)
        mapper.set_viewport(Viewport(Rect(0, 0, 480, 576), 1.0))
        assert mapper.wait_until_mapped(60)
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(60)
    assert len(history) == int(mapper.map.tissue.sum())
    assert {tuple(states) for states in history.values()} <= {(DONE,), (SKETCH, DONE)}
    assert any(len(states) == 2 for states in history.values())


def test_a_view_is_finished_with_its_halo(slide: Slide, surrounded: CPNN) -> None:
    view = Rect(200, 250, 260, 310)
    with LiveMapper(slide, surrounded, settings(cache=False, margin=0.0)) as mapper:
        mapper.set_viewport(Viewport(view, 10.0))
        assert mapper.wait_until_mapped(60)
        window = mapper.grid.window(view)
        assert (mapper.map.state[window] == DONE).all()
        assert (mapper.map.state == UNKNOWN).any()
        progress = mapper.progress()
        assert progress.done == progress.wanted
        cells = np.argwhere(np.isin(mapper.map.state, (DONE,)))
        values = np.concatenate([mapper.map.weights, mapper.map.programs], axis=2)[cells[:, 0], cells[:, 1]]
    expected = at_places(slide, surrounded, mapper.grid.centers_um(cells))
    np.testing.assert_allclose(values, expected, atol=1e-3)


def test_a_sketch_is_shown_and_not_stored(slide: Slide, surrounded: CPNN, tmp_path: Path) -> None:
    view = Viewport(Rect(0, 0, 480, 576), 0.05)  # so far out that every fourth cell is enough
    with LiveMapper(slide, surrounded, settings(cache_dir=str(tmp_path))) as mapper:
        mapper.set_viewport(view)
        assert mapper.wait_until_mapped(60)
        sketched = mapper.map.state == SKETCH
        assert sketched.any()
        assert np.isfinite(mapper.map.weight("Pink")[sketched]).all()
        assert np.isnan(mapper.map.weights[sketched]).all()
        assert (mapper.map.donors()[sketched] == np.flatnonzero(sketched.ravel())).all()
    with LiveMapper(slide, surrounded, settings(cache_dir=str(tmp_path))) as again:
        assert not (again.map.state == SKETCH).any()


def test_features_on_disk_are_taken_by_the_next_map(slide: Slide, surrounded: CPNN, tmp_path: Path) -> None:
    there = settings(cache_dir=str(tmp_path))
    first = predict_map(slide, surrounded, settings=there)
    store = FeatureStore.of(slide, surrounded, "float32", cache_dir=str(tmp_path))
    assert len(store) == int(first.tissue.sum())
    for kept in list(tmp_path.rglob("*.zarr")):  # the map is lost, the features are not
        shutil.rmtree(kept)
    with LiveMapper(slide, surrounded, there) as mapper:
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(60)
        assert mapper.predictor.model.backbone.encoder.network.n_images == 0
        np.testing.assert_allclose(done_values(mapper.map)[1], done_values(first)[1], atol=1e-3)
    other = tiny_triplex()
    other.backbone.encoder.conv.weight.data.mul_(1.5)  # another version of the encoder
    assert len(FeatureStore.of(slide, other, "float32", cache_dir=str(tmp_path))) == 0


def test_a_map_goes_on_where_it_was_stopped(slide: Slide, surrounded: CPNN, tmp_path: Path) -> None:
    """Cells that are restored bring no patch; what their neighbours need of them is on disk, or read again."""
    there = settings(cache_dir=str(tmp_path))
    with LiveMapper(slide, surrounded, there) as mapper:
        mapper.set_viewport(Viewport(Rect(100, 100, 250, 300), 10.0))
        assert mapper.wait_until_mapped(60)
    shutil.rmtree(tmp_path / "napari-cpnn" / "features")
    cmap = predict_map(slide, surrounded, settings=there)
    assert (cmap.state[cmap.tissue] == DONE).all()
    centers, values = done_values(cmap)
    np.testing.assert_allclose(values, at_places(slide, surrounded, centers), atol=1e-3)


def test_a_patch_that_cannot_be_read_is_no_neighbour(
    slide: Slide, surrounded: CPNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = keys_of(np.array([[7.5 * 32, 8.5 * 32], [9.5 * 32, 12.5 * 32]]))
    cut = PatchReader.read

    def failing(self: PatchReader, centers: np.ndarray):
        images, ok = cut(self, centers)
        return images, ok & ~np.isin(keys_of(centers), bad)

    monkeypatch.setattr(PatchReader, "read", failing)
    with pytest.warns(UserWarning, match="2"):
        cmap = predict_map(slide, surrounded, settings=settings(cache=False))
    assert (cmap.state == FAILED).sum() == 2
    assert (cmap.state[cmap.tissue] != UNKNOWN).all()
    centers, values = done_values(cmap)
    np.testing.assert_allclose(values, at_places(slide, surrounded, centers), atol=1e-3)


def test_places_on_glass_and_at_the_border(surrounded: CPNN, image: np.ndarray) -> None:
    """All neighbours background, or beyond the slide: the place itself is enough."""
    picture = np.full_like(image, 245)
    picture[:, 320:] = image[:, :256]
    slide = Slide.from_arrays([picture, picture[::4, ::4].copy()], MPP, name="half")
    places, present = ContextPlan.of(slide, surrounded).blocks([[200.0, 90.0], [1.0, 1.0], [240.0, 464.0]])
    assert present.sum(axis=1).tolist() == [1, 1, 25]
    assert present[:, CENTER].all()
    assert places.shape == (3, 25, 2)
    values = at_places(slide, surrounded, np.array([[200.0, 90.0], [1.0, 1.0]]))
    assert np.isfinite(values).all()


def test_the_order_of_places_and_their_company_do_not_matter(slide: Slide, surrounded: CPNN) -> None:
    rng = np.random.default_rng(3)
    centers = rng.uniform((80, 80), (400, 500), (20, 2))
    order = rng.permutation(20)
    # Frozen features that are known are taken as they are.
    predictor = PlacePredictor(slide, surrounded, Predictor(surrounded, "cpu", "float32"), keep=False)
    all_of_them, again, shuffled, one = (
        np.concatenate(predictor.predict(places)[0][:2], axis=1)
        for places in (centers, centers, centers[order], centers[7:8])
    )
    np.testing.assert_array_equal(again, all_of_them)
    np.testing.assert_allclose(shuffled, all_of_them[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one, all_of_them[7:8], rtol=1e-5, atol=1e-5)
    # Computed anew in other company they may round to the next float16, and then move a prediction by some 5e-5.
    np.testing.assert_allclose(at_places(slide, surrounded, centers[7:8]), all_of_them[7:8], rtol=1e-4, atol=1e-4)


def test_on_a_cluster_the_map_is_the_same(slide: Slide, surrounded: CPNN) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        cmap = predict_map(slide, surrounded, client=client, settings=settings(cache=False))
    assert (cmap.state[cmap.tissue] == DONE).all()
    centers, values = done_values(cmap)
    np.testing.assert_allclose(values, at_places(slide, surrounded, centers), atol=1e-3)


def test_tokens_are_bounded_and_cover_the_tissue(slide: Slide) -> None:
    for most in (1, 5, 40, 1000):
        plan = ContextPlan(slide, tiny_triplex().patch, 32.0, most)
        assert 1 <= len(plan.tokens_um) <= most
        assert plan.spacing_um == plan.step * 32.0
        assert (plan.tissue.coverage_at(plan.tokens_um, 32.0) >= 0.3).all()
    whole = ContextPlan(slide, tiny_triplex().patch, 32.0, 1000)
    assert (
        len(whole.tokens_um)
        == (whole.tissue.coverage(LiveMapper(slide, tiny_triplex(), settings(cache=False)).grid) >= 0.3).sum()
    )
    assert ContextPlan(slide, tiny_triplex().patch, 100.0, 1000).step == 4  # 32, 64, 128: the nearest to 100 um


def test_coverage_of_squares_is_that_of_a_grid(slide: Slide) -> None:
    plan = ContextPlan(slide, tiny_triplex().patch, 32.0, 1000)
    grid = Grid.over(slide.shape[:2], (MPP, MPP), 32.0)
    expected = plan.tissue.coverage(grid).ravel()
    np.testing.assert_allclose(plan.tissue.coverage_at(grid.centers_um(), 32.0), expected, atol=1e-6)


def test_too_many_tokens_for_the_memory_are_said_in_a_sentence(
    slide: Slide, surrounded: CPNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Triplex, tokens: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Triplex, "encode", full)
    with pytest.raises(MappingError, match=r"tokens of coloured do not fit .*max_tokens"):
        predict_map(slide, surrounded, settings=settings(cache=False))
