"""The simulated cohort of ``scripts/simulate_cohort.py``: what it plants is there, in pictures and in counts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from sample_tissue.cohort import N_SLIDES, STATES, draw_bulk, draw_patients, draw_slide, tiles_of
from sample_tissue.layout import CAF, CANCER, CELL_TYPES, T
from sample_tissue.render import Sprites
from simulate_cohort import precision_at


def test_bulk_is_the_sum_of_types_and_planted_genes_follow_the_states() -> None:
    patients = draw_patients(60, 3)
    cells = np.random.default_rng(0).multinomial(700, np.full(8, 1 / 8), 60 * N_SLIDES)
    truth = draw_bulk(patients, cells, 3)
    assert truth.slides["patient"].nunique() == 60
    np.testing.assert_allclose(truth.expression.sum(axis=2), 1)
    share = np.einsum("sc,scg->sg", truth.shares, truth.expression)
    seen = truth.counts / truth.counts.sum(axis=1, keepdims=True)
    assert np.corrcoef(np.log(share.mean(axis=0)), np.log(seen.mean(axis=0) + 1e-9))[0, 1] > 0.9
    log = np.log(truth.expression)
    for kind in STATES:
        state = truth.slides[f"state {CELL_TYPES[kind]}"].to_numpy()
        own = [abs(np.corrcoef(state, log[:, kind, g])[0, 1]) for g in np.flatnonzero(truth.planted[kind])]
        other = [abs(np.corrcoef(state, log[:, 7, g])[0, 1]) for g in np.flatnonzero(truth.planted[kind])]
        assert np.mean(own) > 0.9
        assert np.mean(other) < 0.3
    assert truth.slides.groupby("patient")["response"].nunique().max() == 1


@pytest.fixture(scope="module")
def sprites():
    return Sprites.drawn(np.random.default_rng([7, 1]).spawn(8)[:3])


@pytest.mark.slow
def test_states_are_seen_in_the_picture(sprites) -> None:
    patient = draw_patients(2, 3).iloc[0].copy()
    pictures = {}
    for kind in (CANCER, CAF, T):
        for state in (-2.0, 2.0):
            for other in STATES:
                patient[f"state {CELL_TYPES[other]}"] = state if other == kind else 0.0
            pictures[kind, state], cells = draw_slide(patient, 5, sprites, 672)
        low, high = (pictures[kind, state].astype(float) for state in (-2.0, 2.0))
        assert cells[kind] > 5
        changed = np.abs(low - high).max(axis=2) > 8
        assert 0.005 < changed.mean() < 0.5
        assert high[changed].mean() < low[changed].mean()
    tiles, centers = tiles_of(pictures[T, 2.0])
    assert tiles.shape[1:] == (224, 224, 3)
    assert len(tiles) == len(centers) > 3


def test_precision_at_a_recall() -> None:
    positive = np.array([True, False, True, True, False, True])
    assert precision_at(np.array([6, 5, 4, np.nan, 2, 1.0]), positive) == pytest.approx(2 / 3)
