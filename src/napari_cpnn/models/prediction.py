"""Container for the predictions of a model."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

ArrayT = TypeVar("ArrayT")


class Prediction(NamedTuple, Generic[ArrayT]):
    """Predictions for ``N`` patches; torch tensors inside models, numpy arrays outside.

    Attributes
    ----------
    weights
        ``(N, C)`` shares of the cell types; rows sum to 1.
    programs
        ``(N, R)`` residual programs.
    out_of_domain
        ``(N,)`` from 0 to 1: the share of held-out training tissue that is nearer to what the model was trained on
        (see :class:`~napari_cpnn.models.domain.Domain`); NaN for a model without a domain.

    Examples
    --------
    >>> weights, programs, out_of_domain = cmap.values_at(2, 2)
    >>> weights.shape, programs.shape
    ((8,), (8,))
    """

    weights: ArrayT
    programs: ArrayT
    out_of_domain: ArrayT
