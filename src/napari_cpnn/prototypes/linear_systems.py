"""Solve small linear systems that are positive definite up to rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cpnn.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

#: Smallest relative addition to the diagonal of a singular system, as a power of ten.
_LEAST_RIDGE = -13


def solve_definite(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve positive definite systems in float64.

    With fewer genes than types a system may be singular, which rounding makes worse. The smallest sufficient value is
    added to the diagonal, so that the step is short in undetermined directions.

    Raises
    ------
    SettingsError
        If the system has values that are not finite, or remains singular.
    """
    import torch

    matrix = matrix.double()
    factor, failed = torch.linalg.cholesky_ex(matrix)
    for power in range(_LEAST_RIDGE, 0):
        if not failed.any():
            return torch.cholesky_solve(right.double(), factor)
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        ridge = 10.0**power * diagonal.abs().amax(-1, keepdim=True) * (failed != 0)[..., None]
        factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(ridge.expand_as(diagonal)))
    raise SettingsError("The deconvolution has no solution with these settings; use more genes or the defaults.")
