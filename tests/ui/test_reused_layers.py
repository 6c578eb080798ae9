"""The next map, of another model or slide, is shown in the layers of the last: adding and removing them is slow."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from tests.ui.conftest import GENES, TYPES, tissue_image, write_slide

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.ui.layers import OVERLAY_KEY


@pytest.fixture
def dock(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(dock.is_settled)
    dock.controller.show_gene("CD3E")
    dock.controller.show_dominant()
    wait(dock.is_drawn)
    return dock


@pytest.fixture
def contrary(model):
    """The same quantities, other values."""
    import torch

    other = deepcopy(model)
    with torch.no_grad():
        other.head.composition[-1].weight *= -1
    return other


@pytest.fixture
def other_genes(model):
    """A model that does not predict CD3E."""
    from napari_cpnn.models import build_model

    genes = tuple("KRT8" if gene == "CD3E" else gene for gene in GENES)
    settings = TrainingSettings(backbone="squeezenet", weights="none", n_programs=2, patch=PatchSpec(64, 1.0))
    profiles = np.full((len(TYPES), len(genes)), 1 / len(genes), dtype=np.float32)
    return build_model(settings, genes, TYPES, profiles, np.ones(len(genes), dtype=np.float32)).eval()


def ours(dock):
    return [layer for layer in dock.viewer.layers if OVERLAY_KEY in layer.metadata]


def pixels(dock, kind):
    dock.session.overlays.repaint()
    return np.array(dock.session.overlays.layer_of(kind).data)


def test_another_model_is_drawn_in_the_same_layers(dock, wait, contrary):
    layers, before = ours(dock), pixels(dock, "dominant")
    dock.controller.use_model(contrary)
    assert not any(layer.visible for layer in layers)  # meanwhile nothing of the former model is on screen
    assert not dock.session.overlays.layer_of("dominant").data.any()
    wait(dock.is_settled)
    wait(dock.is_drawn)
    assert ours(dock) == layers
    after = pixels(dock, "dominant")
    assert after.shape == before.shape
    assert (after[..., 3] > 0).any()
    assert not np.array_equal(after, before)
    gene = dock.session.overlays.layer_of("gene")
    assert not gene.visible
    gene.visible = True  # by the user, who sees the gene of the present model
    dock.session.overlays.paint_now()
    assert gene.data[..., 3].any()


def test_a_slide_of_another_size_and_place_is_drawn_in_the_same_layers(dock, wait, tmp_path):
    layers, first = ours(dock), dock.state.layer
    image = tissue_image()[:1024]
    path = write_slide(tmp_path / "other.tif", image)
    second = dock.viewer.open(str(path), plugin="napari-cpnn")[0]
    second.translate = (300.0, 40.0)
    wait(lambda: dock.state.layer == second and dock.state.map is not None)
    wait(dock.is_settled)
    wait(dock.is_drawn)
    assert set(ours(dock)) == set(layers)
    shown = [layer for layer in layers if layer.visible]
    order = dock.viewer.layers.index
    assert min(map(order, shown)) > order(second)  # the new slide does not lie over them
    overlay = dock.session.overlays.layer_of("dominant")
    shape = dock.session.overlays._overlays["mix"].grid.shape
    assert overlay.data.shape[:2] == shape
    # The outer edge of the first patch is that of the slide, which begins half a pixel before its first centre.
    corner = np.asarray(overlay.data_to_world((-0.5, -0.5)))
    assert corner == pytest.approx(np.asarray(second.data_to_world((-0.5, -0.5))), abs=1e-6)
    dock.session.choose(first)
    wait(lambda: dock.state.map is not None)
    wait(dock.is_settled)
    corner = np.asarray(overlay.data_to_world((-0.5, -0.5)))
    assert corner == pytest.approx(np.asarray(first.data_to_world((-0.5, -0.5))), abs=1e-6)
    assert set(ours(dock)) == set(layers)


def test_the_layer_of_a_gene_that_the_model_does_not_have_is_removed(dock, wait, other_genes):
    gene = dock.session.overlays.layer_of("gene")
    dock.controller.use_model(other_genes)
    wait(dock.is_settled)
    assert gene not in dock.viewer.layers
    assert dock.session.overlays.layer_of("gene") is None
    assert dock.session.overlays.layer_of("dominant").visible


def test_a_slide_that_is_deleted_takes_them_along(dock, wait):
    dock.viewer.layers.remove(dock.state.layer)
    wait(lambda: dock.state.layer is None)
    assert not ours(dock)
