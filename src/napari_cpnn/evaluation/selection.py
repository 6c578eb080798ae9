"""False discovery rates of marking where a gene is high or low, measured on held-out sections.

Predictions and measurements are averaged over neighbourhoods; a place is *high* if its measurement is above the median
of its section. The places with the largest predictions of a section are marked. Of a gene, only its correlation over
the spots of the *other* sections is known, so the share of wrong places is measured for groups of genes that are alike
in it, each section in its turn: the rate that Benjamini-Hochberg bounds with conformal p-values of ranks, pooled over
the group (Jin and Candes 2023, Selection by prediction with conformal p-values). The section is the unit: of the rates
of several sections a high quantile counts, the largest when there are fewer than ten.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.models import MARKED_SHARES, PCC_GROUPS, n_marked

#: Least number of sections, and of genes in a group on each.
LEAST_SECTIONS, LEAST_GENES = 2, 30

#: Quantile of the rates of sections that counts.
_SAFE = 0.9


def known_elsewhere(pcc: FloatArray) -> FloatArray:
    """Mean correlations of each quantity over the other sections.

    Parameters
    ----------
    pcc
        ``(sections, Q)``, correlations over the spots of each section; NaN where a gene was not measured.

    Returns
    -------
    FloatArray
        ``(sections, Q)``; NaN where no other section measured the gene.
    """
    counted = np.isfinite(pcc)
    others = counted.sum(axis=0) - counted
    sums = np.where(counted, pcc, 0.0)
    return np.asarray(np.where(others > 0, (sums.sum(axis=0) - sums) / np.maximum(others, 1), np.nan))


def group_of(pcc: FloatArray) -> IntArray:
    """Group of each correlation (any shape) in `PCC_GROUPS`; -1 below the first, and for NaN."""
    groups = np.searchsorted(PCC_GROUPS, np.nan_to_num(pcc, nan=-1.0) + 1e-9, side="right") - 1
    return np.asarray(groups, dtype=np.intp)


def wrong_when_marked(predicted: FloatArray, measured: FloatArray) -> FloatArray:
    """Share of marked places that are not high, for each share of `MARKED_SHARES` and each gene.

    Parameters
    ----------
    predicted, measured
        ``(places, n)``, means over neighbourhoods.

    Returns
    -------
    FloatArray
        ``(len(MARKED_SHARES), n)``.
    """
    order = np.argsort(-predicted, axis=0, kind="stable")
    high = measured > np.median(measured, axis=0)
    wrong = np.cumsum(~np.take_along_axis(high, order, axis=0), axis=0)
    last = [n_marked(share, len(predicted)) - 1 for share in MARKED_SHARES]
    return np.asarray(wrong[last] / (np.array(last)[:, None] + 1))


def section_rates(predicted: FloatArray, measured: FloatArray, groups: IntArray) -> FloatArray:
    """Rates of one section at one scale, ``(2, groups, shares)`` for high and low.

    A group of fewer than `LEAST_GENES` genes is joined by the groups below it, the nearest first, until there are as
    many; NaN if there are not.

    Parameters
    ----------
    predicted, measured
        ``(places, n)``, means over neighbourhoods, finite.
    groups
        ``(n,)``, groups of the genes by what other sections say.
    """
    sides = np.stack([wrong_when_marked(predicted, measured), wrong_when_marked(-predicted, -measured)])
    rates = np.full((2, len(PCC_GROUPS), len(MARKED_SHARES)), np.nan)
    for group in range(len(PCC_GROUPS)):
        for lowest in range(group, -1, -1):
            members = (groups >= lowest) & (groups <= group)
            if members.sum() >= LEAST_GENES:
                rates[:, group] = sides[..., members].mean(axis=-1)
                break
    return rates


def combined_rates(rates: Sequence[FloatArray]) -> FloatArray:
    """Rates of several sections, ``(2, groups, shares)`` each, as one; 1 where fewer than two sections tell."""
    values = np.sort(np.array(rates).reshape(-1, 2, len(PCC_GROUPS), len(MARKED_SHARES)), axis=0)  # NaN come last
    n = np.isfinite(values).sum(axis=0)
    if len(values) < LEAST_SECTIONS:
        return np.ones(n.shape)
    place = np.ceil(_SAFE * np.maximum(n - 1, 0)).astype(np.intp)
    safe = np.take_along_axis(values, place[None], axis=0)[0]
    return np.asarray(np.where(n >= LEAST_SECTIONS, safe, 1.0))
