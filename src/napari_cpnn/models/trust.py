"""How far to trust each prediction: intervals, and the finest scale with signal.

All numbers come from spots that the models of a cross-validation had not seen
(:func:`napari_cpnn.studies.fit_trust`), and are stored with the model.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_cpnn.arrays import FloatArray

#: Groups of spots by predicted level, each with its own interval (Mondrian conformal prediction).
N_LEVELS = 3

#: Values of :attr:`Trust.scale_um` where no scale passes, and where it was not tested.
NO_SCALE, NOT_TESTED = -1.0, -2.0


class Trust(nn.Module):
    """Calibrated uncertainty of the genes and cell types of a model.

    A *quantity* is a gene (log1p of counts per 10,000) or a cell type (share); genes come first.

    Parameters
    ----------
    n_quantities
        Q, genes and cell types.

    Attributes
    ----------
    centers
        ``(N_LEVELS, Q)``, increasing: the median prediction of each level.
    spread
        ``(2, Q)``: the expected absolute error is the first plus the second times the prediction, and at least a
        quarter of its mean, which is ``floor`` ``(Q,)``.
    lower, upper
        ``(N_LEVELS, Q)``, distances of the interval's ends from a prediction, in units of its expected error: not
        positive and not negative, so that a prediction lies in its own interval.
    most
        ``(Q,)``, largest measurement.
    scale_um
        ``(Q,)``, finest scale in um at which the lower bound of the cross-validated correlation is above 0.3;
        `NO_SCALE` where there is none, `NOT_TESTED` where it is not known.
    pcc
        ``(Q,)``, mean correlation over spots of held-out slides; 0 where it is not known.
    n_spots
        ``()``, number of calibration spots.
    """

    centers: Tensor
    spread: Tensor
    floor: Tensor
    lower: Tensor
    upper: Tensor
    most: Tensor
    scale_um: Tensor
    pcc: Tensor
    n_spots: Tensor

    def __init__(self, n_quantities: int) -> None:
        super().__init__()
        q = n_quantities
        for name, shape in (
            ("centers", (N_LEVELS, q)), ("spread", (2, q)), ("floor", (q,)), ("lower", (N_LEVELS, q)),
            ("upper", (N_LEVELS, q)), ("most", (q,)), ("scale_um", (q,)), ("pcc", (q,)), ("n_spots", ()),
        ):  # fmt: skip
            self.register_buffer(name, torch.zeros(shape))

    def scale(self, quantity: int) -> float:
        """Return the finest trusted scale in um; infinity if there is none, NaN if it was not tested."""
        scale = float(self.scale_um[quantity])
        return {NO_SCALE: math.inf, NOT_TESTED: math.nan}.get(scale, scale)

    def interval(self, quantity: int, predicted: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the prediction intervals for a measured spot, of the shape of ``predicted``.

        Between the centres of levels the distances are interpolated. An end below 0 is 0, and one above the largest
        measurement is that; NaN stays NaN.
        """
        values = np.asarray(predicted, dtype=np.float64)
        error = expected_error(values, self._of("spread", quantity), float(self.floor[quantity]))
        centers = self._of("centers", quantity)
        lower, upper = (np.interp(values, centers, self._of(end, quantity)) for end in ("lower", "upper"))
        low = np.maximum(values + lower * error, 0.0)
        # What was never measured is no end, unless it was predicted.
        high = np.minimum(values + upper * error, np.maximum(float(self.most[quantity]), values))
        return np.minimum(low, values), np.maximum(high, values)

    def _of(self, name: str, quantity: int) -> FloatArray:
        values: Tensor = getattr(self, name)
        return np.asarray(values[:, quantity].double().numpy())


def expected_error(predicted: FloatArray, spread: FloatArray, floor: FloatArray | float) -> FloatArray:
    """Expected absolute error of predictions ``(..., q)``: linear, ``spread (2, q)``, and at least ``floor (q,)``."""
    return np.asarray(np.maximum(spread[0] + spread[1] * predicted, floor))
