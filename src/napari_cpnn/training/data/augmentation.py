"""Augmentation of training patches: symmetries of the square, and stain variation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_cpnn.arrays import IntArray
from napari_cpnn.slides import STAINS

#: Patches augmented at a time, so that their densities fit into the processor's cache, which halves the time.
_CHUNK = 8

_PIXEL = np.dtype("V3")

#: Standard deviation of the shift, in optical density (natural logarithm), for a ``strength`` of 1.
_SHIFT = 0.2


def apply_symmetries(images: npt.NDArray[np.uint8], codes: IntArray | int) -> npt.NDArray[np.uint8]:
    """Rotate and flip patches ``(N, S, S, 3)``: code ``k`` is ``k % 4`` quarter turns, then a flip if ``k >= 4``.

    The eight codes are the symmetries of the square (the dihedral group); 0 is the identity.
    """
    # A pixel is moved as one element of three bytes, three times as fast as three of one byte.
    pixels = np.ascontiguousarray(images).view(_PIXEL)[..., 0]
    result = np.empty_like(pixels)
    for out, image, code in zip(result, pixels, np.broadcast_to(codes, len(images)), strict=True):
        turned = np.rot90(image, k=int(code) % 4)
        out[:] = turned[:, ::-1] if code >= 4 else turned
    return result[..., None].view(np.uint8)


def draw_stains(n: int, strength: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw random stain changes for :func:`apply_stains`, ``(n, 2, 2)``: (scale, shift) by (haematoxylin, eosin).

    Scales are normal around 1 with a standard deviation of ``strength`` (not below 0), shifts normal around 0 with
    0.2 times that, in optical density.
    """
    noise = strength * rng.standard_normal((n, 2, 2))
    return np.stack([np.maximum(1 + noise[:, 0], 0), _SHIFT * noise[:, 1]], axis=1).astype(np.float32)


def apply_stains(images: Tensor, changes: Tensor) -> Tensor:
    """Vary the stain intensity of patches, as between laboratories and days (Tellez et al. 2018).

    In optical density, ``D = -ln((I + 1) / 256)``, stains add up: ``D = c M`` with the concentrations ``c`` of
    haematoxylin, eosin and a residual, and the stains' own colours ``M`` (Ruifrok & Johnston 2001; the residual is
    orthogonal to both). Each concentration becomes ``scale * c + shift``; the residual is unchanged. No stain matrix
    is estimated from the slide: on a slide with little of one stain the estimate is unstable, and random changes do
    not require it.

    Parameters
    ----------
    images
        ``(N, S, S, 3)`` uint8, on any device.
    changes
        ``(N, 2, 2)`` from :func:`draw_stains`.

    Returns
    -------
    torch.Tensor
        ``(N, S, S, 3)`` uint8.
    """
    stains = _stain_matrix().to(images.device)
    scale, shift = changes.to(images.device).float().unbind(dim=1)
    # D' = D inv(M) diag(scale) M + shift M: one 3 x 3 matrix and one offset per patch.
    factors = torch.cat([scale, scale.new_ones((len(images), 1))], dim=1)
    matrices = torch.linalg.inv(stains) @ (factors[:, :, None] * stains)
    offsets = (shift @ stains[:2])[:, None, :]
    parts = zip(*(torch.split(t, _CHUNK) for t in (images, matrices, offsets)), strict=True)
    return torch.cat([_restained(*part) for part in parts])


def _restained(images: Tensor, matrices: Tensor, offsets: Tensor) -> Tensor:
    logarithm = images.reshape(len(images), -1, 3).float().add_(1).div_(256).log_()
    changed = torch.baddbmm(-offsets, logarithm, matrices).exp_().mul_(256).sub_(1).round_().clamp_(0, 255)
    return changed.to(torch.uint8).reshape(images.shape)


def _stain_matrix() -> Tensor:
    """Stain matrix ``M (3, 3)`` with unit rows haematoxylin, eosin, residual."""
    stains = torch.tensor(STAINS, dtype=torch.float64)
    residual = torch.linalg.cross(stains[0], stains[1])
    return torch.cat([stains, (residual / residual.norm())[None]]).float()
