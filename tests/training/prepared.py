"""Samples as a run prepares them, for tests of single steps."""

from __future__ import annotations

from napari_cpnn.training.data import SpotDataModule, check_samples, spot_data
from napari_cpnn.training.data.inputs import PatchInputs


def prepare(samples, prototypes, settings, folder, known=None):
    return spot_data.prepare(check_samples(samples, settings), prototypes, settings, folder, known=known)


def patches_of(data, settings, folder=None):
    """The patches of all spots, as inputs of a network that learns."""
    inputs = PatchInputs(settings)
    inputs.prepare(data, None, folder)
    return inputs


def batches_of(data, settings):
    return SpotDataModule(data, patches_of(data, settings), settings)
