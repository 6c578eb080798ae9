"""Training the head alone, on features that are computed once."""

from __future__ import annotations

import numpy as np
import torch

from napari_cpnn.models import build_model
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.data import inputs as kinds
from napari_cpnn.training.data.inputs import FeatureInputs, is_frozen


def test_only_a_backbone_that_sees_the_same_in_every_epoch_is_frozen():
    assert is_frozen(TrainingSettings(backbone_learning_rate=0))
    assert is_frozen(TrainingSettings(backbone="frozen"))
    assert not is_frozen(TrainingSettings())
    assert not is_frozen(TrainingSettings(backbone="frozen", stain_augment=0.1))
    assert not is_frozen(TrainingSettings(backbone_learning_rate=0, stain_augment=0.1))


def test_the_head_learns_the_same_from_features_as_from_patches(world, quick, tmp_path, monkeypatch):
    from napari_cpnn.training.fit import fit

    settings = quick.replace(backbone_learning_rate=0.0, max_epochs=3, validation="none", precision="float32")
    samples = [world.sample(1, rows=5, cols=6)]
    kept = fit.train(samples, world.prototypes, settings, out=tmp_path / "kept", progress=False)
    monkeypatch.setattr(kinds, "is_frozen", lambda _: False)
    computed = fit.train(samples, world.prototypes, settings, out=tmp_path / "computed", progress=False)
    for one, other in zip(kept.parameters(), computed.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    start = build_model(settings, kept.genes, kept.cell_types, np.ones((3, len(kept.genes))), np.ones(len(kept.genes)))
    for one, other in zip(kept.backbone.parameters(), start.backbone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_mean_over_views_is_the_mean_over_symmetries(world, quick, tmp_path):
    from napari_cpnn.prediction.predictor import Predictor
    from training.prepared import prepare

    settings = quick.replace(symmetries=True, precision="float32", validation="none")
    data = prepare([world.sample(1, rows=3, cols=4)], world.prototypes, settings, tmp_path)
    model = build_model(
        settings, data.genes, world.prototypes.cell_types, world.prototypes.select(data.genes).profiles,
        data.mean_expression(),
    ).eval()  # fmt: skip
    seen = FeatureInputs(settings)
    seen.prepare(data, model, tmp_path)
    assert seen.features.shape == (8, 12, 512)
    ((_, weights, programs),) = seen.predict(model, np.arange(12))
    wanted = Predictor(model, "cpu", "float32", symmetries=True).predict(data.images[np.arange(12)])
    np.testing.assert_allclose(weights, wanted.weights, atol=1e-5)
    np.testing.assert_allclose(programs, wanted.programs, atol=1e-4)
