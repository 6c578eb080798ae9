"""Tissue like a chosen patch, against cosines by hand; features are kept."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import napari_cpnn as nc
from napari_cpnn.errors import CpnnError, MappingError
from napari_cpnn.geometry import Grid, PatchSpec, Rect
from napari_cpnn.mapping import LiveMapper, TissueFeatures, tissue_features
from napari_cpnn.models import build_model
from napari_cpnn.prediction import FeatureStore, Predictor
from napari_cpnn.settings import MappingSettings, TrainingSettings
from napari_cpnn.slides import read_patches

SETTINGS = MappingSettings(device="cpu", precision="float32", readers=1)


def test_similarity_is_the_cosine_of_centred_features() -> None:
    rng = np.random.default_rng(0)
    grid = Grid((5, 6), 100.0)
    patches = np.sort(rng.permutation(30)[:22])
    features = rng.normal(size=(22, 8)).astype(np.float32) + 50  # what all patches share hides what differs
    found = TissueFeatures(grid, patches, features.copy(), 100.0).like(
        grid.centers_um([np.unravel_index(patches[4], (5, 6))])[0], n=5
    )
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    expected = centred @ centred[4] / np.linalg.norm(centred, axis=1) / np.linalg.norm(centred[4])
    np.testing.assert_allclose(found.values.ravel()[patches], expected, atol=1e-4)
    assert np.isnan(found.values).sum() == 8
    best = [i for i in np.argsort(-expected) if i != 4][:5]
    assert [int(i) for i in np.ravel_multi_index(tuple(found.places.T), (5, 6))] == [int(patches[i]) for i in best]
    np.testing.assert_allclose(found.scores, expected[best], atol=1e-4)


def test_places_do_not_overlap() -> None:
    rng = np.random.default_rng(1)
    grid, n = Grid((12, 12), 25.0), 144  # patches of 100 um overlap at this stride
    found = TissueFeatures(grid, np.arange(n), rng.normal(size=(n, 4)), 100.0).like((150.0, 150.0))
    chosen = np.concatenate([[found.at], found.places])
    distance = np.abs(chosen[:, None] - chosen[None]).max(axis=-1)
    assert (distance[~np.eye(len(chosen), dtype=bool)] >= 4).all()
    assert 1 <= len(found.places) <= 8
    assert (np.diff(found.scores) <= 0).all()


def test_bad_places_and_too_few_patches_are_told() -> None:
    grid = Grid((4, 4), 10.0)
    features = TissueFeatures(grid, np.arange(1, 16), np.ones((15, 3)), 10.0)
    assert np.nanmax(np.abs(features.like((15.0, 15.0)).values)) == 0  # equal patches: nothing to tell apart
    for outside in ((5.0, 5.0), (-1.0, 0.0), (500.0, 5.0)):
        with pytest.raises(MappingError, match="no tissue of the map at this place"):
            features.like(outside)
    with pytest.raises(MappingError, match="7 patches are too few"):
        TissueFeatures(grid, np.arange(7), np.ones((7, 3)), 10.0)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    profiles = np.full((2, 3), 1 / 3, np.float32)
    settings = TrainingSettings(backbone="squeezenet", weights="none", patch=PatchSpec(64, 2.0))
    return build_model(settings, ("A", "B", "C"), ("X", "Y"), profiles, np.ones(3, np.float32)).eval()


def test_features_are_computed_once_and_kept(model, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path))
    slide = nc.open_slide(nc.sample_folder() / "slide.tiff")
    mapper = LiveMapper(slide, model, SETTINGS, Rect(300, 300, 2000, 2000))
    cmap, predictor = mapper.map, Predictor(model, "cpu", "float32")
    texts: list[str] = []

    def stop(text: str, _done: float) -> None:
        texts.append(text)
        if len(texts) == 2:
            raise CpnnError("enough")

    with pytest.raises(CpnnError, match="enough"):
        tissue_features(slide, model, cmap, SETTINGS, predictor, stop)
    n, store = int(cmap.tissue.sum()), FeatureStore.of(slide, model, "float32")
    assert n > 64
    assert len(store) == 8  # what was done is kept
    found = tissue_features(slide, model, cmap, SETTINGS, predictor)
    centers = cmap.grid.centers_um(np.argwhere(cmap.tissue))
    by_hand = Predictor(model, "cpu", "float32").features(read_patches(slide, centers, model.patch)).astype(np.float64)
    by_hand -= by_hand.mean(axis=0)
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    similar = found.like(centers[3])
    np.testing.assert_allclose(similar.values[cmap.tissue], by_hand @ by_hand[3], atol=0.02)  # kept in float16

    def never(*_: object) -> None:
        raise AssertionError("features were computed again")

    monkeypatch.setattr(predictor, "features", never)
    again = tissue_features(slide, model, cmap, SETTINGS, predictor).like(centers[3])
    np.testing.assert_array_equal(again.values, similar.values)
    mapper.stop()
    slide.close()


@pytest.mark.parametrize(("speed", "sizes"), [(0.01, [8, 16, 32, 64]), (0.5, [8, 8, 8, 8])], ids=["GPU", "busy CPU"])
def test_progress_comes_every_few_seconds(model, tmp_path, monkeypatch, speed, sizes) -> None:
    """``speed`` in seconds per patch."""
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path))
    slide, now = nc.open_slide(nc.sample_folder() / "slide.tiff"), [0.0]
    mapper = LiveMapper(slide, model, SETTINGS, Rect(300, 300, 4000, 4000))
    predictor, told = Predictor(model, "cpu", "float32"), []

    def features(images):
        now[0] += speed * len(images)
        return np.ones((len(images), 512), np.float32)

    monkeypatch.setattr(predictor, "features", features)
    monkeypatch.setattr("napari_cpnn.mapping.similarity.time", SimpleNamespace(monotonic=lambda: now[0]))

    def progress(_text: str, done: float) -> None:
        told.append((now[0], done))

    tissue_features(slide, model, mapper.map, SETTINGS, predictor, progress)
    n = np.rint(np.diff([done for _, done in told]) * mapper.map.tissue.sum()).astype(int)
    assert n[:4].tolist() == sizes
    assert np.diff([at for at, _ in told]).max() <= 4.0
    mapper.stop()
    slide.close()
