"""Places of a map where a gene is high or low."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cpnn.errors import GenesError, MappingError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.mapping.places import require_selection, select_places
from napari_cpnn.models import MARKED_SHARES, PCC_GROUPS, Decoder, Selection, Trust

SHAPE, STRIDE = (24, 30), 50.0


class Model:
    """A calibrated model of two genes: the first can be told at 300 um, the second not at all."""

    fingerprint = "ours"

    def __init__(self, calibrated: bool = True) -> None:
        trust = Trust(2)
        trust.pcc.copy_(torch.tensor([0.5, 0.05]))
        trust.scale_um.copy_(torch.tensor([100.0, -1.0]))
        trust.marked_um.copy_(torch.tensor([100.0, 200.0, 300.0, 400.0, 500.0, 600.0]))
        if calibrated:
            group = PCC_GROUPS.index(0.5)
            trust.false_share[:, 0, group] = 0.4
            trust.false_share[:, 2:, group] = torch.tensor([[0.08, 0.09, 0.2, *[0.3] * 6]])
        self.trust, self.marks_places = trust, calibrated

    def selection(self, gene, side="high", fdr=0.1):
        return self.trust.selection("AB".index(gene), side, fdr)


def world(unlike: bool = False, fingerprint: str = "ours") -> tuple[CompositionMap, np.ndarray]:
    """A map whose first gene is the first program, and that program."""
    rng = np.random.default_rng(0)
    tissue = np.ones(SHAPE, dtype=bool)
    tissue[:6, :9] = False
    ones, none = np.ones(2, np.float32), np.zeros((0, 2), np.float32)
    decoder = Decoder(("A", "B"), (), none, ones, 0 * ones, np.eye(2, dtype=np.float32))
    cmap = CompositionMap(Grid(SHAPE, STRIDE), decoder, tissue, {"model_fingerprint": fingerprint})
    values = (np.sin(np.arange(SHAPE[0]) / 5)[:, None] + rng.normal(0, 0.5, SHAPE)).astype(np.float16)
    at = np.flatnonzero(tissue)
    programs = np.stack([values.ravel()[at], np.zeros(len(at))], axis=1)
    scores = np.full(len(at), 0.5)
    scores[: len(at) // 2] = 0.99 if unlike else 0.5
    cmap.fill(at, np.zeros((len(at), 0)), programs, scores)
    return cmap, np.where(tissue, values.astype(float), np.nan)


def disc_means(values: np.ndarray, radius_um: float) -> np.ndarray:
    """Means over discs, patch by patch."""
    at = np.argwhere(np.isfinite(values))
    result = np.full(values.shape, np.nan)
    for place in at:
        near = at[np.linalg.norm((at - place) * STRIDE, axis=1) <= radius_um + 1e-6]
        result[tuple(place)] = values[tuple(near.T)].mean()
    return result


@pytest.mark.parametrize("side", ["high", "low"])
def test_the_largest_means_over_neighbourhoods_are_marked(side):
    cmap, values = world()
    mask = getattr(cmap, f"places_{side}")("A", Model())
    mean = disc_means(values, 150.0) * (1 if side == "high" else -1)
    n = int(MARKED_SHARES[1] * cmap.tissue.sum())
    assert mask.sum() == n
    assert mean[mask].min() >= np.nanmax(mean[~mask]) - 1e-9
    assert not mask[~cmap.tissue].any()


def test_the_finest_scale_that_reaches_the_rate_is_taken():
    model = Model()
    assert model.selection("A", fdr=0.1) == Selection(300.0, 150.0, MARKED_SHARES[1], pytest.approx(0.09))
    assert model.selection("A", fdr=0.25) == Selection(300.0, 150.0, MARKED_SHARES[2], pytest.approx(0.2))
    assert model.selection("A", fdr=0.45) == Selection(100.0, 0.0, MARKED_SHARES[-1], pytest.approx(0.4))
    model.trust.scale_um[0] = 400.0
    assert model.selection("A", fdr=0.1).scale_um == 400
    model.trust.scale_um[0] = -1.0
    assert model.selection("A", fdr=0.45) is None


def test_single_patches_are_not_averaged():
    cmap, values = world()
    mask = cmap.places_high("A", Model(), fdr=0.45)
    assert values[mask].min() >= np.nanmax(values[~mask])


def test_tissue_unlike_that_of_the_training_is_not_marked():
    (plain, _), (cmap, _) = world(), world(unlike=True)
    familiar = cmap.out_of_domain < 0.9
    np.testing.assert_array_equal(cmap.places_high("A", Model()), plain.places_high("A", Model()) & familiar)
    assert not cmap.places_high("A", Model())[~familiar].any()


def test_a_coarse_map_is_enough_where_neighbourhoods_are_larger():
    cmap, values = world()
    for size, enough in ((2, True), (16, False)):
        coarse = CompositionMap(cmap.grid, cmap.decoder, cmap.tissue)
        some = cmap.lattice.representatives(size)
        some = some[some >= 0]
        coarse.fill(some, np.zeros((len(some), 0)), np.stack([values.ravel()[some]] * 2, axis=1))
        assert (coarse.donors() >= 0).sum() == cmap.tissue.sum()
        if not enough:
            with pytest.raises(MappingError, match=r"^\d+% of the tissue is mapped; map all of it"):
                coarse.places_high("A", Model())
            continue
        mask = coarse.places_high("A", Model())
        mean = disc_means(np.where(cmap.tissue, values.ravel()[coarse.donors()], np.nan), 150.0)
        assert mean[mask].min() >= np.nanmax(mean[~mask]) - 1e-9


@pytest.mark.parametrize(
    ("gene", "model", "fdr", "words"),
    [
        ("B", Model(), 0.1, "Where B is high cannot be told at a false discovery rate of 10%"),
        ("A", Model(), 0.05, "Where A is high cannot be told at a false discovery rate of 5%"),
        ("A", Model(calibrated=False), 0.1, "not known for this model; calibrate it by a cross-validation"),
        ("A", Model(), 1.5, "must be a number between 0 and 1, not 1.5"),
    ],
)
def test_what_is_not_known_is_said(gene, model, fdr, words):
    with pytest.raises(MappingError, match=words):
        world()[0].places_high(gene, model, fdr)


def test_other_models_other_genes_and_small_tissue_are_refused():
    with pytest.raises(MappingError, match="The map was made by another model"):
        world(fingerprint="theirs")[0].places_high("A", Model())
    with pytest.raises(GenesError):
        world()[0].places_high("C", Model())
    cmap, _ = world()
    small = CompositionMap(Grid((8, 8), STRIDE), cmap.decoder)
    small.fill(np.arange(64), np.zeros((64, 0)), np.random.default_rng(1).normal(size=(64, 2)))
    with pytest.raises(MappingError, match="too small for neighbourhoods of 300 um"):
        small.places_high("A", Model())


def test_marked_places_have_a_name_and_a_note():
    cmap, _ = world()
    places = cmap.mark("A", Model(), "low", 0.1)
    assert cmap.marked == {"A low": places}
    assert places.note == (
        "A low: mean over 300 µm below the median of the section, at a false discovery rate of 10% "
        "(on held-out sections, 9% of the places marked for genes like this one were wrong)."
    )


def test_marks_fall_with_the_patches_that_they_rest_on():
    cmap, values = world()
    cmap.mark("A", Model())
    at = np.flatnonzero(cmap.tissue)[:20]
    cmap.fill(at, np.zeros((20, 0)), np.stack([-values.ravel()[at]] * 2, axis=1), np.full(20, 0.5))
    assert cmap.marked == {}
    again = cmap.mark("A", Model())
    assert cmap.marked == {"A high": again}
    cmap.fail(at[:1])
    assert cmap.marked == {}


def test_nothing_is_marked_on_a_map_that_is_not_to_be_believed():
    cmap, values = world()
    at = np.flatnonzero(cmap.tissue)
    scores = np.where(np.arange(len(at)) < 0.6 * len(at), 0.99, 0.5)
    cmap.fill(at, np.zeros((len(at), 0)), np.stack([values.ravel()[at]] * 2, axis=1), scores)
    with pytest.raises(MappingError, match=r"^6\d % of this tissue is unlike .* no place is marked where A is low\.$"):
        cmap.mark("A", Model(), "low")
    assert cmap.marked == {}


@pytest.mark.parametrize(
    ("model", "fdr", "words"),
    [
        (None, 0.1, r"needs the model of the map \(nc.load_model\), not None"),
        ("breast-her2st", 0.1, "not a str"),
        (Model(), "0.1", "a number between 0 and 1, not '0.1'"),
        (Model(), None, "a number between 0 and 1, not None"),
        (Model(), True, "a number between 0 and 1, not True"),
    ],
)
def test_other_things_than_models_and_rates_are_refused(model, fdr, words):
    with pytest.raises(MappingError, match=words):
        world()[0].mark("A", model, "high", fdr)


def test_sides_are_high_and_low_only():
    with pytest.raises(MappingError, match="must be 'high' or 'low', not 'up'"):
        require_selection(Model(), "G", "up", 0.1)


def test_a_gene_that_is_the_same_everywhere_has_no_high_place():
    grid, tissue = Grid((12, 12), 100.0), np.ones((12, 12), dtype=bool)
    donors = np.arange(144).reshape(12, 12)
    values = np.full((12, 12), 3.3, dtype=np.float32)
    with pytest.raises(MappingError, match="same everywhere"):
        select_places(values, donors, tissue, grid, Selection(300.0, 150.0, 0.2, 0.05), "high")
    values[:2] += 1
    marked = select_places(values, donors, tissue, grid, Selection(300.0, 150.0, 0.5, 0.05), "high")
    assert marked[:2].all()
    assert not marked[4:].any()
