"""SLIDE-EX's network in closed form: expression linear in the mean features of a bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.settings import TypedSettings
from napari_cpnn.training.bags import Bags
from napari_cpnn.training.bags.typed.composition import TileComposition, composition_of
from napari_cpnn.training.bags.typed.labels import TypedLabels
from napari_cpnn.training.bags.typed.scaling import Scaling

#: Penalties tried, relative to the mean square of the singular values of the bags' features.
PENALTIES = tuple(10.0**k for k in np.arange(-2.0, 3.1, 0.5))


@dataclass(frozen=True, eq=False)
class BagLinear:
    """``E_c = mean_i(h_i) U_c V_c + b_c``: what their two linear layers and a mean over tiles amount to.

    Since it is linear, ``h_i U_c V_c + b_c`` of each patch is an exact part: the mean over patches is the prediction.

    Parameters
    ----------
    composition
        The abundance head.
    left, right, bias
        U ``(C, F, r)``, V ``(C, r, G)``, b ``(C, G)``.
    """

    composition: TileComposition
    left: FloatArray
    right: FloatArray
    bias: FloatArray

    @classmethod
    def path(
        cls,
        bags: Bags,
        labels: TypedLabels,
        settings: TypedSettings,
        penalties: Sequence[float],
        composition: TileComposition | None = None,
    ) -> list[BagLinear]:
        """Fit ridge regressions of the labels ``(S, C, G)``, one model per penalty, then reduce their rank.

        ``A_c = V diag(s / (s^2 + l)) U' Y_c`` by one singular value decomposition of the features. Reduced rank
        regression: the best approximation of rank r of the *fitted values*.
        """
        composition = composition or composition_of(bags, labels, settings)
        means = bags.means()
        scaling = Scaling.of(means, settings.n_components)
        X = scaling(means)
        U, s, Vt = np.linalg.svd(X, full_matrices=False)
        Y = labels.expression.astype(np.float64)
        center = Y.mean(axis=0)
        projected = np.einsum("sp,scg->cpg", U, Y - center, optimize=True)
        models = []
        for penalty in penalties:
            shrink = s / (s**2 + penalty * max(float((s**2).mean()), 1e-12))
            left, right = [], []
            for c in range(Y.shape[1]):
                inner, outer = _reduced(s[:, None] * shrink[:, None] * projected[c], settings.rank)
                # Fitted values U inner outer; weights V diag(1 / s) inner outer.
                weights = Vt.T @ (np.divide(inner, s[:, None], out=np.zeros_like(inner), where=s[:, None] > 1e-9))
                left.append(scaling.back(weights))
                right.append(outer)
            U_c, V_c = np.stack(left), np.stack(right)
            models.append(cls(composition, U_c, V_c, center - np.einsum("f,cfr,crg->cg", scaling.center, U_c, V_c)))
        return models

    def predict(self, bags: Bags) -> FloatArray:
        """Expression ``(S, C, G)``, log1p of counts per 10,000 of the type."""
        inner = np.einsum("sf,cfr->scr", bags.means(), self.left, optimize=True)
        return np.asarray(np.einsum("scr,crg->scg", inner, self.right, optimize=True) + self.bias)

    def shares(self, bags: Bags) -> FloatArray:
        """Composition ``(S, C)``."""
        return self.composition.predict(bags)

    def parts(self, features: Float32Array, cell_type: int, gene: int) -> FloatArray:
        """Part ``(N,)`` of each patch of a bag in the expression of a gene in a type; their mean is the prediction."""
        weights = self.left[cell_type] @ self.right[cell_type][:, gene]
        return np.asarray(features.astype(np.float64) @ weights + self.bias[cell_type, gene])

    def arrays(self) -> dict[str, FloatArray]:
        """Parameters by name, to be saved."""
        return {"left": self.left, "right": self.right, "bias": self.bias}


def _reduced(values: FloatArray, rank: int | None) -> tuple[FloatArray, FloatArray]:
    """Factors ``(P, r)`` and ``(r, G)`` of the best approximation of a rank."""
    U, s, V = np.linalg.svd(values, full_matrices=False)
    r = max(1, min(len(s), rank or len(s)))
    return U[:, :r] * s[:r], V[:r]
