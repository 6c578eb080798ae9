"""How far to trust each prediction: intervals, conformal p-values, and the finest scale with signal.

All numbers come from spots that the models of a cross-validation had not seen
(:func:`napari_cpnn.studies.fit_trust`), and are stored with the model.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_cpnn.arrays import BoolArray, FloatArray

#: Groups of spots by predicted level, each with its own interval (Mondrian conformal prediction).
N_LEVELS = 3

#: Stored points of the distribution of predictions where the measurement is not high (not low): shares of spots above.
TAIL = np.r_[1.0, 0.7, np.geomspace(0.5, 0.002, 14), 0.0]

#: Values of :attr:`Trust.scale_um` where no scale passes, and where it was not tested.
NO_SCALE, NOT_TESTED = -1.0, -2.0

Side = Literal["high", "low"]


class Trust(nn.Module):
    """Calibrated uncertainty of the genes and cell types of a model.

    A *quantity* is a gene (log1p of counts per 10,000) or a cell type (share); genes come first.

    Parameters
    ----------
    n_quantities
        Q, genes and cell types.

    Attributes
    ----------
    edges
        ``(N_LEVELS - 1, Q)``, predictions at which one level ends and the next begins.
    spread
        ``(2, Q)``: the expected absolute error is the first plus the second times the prediction, and at least a
        quarter of its mean, which is ``floor`` ``(Q,)``.
    lower, upper
        ``(N_LEVELS, Q)``, distances of the interval's ends from a prediction, in units of its expected error.
    scale_um
        ``(Q,)``, finest scale in um at which the lower bound of the cross-validated correlation is above 0.3;
        `NO_SCALE` where there is none, `NOT_TESTED` where it is not known.
    pcc
        ``(Q,)``, mean correlation over spots of held-out slides; 0 where it is not known.
    threshold
        ``(2, Q)``: a measurement above the first is *high*, below the second *low*.
    tails
        ``(2, len(TAIL), Q)``: quantiles of predictions where the measurement is not high (of their negatives, where
        it is not low).
    null_share
        ``(2, Q)``: share of spots that are not high (not low).
    n_spots
        ``()``, number of calibration spots.
    """

    edges: Tensor
    spread: Tensor
    floor: Tensor
    lower: Tensor
    upper: Tensor
    scale_um: Tensor
    pcc: Tensor
    threshold: Tensor
    tails: Tensor
    null_share: Tensor
    n_spots: Tensor

    def __init__(self, n_quantities: int) -> None:
        super().__init__()
        q = n_quantities
        tails = (2, len(TAIL), q)
        for name, shape in (
            ("edges", (N_LEVELS - 1, q)), ("spread", (2, q)), ("floor", (q,)), ("lower", (N_LEVELS, q)),
            ("upper", (N_LEVELS, q)), ("scale_um", (q,)), ("pcc", (q,)), ("threshold", (2, q)), ("tails", tails),
            ("null_share", (2, q)), ("n_spots", ()),
        ):  # fmt: skip
            self.register_buffer(name, torch.zeros(shape))

    def scale(self, quantity: int) -> float:
        """Return the finest trusted scale in um; infinity if there is none, NaN if it was not tested."""
        scale = float(self.scale_um[quantity])
        return {NO_SCALE: math.inf, NOT_TESTED: math.nan}.get(scale, scale)

    def interval(self, quantity: int, predicted: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the prediction intervals for a measured spot, of the shape of ``predicted``.

        Ends are at least 0; NaN stays NaN.
        """
        values = np.asarray(predicted, dtype=np.float64)
        level = np.searchsorted(self._of("edges", quantity), values, side="right").clip(0, N_LEVELS - 1)
        error = expected_error(values, self._of("spread", quantity), float(self.floor[quantity]))
        low = np.maximum(values + self._of("lower", quantity)[level] * error, 0.0)
        high = np.maximum(values + self._of("upper", quantity)[level] * error, low)
        return low, high

    def p_values(self, quantity: int, predicted: npt.ArrayLike, side: Side = "high") -> FloatArray:
        """Return conformal p-values for the hypothesis that the measurement is not high (not low) (Jin & Candès 2023).

        ``p = (1 + #{calibration spots that are not high, with at least this prediction}) / (n + 1)``, rounded up to the
        stored points of the distribution. NaN stays NaN.
        """
        row = 0 if side == "high" else 1
        values = np.asarray(predicted, dtype=np.float64) * (1 if side == "high" else -1)
        tail, n = self.tails[row, :, quantity].double().numpy(), float(self.n_spots)
        # The stored quantiles grow as the share above them falls.
        passed = np.searchsorted(tail, values, side="left")
        share = np.r_[1.0, TAIL][passed]
        p = (1 + share * float(self.null_share[row, quantity]) * n) / (n + 1)
        return np.where(np.isnan(values), np.nan, p)

    def selected(self, quantity: int, predicted: npt.ArrayLike, side: Side = "high", fdr: float = 0.1) -> BoolArray:
        """Return where a measurement would be high (low), at a false discovery rate (Benjamini-Hochberg).

        Parameters
        ----------
        predicted
            Predictions of any shape; NaN where unknown.
        fdr
            Expected share of wrong places among those that are returned.
        """
        from scipy.stats import false_discovery_control

        p = self.p_values(quantity, predicted, side)
        chosen = np.zeros(p.shape, dtype=bool)
        known = np.isfinite(p)
        if known.any():
            chosen[known] = false_discovery_control(p[known]) <= fdr
        return chosen

    def _of(self, name: str, quantity: int) -> FloatArray:
        values: Tensor = getattr(self, name)
        return np.asarray(values[:, quantity].double().numpy())


def expected_error(predicted: FloatArray, spread: FloatArray, floor: FloatArray | float) -> FloatArray:
    """Expected absolute error of predictions ``(..., q)``: linear, ``spread (2, q)``, and at least ``floor (q,)``."""
    return np.asarray(np.maximum(spread[0] + spread[1] * predicted, floor))
