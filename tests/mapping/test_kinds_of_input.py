"""A kind of input is one class and one registration: evaluation, cluster and live map then know it."""

from __future__ import annotations

import numpy as np
import pytest

from fakes import ColorModel
from napari_cpnn import MappingSettings, predict_map
from napari_cpnn.models import Prediction
from napari_cpnn.prediction import INPUTS, PlaceInputs, PlacePredictor, Predictor

SETTINGS = MappingSettings(device="cpu", precision="float32", cache=False)


class PlacedInputs(PlaceInputs):
    """Programs are the position and the slide's width in millimetres; the latter is computed once per slide."""

    n_slides = 0

    def __init__(self, slide, model, predictor, keep=True, context=None):
        super().__init__(slide, model, predictor, keep, context)
        if context is None:
            type(self).n_slides += 1
        self._width_um = slide.shape[1] * slide.mpp[1] if context is None else context

    @property
    def context(self):
        return self._width_um

    def predict(self, images, centers_um):
        weights, _, scores = self._predictor.predict(images)
        return Prediction(weights, (centers_um[:, :1] + self._width_um).astype(np.float32) / 1000, scores)

    def flush(self):
        pass


@pytest.fixture
def placed(monkeypatch) -> ColorModel:
    monkeypatch.setitem(INPUTS, "placed", PlacedInputs)
    monkeypatch.setattr(PlacedInputs, "n_slides", 0)
    model = ColorModel()
    model.input_kind = "placed"
    return model


def test_places_and_live_map_use_a_registered_kind(slide, placed):
    cmap = predict_map(slide, placed, settings=SETTINGS)
    index = np.argwhere(cmap.tissue)
    centers = cmap.grid.centers_um(index)
    expected = (centers[:, 0] + slide.shape[1] * slide.mpp[1]) / 1000
    np.testing.assert_allclose(cmap.programs[cmap.tissue][:, 0], expected, rtol=1e-3)
    prediction, ok = PlacePredictor(slide, placed, Predictor(placed, "cpu", "float32")).predict(centers)
    assert ok.all()
    np.testing.assert_allclose(prediction.programs[:, 0], expected, rtol=1e-6)


def test_on_a_cluster_the_context_is_computed_once(slide, placed):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        cmap = predict_map(slide, placed, client=client, settings=SETTINGS)
    expected = predict_map(slide, ColorModel(), settings=SETTINGS)
    np.testing.assert_allclose(cmap.weights[cmap.tissue], expected.weights[cmap.tissue], atol=1e-3)
    np.testing.assert_allclose(
        cmap.programs[cmap.tissue][:, 0],
        (cmap.grid.centers_um(np.argwhere(cmap.tissue))[:, 0] + slide.shape[1] * slide.mpp[1]) / 1000,
        rtol=1e-3,
    )
    assert PlacedInputs.n_slides <= 2  # that of the mapper, which maps nothing itself, and that of the cluster
