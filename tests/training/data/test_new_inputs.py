"""A backbone with inputs of its own: one class and one entry each for the network and its inputs."""

from __future__ import annotations

import torch
from torch import nn

from napari_cpnn import load_model, train
from napari_cpnn.models import BACKBONES
from napari_cpnn.models.backbones import build
from napari_cpnn.models.backbones.backbone import Backbone
from napari_cpnn.training.data import inputs
from napari_cpnn.training.data.inputs import PatchInputs


class Weighed(nn.Module, Backbone):
    """Sum of a trained network's features and a frozen encoder's, weighed by a number per spot."""

    image_networks = ("target", "encoder")
    n_features = 512

    def __init__(self, target, encoder):
        super().__init__()
        self.target, self.encoder = target, encoder.requires_grad_(False).eval()

    def own_features(self, images):
        return self.encoder(images)

    def patch_features(self, images):
        return self.target(images) + self.encoder(images)

    def predict(self, images, surroundings=None):
        return self.patch_features(images), self.own_features(images)


class WeighedInputs(PatchInputs):
    """Patches with a weight, which is 1."""

    def batch(self, rows, symmetries=None):
        return {**super().batch(rows, symmetries), "weight": torch.ones(len(rows), 1)}

    def views(self, model, batch, bfloat16):
        return (self.patch_features(model, batch, bfloat16) * batch["weight"],)


def test_a_fourth_kind_is_trained_saved_and_read(world, quick, tmp_path, monkeypatch):
    kind = build._Kind("target", lambda network, encoder, _: Weighed(network, encoder), lambda s: {"target": s.target})
    monkeypatch.setitem(BACKBONES, "weighed", "of this test")
    monkeypatch.setitem(build._KINDS, "weighed", kind)
    monkeypatch.setitem(inputs.INPUTS, "weighed", WeighedInputs)
    settings = quick.replace(
        backbone="weighed", target="squeezenet", encoder="squeezenet", encoder_weights="none", max_epochs=1
    )
    before = build.start_backbone(settings).network
    model = train([world.sample(1, rows=5)], world.prototypes, settings, tmp_path, progress=False)
    assert load_model(tmp_path / "model.safetensors").fingerprint == model.fingerprint
    changed = {
        name.split(".")[0]
        for name, value in before.state_dict().items()
        if not torch.equal(value, model.backbone.state_dict()[name])
    }
    assert changed == {"target"}
    assert not model.needs_surroundings
    assert model.provenance["metrics"]["held_out"]["n_genes"] > 0
