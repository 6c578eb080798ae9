"""SLIDE-EX's network in closed form: expression linear in the mean features of a bag."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.settings import TypedSettings
from napari_cpnn.training.bags import Bags
from napari_cpnn.training.bags.typed.composition import TileComposition
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
    def fit(
        cls,
        bags: Bags,
        labels: TypedLabels,
        settings: TypedSettings,
        composition: TileComposition,
        penalty: FloatArray,
    ) -> BagLinear:
        """Fit ridge regressions of the labels ``(S, C, G)`` with penalties ``(C, G)``, then reduce their rank.

        ``A_c = V diag(s / (s^2 + l)) U' Y_c`` by one singular value decomposition of the features. The rank is
        reduced by the best approximation of the *fitted values*.
        """
        rows = _Rows.of(bags, labels, settings)
        left, right = [], []
        for c in range(len(penalty)):
            inner, outer = _reduced(rows.fitted(penalty[c])[c], settings.rank)
            # Fitted values U inner outer; weights V diag(1 / s) inner outer.
            left.append(rows.scaling.back(rows.right.T @ (inner / rows.s[:, None])))
            right.append(outer)
        U, V = np.stack(left), np.stack(right)
        return cls(composition, U, V, rows.center - np.einsum("f,cfr,crg->cg", rows.scaling.center, U, V))

    @classmethod
    def errors(
        cls,
        train: tuple[Bags, TypedLabels],
        test: tuple[Bags, TypedLabels],
        settings: TypedSettings,
        composition: TileComposition,  # noqa: ARG003 - of no consequence for expression here
    ) -> FloatArray:
        """Sum of squared errors ``(K, C, G)`` on the tested bags, of all ``PENALTIES`` and of full rank."""
        rows = _Rows.of(*train, settings)
        new = rows.scaling(test[0].means()) @ rows.right.T / rows.s
        found = []
        for penalty in PENALTIES:
            predicted = np.einsum("sp,cpg->scg", new, rows.fitted(penalty), optimize=True) + rows.center
            found.append(((predicted - test[1].expression) ** 2).sum(axis=0))
        return np.stack(found)

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


@dataclass(frozen=True, eq=False)
class _Rows:
    """Singular value decomposition of the bags' scaled features, and the labels in its row space ``(C, P, G)``."""

    scaling: Scaling
    s: FloatArray
    right: FloatArray
    projected: FloatArray
    center: FloatArray

    @classmethod
    def of(cls, bags: Bags, labels: TypedLabels, settings: TypedSettings) -> _Rows:
        means = bags.means()
        scaling = Scaling.of(means, settings.n_components)
        U, s, right = np.linalg.svd(scaling(means), full_matrices=False)
        keep = s > 1e-9 * max(float(s.max(initial=0.0)), 1e-300)
        Y = labels.expression.astype(np.float64)
        center = Y.mean(axis=0)
        projected = np.einsum("sp,scg->cpg", U[:, keep], Y - center, optimize=True)
        return cls(scaling, s[keep], right[keep], projected, center)

    def fitted(self, penalty: float | FloatArray) -> FloatArray:
        """Fitted values ``(C, P, G)`` in row space."""
        squares = self.s[:, None] ** 2
        return np.asarray(squares / (squares + penalty * (self.s**2).mean()) * self.projected)


def _reduced(values: FloatArray, rank: int | None) -> tuple[FloatArray, FloatArray]:
    """Factors ``(P, r)`` and ``(r, G)`` of the best approximation of a rank."""
    U, s, V = np.linalg.svd(values, full_matrices=False)
    r = max(1, min(len(s), rank or len(s)))
    return U[:, :r] * s[:r], V[:r]
