"""Marking where a gene is high or low, on simulated sections whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_cpnn.evaluation import HeldOutSpots, fit_trust, mark_section
from napari_cpnn.evaluation.selection import (
    combined_rates,
    group_of,
    known_elsewhere,
    section_rates,
    wrong_when_marked,
)
from napari_cpnn.models import MARKED_SHARES, PCC_GROUPS, Trust

SIDE = 20
PLACES = np.stack(np.divmod(np.arange(SIDE * SIDE), SIDE), axis=1) * 200.0
#: How much of a gene's pattern the model knows, for 250 genes; of the first 50 it knows nothing.
KNOWN = np.r_[np.zeros(50), np.linspace(0.3, 0.98, 200)]


def fields(rng: np.random.Generator, n: int, width: float = 3.0) -> np.ndarray:
    """Smooth Gaussian fields ``(places, n)`` of variance 1 over the section."""
    raw = gaussian_filter(rng.normal(size=(SIDE, SIDE, n)), (width, width, 0), mode="wrap")
    return ((raw - raw.mean((0, 1))) / raw.std((0, 1))).reshape(-1, n)


def section(rng: np.random.Generator, depth: float = 1.0) -> HeldOutSpots:
    """A section with batch effects; errors of the model are smooth too, so that averaging does not remove them."""
    truth, error = fields(rng, len(KNOWN)), fields(rng, len(KNOWN))
    predicted = KNOWN * truth + np.sqrt(1 - KNOWN**2) * error + rng.normal(0, 0.3, truth.shape)
    measured = depth * (truth + rng.normal(0, 1.0, truth.shape)) + rng.normal()
    return HeldOutSpots("A", predicted + rng.normal() + 9, measured + 9, PLACES)


@pytest.fixture(scope="module")
def calibrated() -> Trust:
    rng = np.random.default_rng(0)
    return fit_trust([section(rng), section(rng, 2.0), section(rng, 0.5)])


@pytest.mark.parametrize("side", ["high", "low"])
def test_the_false_discovery_rate_holds_on_new_sections(calibrated, side):
    rng = np.random.default_rng(1)
    found = [mark_section(calibrated, section(rng, depth), side, 0.1) for depth in (1.0, 3.0, 0.3, 1.0, 1.0)]
    assert min(len(one.quantities) for one in found) > 20
    assert np.mean([one.pooled_fdp for one in found]) <= 0.1
    # Of the genes with marked places, not only over all: a gene without any counts as nothing.
    assert np.mean([one.mean_fdp for one in found]) <= 0.1
    assert max(one.pooled_fdp for one in found) <= 0.12
    assert np.mean([one.power for one in found]) > 0.15


def test_nothing_is_marked_for_genes_that_the_model_does_not_know(calibrated):
    new = section(np.random.default_rng(2))
    for fdr in (0.05, 0.1):
        assert not (mark_section(calibrated, new, "high", fdr).quantities < 50).any()


def test_a_larger_rate_marks_more(calibrated):
    new = section(np.random.default_rng(3))
    strict, loose = (mark_section(calibrated, new, "high", fdr) for fdr in (0.05, 0.2))
    assert set(strict.quantities) < set(loose.quantities)
    assert strict.pooled_fdp < loose.pooled_fdp


def test_a_map_that_orders_places_by_chance_is_wrong_half_of_the_time(calibrated):
    rng = np.random.default_rng(4)
    found = mark_section(calibrated, section(rng), order=rng.normal(size=len(PLACES)))
    assert found.pooled_fdp == pytest.approx(0.5, abs=0.1)


def test_wrong_places_are_counted_as_written_down():
    rng = np.random.default_rng(5)
    predicted, measured = rng.normal(size=(37, 4)), rng.integers(0, 3, (37, 4)).astype(float)
    found = wrong_when_marked(predicted, measured)
    for s, share in enumerate(MARKED_SHARES):
        for g in range(4):
            k = int(share * 37 + 1e-9)
            best = sorted(range(37), key=lambda i, g=g: -predicted[i, g])[:k]
            middle = sorted(measured[:, g])[18]
            assert found[s, g] == pytest.approx(sum(measured[i, g] <= middle for i in best) / k)


def test_a_section_does_not_choose_its_own_groups():
    pcc = np.array([[0.5, np.nan, 0.2], [0.3, 0.4, np.nan], [0.1, np.nan, 0.6]])
    expected = [[0.2, 0.4, 0.6], [0.3, np.nan, 0.4], [0.4, 0.4, 0.2]]
    np.testing.assert_allclose(known_elsewhere(pcc), expected)


def test_groups_begin_at_their_correlation():
    assert group_of(np.array([np.nan, -1, 0.099, 0.1, 0.149, 0.15, 0.3, 0.99])).tolist() == [-1, -1, -1, 0, 0, 1, 4, 10]


def test_small_groups_are_joined_by_those_below():
    rng = np.random.default_rng(6)
    groups = np.r_[np.full(40, 2), np.full(29, 3), np.full(30, 5), np.full(2, 7)]
    predicted, measured = rng.normal(size=(50, 101)), rng.normal(size=(50, 101))
    rates = section_rates(predicted, measured, groups)
    assert np.isnan(rates[:, :2]).all()
    for side, sign in enumerate((1, -1)):
        wrong = wrong_when_marked(sign * predicted, sign * measured)
        for group, genes in ((2, slice(40)), (3, slice(69)), (4, slice(69)), (5, slice(69, 99)), (7, slice(69, 101))):
            np.testing.assert_allclose(rates[side, group], wrong[:, genes].mean(axis=1))


def test_the_worst_of_few_sections_counts_and_one_is_too_few():
    shape = (2, len(PCC_GROUPS), len(MARKED_SHARES))
    some = [np.full(shape, rate) for rate in (0.1, 0.3, 0.2)]
    assert (combined_rates(some) == 0.3).all()
    assert (combined_rates(some[:1]) == 1).all()
    some[0][0, 0], some[1][0, 0] = np.nan, np.nan
    combined = combined_rates(some)
    assert (combined[0, 0] == 1).all()
    assert (combined[1] == 0.3).all()
    many = [np.full(shape, rate) for rate in np.linspace(0, 1, 21)]
    assert combined_rates(many)[0, 0, 0] == pytest.approx(0.9)


def test_one_section_few_genes_and_types_mark_nothing():
    rng = np.random.default_rng(7)
    one = section(rng)
    assert bool((fit_trust([one]).false_share == 1).all())
    few = [HeldOutSpots("A", s.predicted[:, -29:], s.measured[:, -29:], PLACES) for s in (one, section(rng))]
    assert bool((fit_trust(few).false_share == 1).all())
    # The last 40 are cell types: the genes before them know too little.
    sections = [section(rng) for _ in range(2)]
    low = [HeldOutSpots("A", s.predicted[:, :60], s.measured[:, :60], PLACES) for s in sections]
    alone = fit_trust(low).false_share
    typed = [HeldOutSpots("A", s.predicted, s.measured, PLACES) for s in sections]
    np.testing.assert_array_equal(fit_trust(typed, 60).false_share, alone)


def test_genes_that_are_constant_or_not_measured_are_left_out():
    rng = np.random.default_rng(8)
    sections = [section(rng) for _ in range(3)]
    for one in sections:
        one.predicted[:, 100], one.measured[:, 101] = 3.0, 0.0
    sections[0].measured[:, 102], sections[1].predicted[0, 103] = np.nan, np.nan
    trust = fit_trust(sections)
    assert bool(trust.false_share.isfinite().all())
    found = mark_section(trust, sections[2])
    assert not {100, 101} & set(found.quantities.tolist())
    assert {249, 248} <= set(found.quantities.tolist())
