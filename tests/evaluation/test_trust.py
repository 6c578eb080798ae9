"""Intervals and scales, on simulated spots whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import HeldOutSpots, fit_trust
from napari_cpnn.evaluation.trust import _resampled, _Sorted, neighbourhoods
from napari_cpnn.models import NO_SCALE, NOT_TESTED, Trust
from napari_cpnn.models.trust_ranges import implausible

SIDE = 20


def spots(
    predicted: np.ndarray, measured: np.ndarray, patient: str = "A", shares=None, weights=None, genes=None
) -> HeldOutSpots:
    n, n_genes = predicted.shape
    at = np.stack(np.divmod(np.arange(n), SIDE), axis=1) * 200.0
    table = AnnData(
        predicted.astype(np.float32),
        obs=pd.DataFrame(index=[str(i) for i in range(n)]),
        var=pd.DataFrame(index=[f"G{g}" for g in range(n_genes)]),
        layers={"measured": measured.astype(np.float32)},
        obsm={"spatial": at[:, ::-1] / 0.5, "weights": np.zeros((n, 0)) if weights is None else weights},
    )
    table.uns["comparison"] = {"mpp": np.array([0.5, 0.5])}
    return HeldOutSpots.of_table(table, list(table.var_names) if genes is None else genes, patient, shares)


def drawn(rng: np.random.Generator, n: int, n_genes: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and measurements, with errors that grow with the level; half of the genes are mostly 0."""
    predicted = rng.gamma(2.0, 0.5, (n, n_genes))
    measured = predicted + rng.normal(0, 0.2 + 0.3 * predicted)
    counts = rng.poisson(0.4 * predicted[:, n_genes // 2 :])
    return predicted, np.concatenate([np.maximum(measured[:, : n_genes // 2], 0), np.log1p(counts)], axis=1)


def test_intervals_cover_nine_of_ten_new_spots_at_every_level():
    rng = np.random.default_rng(0)
    trust = fit_trust([spots(*drawn(rng, 400)) for _ in range(3)])
    predicted, measured = drawn(rng, 4000)
    covered, high_level = [], []
    for g in range(predicted.shape[1]):
        low, high = trust.interval(g, predicted[:, g])
        inside = (low <= measured[:, g] + 1e-6) & (measured[:, g] <= high + 1e-6)
        covered.append(inside.mean())
        high_level.append(inside[predicted[:, g] > 2].mean())
        assert (low >= 0).all()
        assert (low <= high).all()
    continuous, sparse = np.split(np.array(covered), 2)
    assert 0.88 < continuous.mean() < 0.92
    assert 0.89 < sparse.mean() < 0.96  # most measurements are 0: an interval cannot cover part of them
    assert np.mean(high_level) > 0.86  # one width for all levels would cover .78 here


def test_an_offset_is_the_order_statistic_of_the_residuals():
    rng = np.random.default_rng(1)
    n = 99
    residuals = rng.normal(size=n)
    predicted = np.full((n, 1), 50.0)
    trust = fit_trust([spots(predicted, predicted + residuals[:, None])])
    low, high = trust.interval(0, [50.0])
    # Of n + 1 spots, 5 % are 5: the new one is below the 5th smallest of 99 with a probability of at most 5 %.
    ranked = np.sort(residuals)
    assert float(low[0]) == pytest.approx(50 + ranked[4], abs=1e-4)
    assert float(high[0]) == pytest.approx(50 + ranked[94], abs=0.35)
    assert np.isnan(trust.interval(0, [np.nan])[0]).all()


def test_each_patient_has_the_same_weight():
    """300 spots of one patient with errors of 1 and 100 of another with errors of 3: half of new spots are of each."""
    rng = np.random.default_rng(2)
    many, few = np.full((300, 1), 50.0), np.full((100, 1), 50.0)
    trust = fit_trust(
        [spots(many, many + rng.normal(0, 1, many.shape), "A"), spots(few, few + rng.normal(0, 3, few.shape), "B")]
    )
    low, high = (float(v[0]) for v in trust.interval(0, [50.0]))
    new = 50 + np.concatenate([rng.normal(0, 1, 50000), rng.normal(0, 3, 50000)])
    assert 0.87 < ((new > low) & (new < high)).mean() < 0.93


def test_scales():
    """Signal at every spot, signal that only neighbourhoods show, and none."""
    rng = np.random.default_rng(6)
    n = SIDE * SIDE
    row, column = np.divmod(np.arange(n), SIDE)
    smooth = np.sin(row / 3) + np.cos(column / 4)

    def genes(noise):
        return np.stack([smooth + rng.normal(0, 0.3, n), smooth + rng.normal(0, noise, n), rng.normal(0, 1, n)], 1)

    tested = [
        spots(genes(5.0) + 20, np.stack([smooth, smooth, smooth], 1) + rng.normal(0, 0.3, (n, 3)) + 20)
        for _ in range(3)
    ]
    trust = fit_trust(tested)
    assert float(trust.scale_um[0]) == 200
    assert 200 < float(trust.scale_um[1]) <= 900
    assert float(trust.scale_um[2]) == NO_SCALE
    expected = np.mean([np.corrcoef(t.predicted[:, 1], t.measured[:, 1])[0, 1] for t in tested])
    assert float(trust.pcc[1]) == pytest.approx(expected, abs=1e-4)


def test_slopes_are_those_of_lines_within_slides():
    """Of two patients with one and two slides, against lines fitted by least squares with these weights."""
    rng = np.random.default_rng(5)
    slides = []
    for patient, offset in (("A", 0.0), ("B", 3.0), ("B", -2.0)):
        predicted = rng.normal(5, 1, (300, 4))
        measured = 7 + offset + np.array([1.0, 0.25, -0.5, 0.0]) * (predicted - 5) + rng.normal(0, 0.4, (300, 4))
        slides.append(spots(predicted, measured, patient))
    slides[1].measured[:, 2] = np.nan
    slides[0].predicted[:, 3] = slides[1].predicted[:, 3] = slides[2].predicted[:, 3] = 2.0
    trust = fit_trust(slides)
    for gene, expected in enumerate([1.0, 0.25, -0.5]):
        known = [i for i, slide in enumerate(slides) if np.isfinite(slide.measured[:, gene]).all()]
        p, m = (
            np.concatenate([getattr(slides[i], what)[:, gene] for i in known]) for what in ("predicted", "measured")
        )
        weight = np.repeat([1.0 if i == 0 else 0.5 for i in known], 300)
        design = np.column_stack([p, np.kron(np.eye(len(known)), np.ones((300, 1)))])
        root = np.sqrt(weight)
        line = np.linalg.lstsq(design * root[:, None], m * root, rcond=None)[0]
        assert trust.slope_of(gene) == pytest.approx(line[0], abs=1e-5)
        assert trust.slope_of(gene) == pytest.approx(expected, abs=0.1)
    assert np.isnan(trust.slope_of(3))  # a constant prediction
    assert [bool(trust.spread_note(gene)) for gene in range(4)] == [False, True, True, False]


def test_neighbourhoods_are_means_over_a_disc():
    at = np.random.default_rng(7).uniform(0, 1000, (60, 2))
    near = np.linalg.norm(at[:, None] - at[None], axis=2) <= 210
    np.testing.assert_allclose(neighbourhoods(at, 210.0).toarray(), near / near.sum(axis=1, keepdims=True))


def test_cell_types_come_after_the_genes():
    rng = np.random.default_rng(8)
    predicted, measured = drawn(rng, 100, 4)
    weights, shares = rng.dirichlet(np.ones(3), 100), rng.dirichlet(np.ones(3), 100)
    one = spots(predicted, measured, shares=shares, weights=weights)
    trust = fit_trust([one])
    assert trust.pcc.shape == (7,)
    assert float(trust.pcc[5]) == pytest.approx(np.corrcoef(weights[:, 1], shares[:, 1])[0, 1], abs=1e-5)


def test_few_spots_constant_genes_and_other_genes():
    rng = np.random.default_rng(9)
    with pytest.raises(
        TrainingError, match="19 spots that the model has not seen are too few to calibrate intervals; 20 are needed"
    ):
        fit_trust([spots(*drawn(rng, 19))])
    trust = fit_trust([spots(np.zeros((40, 1)), np.zeros((40, 1)))])
    assert [float(v[0]) for v in trust.interval(0, [0.0])] == [0.0, 0.0]
    predicted, measured = drawn(rng, 40, 2)
    predicted[3] = np.nan
    assert np.isfinite(fit_trust([spots(predicted, measured)]).interval(0, [1.0])).all()


def test_a_gene_that_no_slide_measures_is_left_open():
    predicted, measured = drawn(np.random.default_rng(10), 100, 2)
    trust = fit_trust([spots(predicted, measured, genes=["G1", "unmeasured", "G0"])])
    assert float(trust.scale_um[1]) == NOT_TESTED
    assert trust.interval(1, [1.0])[1] > 1000
    alone = fit_trust([spots(predicted, measured)])
    assert trust.interval(0, [1.0]) == alone.interval(1, [1.0])


def test_trust_of_a_constant_prediction_is_defined():
    assert isinstance(fit_trust([spots(np.ones((40, 1)), np.random.default_rng(1).random((40, 1)))]), Trust)


@pytest.mark.parametrize(
    ("values", "centers"),
    [([1.0] * 16 + [2.0] * 24, [1, 1, 2]), ([1.0] * 24 + [2.0] * 16, [1, 1, 2]), ([1.0] * 10 + [2.0] * 30, [1, 2, 2]),
     ([1.0] * 30 + [2.0] * 10, [1, 1, 1]), ([1.0] * 16 + [2.0] * 20 + [3.0] * 4, [1, 1, 2]), ([1.0] * 40, [1, 1, 1])],
)  # fmt: skip
def test_levels_rise_also_where_predictions_are_tied(values, centers):
    predicted = np.array(values)[:, None]
    trust = fit_trust([spots(predicted, predicted + np.random.default_rng(14).normal(0, 0.2, predicted.shape))])
    np.testing.assert_array_equal(trust.centers[:, 0].numpy(), centers)
    assert not implausible({name: values.numpy() for name, values in trust.named_buffers()})


def test_a_prediction_lies_in_its_own_interval_and_intervals_move_without_jumps():
    rng = np.random.default_rng(11)
    predicted = rng.gamma(2.0, 0.5, (300, 1))
    measured = predicted + np.where(predicted < 0.8, 1.0, -0.2) + rng.normal(0, 0.1, predicted.shape)  # biased
    trust = fit_trust([spots(predicted, np.maximum(measured, 0))])
    values = np.linspace(0, 5, 501)
    low, high = trust.interval(0, values)
    assert (low <= values).all()
    assert (values <= high).all()
    assert np.abs(np.diff(low)).max() < 0.1
    assert np.abs(np.diff(high)).max() < 0.1


def test_no_end_is_beyond_what_was_measured():
    predicted, measured = drawn(np.random.default_rng(12), 100, 2)
    predicted *= 1e-3
    trust = fit_trust([spots(predicted, measured)])
    assert trust.interval(0, [2.0])[1] <= max(measured[:, 0].max(), 2.0) + 1e-5
    assert trust.interval(0, [50.0])[1] == 50.0  # unless it is predicted


def test_scales_that_cannot_be_tested_are_not_called_untrusted():
    one = spots(*drawn(np.random.default_rng(13), 25, 1))
    square = np.stack(np.divmod(np.arange(25), 5), 1) * 200.0
    few = fit_trust([HeldOutSpots(one.patient, one.predicted, one.measured, square)])
    assert np.isnan(few.scale(0))  # a square of 5 x 5 spots has too few blocks
    same = HeldOutSpots(one.patient, one.predicted, one.measured, np.zeros_like(one.places_um))
    assert np.isnan(fit_trust([same]).scale(0))
    twice = np.tile(np.stack(np.divmod(np.arange(200), 20), 1) * 200.0, (2, 1))
    predicted = np.tile(np.random.default_rng(14).normal(5, 1, (200, 1)), (2, 1))
    doubled = fit_trust([HeldOutSpots("A", predicted, predicted + 0.1, twice)])
    assert doubled.scale(0) == 200


def test_a_slide_without_a_gene_does_not_count_in_its_mean():
    rng = np.random.default_rng(15)
    predicted, measured = drawn(rng, 100, 2)
    both, one = spots(predicted, measured), spots(*drawn(rng, 100, 2), genes=["G0", "missing"])
    alone = fit_trust([both])
    assert float(fit_trust([both, one]).pcc[1]) == pytest.approx(float(alone.pcc[1]), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"predicted": np.full((40, 3), np.nan)},
            "No gene or cell type has a prediction and a measurement in 20 spots",
        ),
        ({"measured": np.full((40, 3), np.nan)}, "No gene or cell type has a prediction and a measurement in 20 spots"),
        ({"measured": np.zeros((39, 3))}, r"measurements \(39, 3\)"),
        ({"measured": np.zeros((40, 2))}, r"measurements \(40, 2\)"),
        ({"predicted": np.zeros(40)}, r"predictions \(40,\)"),
        ({"predicted": np.zeros((40, 4)), "measured": np.zeros((40, 4))}, "different numbers of genes and cell types"),
        ({"predicted": np.full((40, 3), "x")}, "must be tables of numbers"),
        ({"predicted": np.full((40, 3), np.inf)}, "infinite values"),
        ({"places_um": np.zeros((39, 2))}, r"positions \(39, 2\)"),
        ({"places_um": np.full((40, 2), np.nan)}, "positions that are NaN, infinite"),
        ({"places_um": np.full((40, 2), -np.inf)}, "positions that are NaN, infinite"),
        ({"places_um": np.full((40, 2), 1e300)}, "positions that are NaN, infinite"),
    ],
)
def test_odd_spots_are_one_sentence(change, message):
    rng = np.random.default_rng(0)
    good = {"predicted": rng.random((40, 3)), "measured": rng.random((40, 3)), "places_um": rng.random((40, 2)) * 1e3}
    bad = HeldOutSpots(patient="P\n1", **{**good, **change})
    slides = [bad, HeldOutSpots(patient="P2", **good)] if "different" in message else [bad]
    with pytest.raises(TrainingError, match=message) as caught:
        fit_trust(slides)
    assert "\n" not in str(caught.value)


def test_places_left_of_the_origin_are_places():
    rng = np.random.default_rng(0)
    predicted, measured = drawn(rng, SIDE * SIDE, 3)
    here = spots(predicted, measured)
    moved = HeldOutSpots("A", here.predicted, here.measured, here.places_um - 1e4)
    one, other = fit_trust([here]), fit_trust([moved])
    for name, values in one.named_buffers():
        np.testing.assert_allclose(other.get_buffer(name), values, atol=1e-6)
    single = HeldOutSpots("B", here.predicted[:1], here.measured[:1], here.places_um[:1])
    assert fit_trust([here, single]).n_spots == SIDE * SIDE + 1  # a slide with one spot is no fault


@pytest.mark.parametrize("digits", [1, 9])
def test_quantiles_of_subsets_are_found_in_values_that_were_sorted_once(digits):
    rng = np.random.default_rng(3)
    values = np.round(rng.normal(size=(31, 12)), digits)  # with ties and without
    weights = rng.choice([0.0, 0.5, 1.0], size=values.shape)
    ordered = _Sorted(values)
    for share in (0.05, 0.3, 0.95, 1.2):
        wanted = share * weights.sum(axis=0)
        up = ordered.reached(ordered.in_order(weights), wanted)
        down = ordered.reached(ordered.in_order(weights), wanted, downwards=True)
        for column in range(values.shape[1]):
            v, w = values[:, column], weights[:, column]
            can = sorted(v[w > 0])
            assert up[column] == next((x for x in can if w[v <= x].sum() >= wanted[column] - 1e-9), can[-1])
            assert down[column] == next((x for x in can[::-1] if w[v >= x].sum() >= wanted[column] - 1e-9), can[0])
    medians = ordered.median(weights > 0)
    np.testing.assert_allclose(medians, [np.median(v[w > 0]) for v, w in zip(values.T, weights.T, strict=True)])


def test_blocks_are_resampled_as_if_their_spots_were_repeated():
    rng = np.random.default_rng(4)
    predicted = rng.normal(size=(24, 5))
    measured = predicted + rng.normal(size=(24, 5))
    predicted[:, 3], measured[5, 4] = 2.0, np.nan
    blocks = np.repeat(np.arange(6), [2, 6, 4, 4, 5, 3])
    found = _resampled(predicted, measured, blocks)
    times = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), found.shape[1])
    assert np.isnan(found[4]).all()
    assert (found[3] == 0).all()
    for sample in range(0, found.shape[1], 17):
        rows = np.concatenate([np.flatnonzero(blocks == b) for b in range(6) for _ in range(times[sample, b])])
        for gene in range(3):
            wanted = np.corrcoef(predicted[rows, gene], measured[rows, gene])[0, 1]
            np.testing.assert_allclose(found[gene, sample], wanted, atol=1e-9)
