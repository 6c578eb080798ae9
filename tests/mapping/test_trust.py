"""A map says when it is not to be believed."""

from __future__ import annotations

import numpy as np
import pytest

from fakes import ColorModel, settings
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.mapping import CompositionMap, domain_report, is_unlike, predict_map
from napari_cpnn.models import Prediction


@pytest.mark.parametrize(
    ("n_unlike", "level", "said"),
    [
        (0, "familiar", ""),
        (19, "familiar", ""),
        (20, "caution", "20 % of this tissue is unlike what this model was trained on (breast, 3 patients). Do"),
        (50, "caution", "50 % of this tissue"),
        (
            51,
            "foreign",
            "51 % of this tissue is unlike what this model was trained on (breast, 3 patients). Cell",
        ),
        (100, "foreign", "100 % of this tissue"),
    ],
)
def test_levels(n_unlike, level, said):
    scores = np.r_[np.full(n_unlike, 0.99), np.full(100 - n_unlike, 0.5), np.full(30, np.nan)]
    report = domain_report(scores, "breast, 3 patients")
    assert (report.n_patches, report.unlike, report.level) == (100, n_unlike / 100, level)
    assert report.warning.startswith(said)
    assert bool(report.warning) is bool(said)


def test_almost_all_is_not_called_all():
    assert domain_report(np.r_[np.full(999, 1.0), 0.1]).warning.startswith("99 % of this tissue")


def test_hostile_scores_and_descriptions():
    assert domain_report(np.r_[np.full(10, np.inf), np.full(10, 0.99)]).unlike == 1.0
    assert domain_report(np.r_[np.full(29, 0.99), np.full(71, 0.5)]).warning.startswith("29 % of")
    text = domain_report(np.ones(10), "a\n\x1b[31m" + "x" * 10_000).warning
    assert "\x1b" not in text
    assert len(text) < 300


def test_no_verdict_on_few_patches_or_without_scores():
    assert domain_report(np.ones(7)).level == "unknown"
    assert domain_report(np.full(50, np.nan)).level == "unknown"
    assert domain_report(np.ones(0)).warning == ""


def test_the_threshold_itself_is_like_the_training_tissue_in_any_precision():
    for dtype in (np.float16, np.float32, np.float64):
        assert is_unlike(np.array([0.95, 0.951, np.nan], dtype)).tolist() == [False, True, False]


def test_a_coarse_patch_counts_for_the_tissue_that_it_stands_for():
    cmap = CompositionMap(Grid((16, 16), 32.0), ColorModel().decoder(), provenance={"trained_on": "squares"})
    share = np.full((1, 3), 1 / 3)
    coarse = cmap.lattice.representatives(16).ravel()[:1]
    cmap.fill(coarse, share, np.zeros((1, 1)), np.array([0.99]))
    assert cmap.domain_report().n_patches == 1
    assert cmap.domain_report().unlike == 1.0
    left = np.setdiff1d(np.flatnonzero(np.tile(np.arange(16) < 8, 16)), coarse)
    cmap.fill(left, np.repeat(share, len(left), 0), np.zeros((len(left), 1)), np.full(len(left), 0.1))
    stands_for = (cmap.donors() == coarse[0]).sum()
    assert 100 < stands_for < 156
    assert cmap.domain_report().unlike == pytest.approx(stands_for / 256)
    assert cmap.domain_report(Rect(0, 0, 64, 64)).unlike < 0.3
    assert cmap.domain_report().trained_on == "squares"


class Foreign(ColorModel):
    """To which all tissue is unlike that of its training."""

    def predict(self, x):
        weights, programs = self(x)
        return Prediction(weights, programs, x.mean(dim=(1, 2, 3)) * 0 + 0.99)


def test_a_whole_slide_of_other_tissue_warns(slide):
    with pytest.warns(CpnnWarning, match="100 % of this tissue is unlike what this model was trained on .coloured"):
        cmap = predict_map(slide, Foreign().eval(), settings=settings())
    assert cmap.provenance["trained_on"] == "coloured squares, 1 slide"
