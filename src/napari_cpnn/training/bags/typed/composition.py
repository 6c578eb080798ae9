"""Composition of each patch on the simplex, learnt from the composition of its bag."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.settings import TypedSettings
from napari_cpnn.training.bags import Bags
from napari_cpnn.training.bags.typed.labels import TypedLabels
from napari_cpnn.training.bags.typed.scaling import Scaling

_ITERATIONS = 500


@dataclass(frozen=True, eq=False)
class TileComposition:
    """Softmax of a linear map: ``w_i = softmax(z_i B + c)``, with standardised features ``z_i``.

    The composition of a bag is the mean over its patches, so that it is on the simplex and each patch has an exact
    part.

    Parameters
    ----------
    scaling
        Of the features.
    weights, bias
        B ``(F, C)`` and c ``(C,)``.
    level
        Mean amount ``(C,)`` over the patches of the training; None in files of earlier versions.
    """

    scaling: Scaling
    weights: FloatArray
    bias: FloatArray
    level: FloatArray | None = None

    @classmethod
    def fit(cls, bags: Bags, shares: FloatArray, settings: TypedSettings) -> TileComposition:
        """Minimise the cross-entropy of the shares ``(S, C)`` and the bags' mean compositions, plus a ridge penalty.

        By L-BFGS from the mean shares; deterministic.
        """
        bags, penalty = _drawn(bags, settings.max_patches, settings.seed), settings.composition_penalty
        scaling = Scaling.of(bags.features, settings.n_components)
        Z, owners = scaling(bags.features), bags.owners
        start = np.log(np.maximum(shares.mean(axis=0), 1e-6))
        shape = (Z.shape[1] + 1, shares.shape[1])

        def loss(flat: FloatArray) -> tuple[float, FloatArray]:
            B = flat.reshape(shape)
            amounts, slope_of = _amounts(Z @ B[:-1] + B[-1] + start)
            sums = np.add.reduceat(amounts, bags.starts[:-1])
            totals = sums.sum(axis=1)
            mean = np.maximum(sums / totals[:, None], 1e-9)
            value = -(shares * np.log(mean)).sum(axis=1).mean() + penalty / 2 * (B[:-1] ** 2).sum()
            # d(-sum_c s_c log(A_c / A)) / dA_c = -s_c / A_c + 1 / A
            slope = (-shares / mean + 1) / totals[:, None] / len(shares)
            inner = slope[owners] * slope_of
            gradient = np.concatenate([Z.T @ inner + penalty * B[:-1], inner.sum(axis=0, keepdims=True)])
            return float(value), gradient.ravel()

        found = minimize(loss, np.zeros(np.prod(shape)), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
        B = found.x.reshape(shape)
        level = _amounts(Z @ B[:-1] + B[-1] + start)[0].mean(axis=0)
        return cls(scaling, B[:-1], B[-1] + start, level)

    def amounts(self, features: Float32Array) -> FloatArray:
        """Amount ``(N, C)`` of each type in patches, positive; the unit is arbitrary."""
        return _amounts(self.scaling(features) @ self.weights + self.bias)[0]

    def predict(self, bags: Bags) -> FloatArray:
        """Composition ``(S, C)`` of bags; rows sum to 1."""
        sums = np.stack([self.amounts(bags.bag(i)).sum(axis=0) for i in range(len(bags))])
        return np.asarray(sums / sums.sum(axis=1, keepdims=True))


def _amounts(linear: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Exponentials up to 1, straight lines beyond, and their derivatives: one patch cannot outweigh all others."""
    low = np.exp(np.minimum(linear, 0.0))
    return np.where(linear > 0, 1 + linear, low), low


def composition_of(bags: Bags, labels: TypedLabels, settings: TypedSettings) -> TileComposition:
    """Composition of the patches of bags, fitted to the shares of their labels."""
    return TileComposition.fit(bags, labels.shares, settings)


def _drawn(bags: Bags, max_patches: int, seed: int) -> Bags:
    if (bags.sizes <= max_patches).all():
        return bags
    rng = np.random.default_rng(seed)
    rows = [
        start + (np.sort(rng.choice(n, max_patches, replace=False)) if n > max_patches else np.arange(n))
        for start, n in zip(bags.starts[:-1], bags.sizes, strict=True)
    ]
    starts = np.cumsum([0, *(len(part) for part in rows)])
    index = np.concatenate(rows)
    return Bags(bags.features[index], starts, bags.names, bags.patients, bags.centers_um[index])
