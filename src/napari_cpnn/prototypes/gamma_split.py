"""Split the counts of a gene over cell types whose expression varies between samples: the arithmetic of ``typed``.

The model of gene g in sample n, with the expected counts ``mu_nc`` of type c:

    k_n ~ Poisson(sum_c mu_nc x_nc + b_n),     x_nc ~ Gamma(mean 1, variance v_c)

``x_nc`` is how much more the type expresses the gene in this sample than on average. All functions take blocks of
genes: ``expected`` is ``(C, S, G)``, ``counts`` and ``background`` are ``(S, G)``, ``variance`` is ``(C, G)``.
"""

from __future__ import annotations

import numpy as np

from napari_cpnn.arrays import FloatArray

#: Newton steps at most, and the relative change of lambda below which it has converged.
_STEPS, _TOLERANCE = 60, 1e-12
#: Sweeps of coordinate descent, for the variances.
_SWEEPS = 50
#: Least variance of the expression of a gene within a type that the prior may have, a standard deviation of 1 %.
_LEAST_VARIANCE = 1e-4
#: Prior mean of the level of a gene's variances, and its prior standard deviation: 14 % between samples.
_USUAL_VARIANCE = 0.02


def relative_expression(
    counts: FloatArray, expected: FloatArray, variance: FloatArray, background: FloatArray
) -> FloatArray:
    """Posterior mode of ``x`` in its logarithm.

    Setting the derivatives to 0 gives ``x_c = 1 / (1 - v_c mu_c l)`` with one number ``l = k / M - 1`` per sample and
    gene, the root of ``(1 + l) M(l) = k`` with ``M(l) = sum_c mu_c / (1 - v_c mu_c l) + b``. The left side is
    increasing and convex, so that Newton steps from a point above the root descend to it without overshooting.

    Returns
    -------
    ndarray
        ``(C, S, G)``, positive. 1 where a type or its variance is absent.
    """
    a = variance[:, None, :] * expected
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.where(expected > 0, (counts - expected) / (expected + a * counts), np.inf)
        of_background = np.where(background > 0, (counts - background) / background, np.inf)
    root = np.minimum(bounds.min(axis=0), of_background)
    root = np.where(np.isfinite(root), root, 0.0)
    for _ in range(_STEPS):
        left = 1 - a * root
        part = expected / left
        value = (1 + root) * (part.sum(axis=0) + background) - counts
        slope = (part * (1 + a) / left).sum(axis=0) + background
        step = np.divide(value, slope, out=np.zeros_like(value), where=slope > 0)
        moved = np.maximum(root - step, -1.0)
        settled = np.abs(moved - root) <= _TOLERANCE * (1 + np.abs(moved))
        root = moved
        if settled.all():
            break
    return np.asarray(1 / (1 - a * root))


def varying(expected: FloatArray, variance: FloatArray) -> FloatArray:
    """Variance of the counts ``(S, G)`` that comes from the types' expression, ``sum_c v_c mu_c^2``."""
    return np.asarray(np.einsum("cg,csg->sg", variance, expected**2, optimize=True))


def scale_step(
    residual: FloatArray, expected: FloatArray, spread: FloatArray, offset: FloatArray, sd: float
) -> FloatArray:
    """One Gauss-Newton step ``(C, G)`` of the log scales of the types' profiles, whose prior is N(0, sd); at most 1."""
    weighted = expected / spread
    hessian = np.einsum("csg,dsg->gcd", weighted, expected, optimize=True)
    gradient = np.einsum("csg,sg->gc", weighted, residual) - offset.T / sd**2
    hessian[:, np.arange(len(expected)), np.arange(len(expected))] += sd**-2
    return np.asarray(np.clip(np.linalg.solve(hessian, gradient[..., None])[..., 0].T, -1, 1))


def variances(
    residual: FloatArray, expected: FloatArray, spread: FloatArray, noise: FloatArray, spread_sd: float
) -> FloatArray:
    """Variance of the expression of each gene within each type, ``(C, G)``, by moments.

    ``E (k - mu)^2 = noise + sum_c v_c mu_c^2`` is a linear regression over samples, with weights ``1 / (2
    spread^2)``. It is shrunk twice, since a cohort says little about a type with a small share: the level of a gene
    to a usual one, and the types of a gene to this level (with a relative standard deviation of ``spread_sd``). A
    gene's result depends on no other.
    """
    squares = expected**2
    weight = 0.5 / spread**2
    target = residual**2 - noise
    total = squares.sum(axis=0)
    cross, power = (weight * total * target).sum(axis=0), (weight * total**2).sum(axis=0)
    level = np.maximum((cross + 1 / _USUAL_VARIANCE) / (power + _USUAL_VARIANCE**-2), _LEAST_VARIANCE)
    prior = (spread_sd * level) ** -2
    hessian = np.einsum("csg,dsg->cdg", weight * squares, squares, optimize=True)
    right = np.einsum("csg,sg->cg", weight * squares, target) + prior * level
    n_types = len(expected)
    hessian[np.arange(n_types), np.arange(n_types)] += prior
    found = np.tile(level, (n_types, 1))
    for _ in range(_SWEEPS):
        for c in range(n_types):
            rest = right[c] - (hessian[c] * found).sum(axis=0) + hessian[c, c] * found[c]
            found[c] = np.maximum(rest / hessian[c, c], 0.0)
    return found


def reliability(expected: FloatArray, variance: FloatArray, spread: FloatArray) -> FloatArray:
    """Expected correlation ``(C, G)`` over samples of the estimated with the true ``x``.

    The best linear estimate of ``x_nc`` from ``k_n`` has the share ``v_c mu_nc^2 / Var k_n`` of its variance, so
    that the correlation is the root of the mean of these shares. ``spread`` ``(S, G)`` is ``Var k_n``, all sources
    together.
    """
    known = variance[:, None, :] * expected**2 / spread
    return np.asarray(np.sqrt(np.clip(known.mean(axis=1), 0, 1)))
