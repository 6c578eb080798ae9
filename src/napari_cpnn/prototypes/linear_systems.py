"""Small systems of linear equations that are positive definite but for rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cpnn.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

#: The least that is added to the diagonal of a system that is singular, relative, as a power of ten.
_LEAST_RIDGE = -13


def solve_definite(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve positive definite systems, in float64.

    With fewer genes than types a system may be singular, and rounding makes it worse: as little as is needed is added
    to its diagonal, so that the step is short where nothing is known.

    Raises
    ------
    SettingsError
        It has values that are not finite, or none of this helps.
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
    raise SettingsError("These settings leave the deconvolution without a solution; use more genes or the defaults.")
