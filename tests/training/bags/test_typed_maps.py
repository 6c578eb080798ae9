"""Models of typed expression as models that map: the values of patches are the parts that the ensemble has."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from napari_cpnn.errors import TrainingError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.training.bags import Bags
from napari_cpnn.training.bags.typed import TypedEnsemble, load_typed, map_model, typed_name
from typed_world import GENES, HEADS, TYPES, trained_on_colours


@pytest.fixture(scope="module", params=HEADS)
def trained(request) -> tuple[TypedEnsemble, Bags]:
    return trained_on_colours(request.param)


def mapped(ensemble: TypedEnsemble, features: np.ndarray, cell_type: str) -> np.ndarray:
    """Expression ``(N, G)`` that a map would have, through half precision."""
    model = map_model(ensemble, cell_type)
    _, programs = model.head(torch.from_numpy(features))
    nothing = np.zeros((len(features), 0))
    return model.decoder().expression(nothing, programs.numpy().astype(np.float16), model.genes)


def test_patches_of_bag_linear_have_their_exact_part_and_their_mean_is_the_prediction():
    ensemble, bags = trained_on_colours("bag-linear")
    for c, name in enumerate(TYPES):
        values = mapped(ensemble, bags.features, name)
        for g, gene in enumerate(GENES):
            assert values[:, g] == pytest.approx(ensemble.parts(bags.features, name, gene), abs=5e-3)
        whole = mapped(ensemble, bags.bag(3), name).mean(axis=0)
        assert whole == pytest.approx(ensemble.predict(bags.subset(np.array([3])))[0, c], abs=5e-3)


def test_patches_of_the_typed_head_are_its_parts_in_expression_of_the_type():
    """Computed here again from the parameters, member by member and gene by gene."""
    ensemble, bags = trained_on_colours("typed")
    values = mapped(ensemble, bags.features, "CAFs")
    for g in range(len(GENES)):
        total = np.zeros(len(bags.features))
        for member in ensemble.members:
            w = member.composition.amounts(bags.features)[:, 1]
            slope = member.left[1] @ member.right[1][:, g]
            part = w / member.composition.level[1] * ((bags.features - member.center) @ slope)
            plain = 1e4 * member.profiles[1, g] * np.exp(member.offset[1, g])
            total += np.log1p(plain) + plain / (1 + plain) * part
        assert values[:, g] == pytest.approx(total / len(ensemble.members), abs=5e-3)


def test_on_one_slide_the_order_of_patches_is_that_of_the_parts():
    """One member: its map differs from the exact parts of a slide by one factor and one shift."""
    ensemble, bags = trained_on_colours("typed")
    one = dataclasses.replace(ensemble, members=ensemble.members[:1])
    exact = one.parts(bags.bag(0), "T-cells", "CD3E")
    values = mapped(one, bags.bag(0), "T-cells")[:, GENES.index("CD3E")]
    assert np.corrcoef(exact, values)[0, 1] == pytest.approx(1, abs=1e-4)


def test_a_map_survives_the_file_of_the_model(trained, tmp_path):
    ensemble, bags = trained
    ensemble.save(tmp_path / "typed.safetensors")
    again = load_typed(tmp_path / "typed.safetensors")
    np.testing.assert_array_equal(mapped(again, bags.bag(0), "CAFs"), mapped(ensemble, bags.bag(0), "CAFs"))


def test_a_map_model_maps_images_and_says_what_it_is(trained):
    ensemble, _ = trained
    model = map_model(ensemble, "CAFs")
    assert model.genes == tuple(typed_name(gene, "CAFs") for gene in GENES)
    assert model.cell_types == ()
    images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        weights, programs = model(model.normalize(images))
    assert weights.shape == (2, 0)
    assert programs.shape == (2, model.n_programs)
    assert model.fingerprint != map_model(ensemble, "tumour").fingerprint
    assert model.has_seen("s3.tif")
    assert not model.has_seen("other.tif")
    assert "typed expression of CAFs" in model.title


def test_unknown_types_other_encoders_and_earlier_files_are_refused():
    ensemble, _ = trained_on_colours("typed")
    with pytest.raises(TrainingError, match="no cell type 'B-cells'"):
        map_model(ensemble, "B-cells")
    member = ensemble.members[0]
    before = dataclasses.replace(member, composition=dataclasses.replace(member.composition, level=None))
    with pytest.raises(TrainingError, match="earlier version"):
        map_model(dataclasses.replace(ensemble, members=(before,)), "CAFs")
    other = dataclasses.replace(
        ensemble, settings=ensemble.settings.replace(encoder="he-small", patch=PatchSpec(64, 1.0))
    )
    with pytest.raises(TrainingError, match="21 features, but its encoder he-small gives 512"):
        map_model(other, "CAFs")


def test_tissue_unlike_all_of_the_training_has_finite_values(trained):
    ensemble, bags = trained
    values = mapped(ensemble, bags.features + np.float32(1e5), "CAFs")
    assert np.isfinite(values).all()
