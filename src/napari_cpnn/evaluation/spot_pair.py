"""A quantity measured and predicted at the same spots: colour ranges and correlations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.arrays import Float32Array
from napari_cpnn.errors import GenesError
from napari_cpnn.evaluation.metrics import pearson, spearman

if TYPE_CHECKING:
    from anndata import AnnData


#: Percentile range covered by colours, so that outliers do not determine it.
_RANGE = (0.02, 0.98)
_LEAST_SPREAD = 0.05


@dataclass(frozen=True, eq=False)
class SpotPair:
    """Measured and predicted values of a quantity at each spot.

    Attributes
    ----------
    name, unit
        Name and unit, such as ``ERBB2`` and ``log1p CP10k``.
    measured, predicted
        ``(n,)`` each.
    """

    name: str
    unit: str
    measured: Float32Array
    predicted: Float32Array

    @property
    def difference(self) -> Float32Array:
        """Predicted minus measured."""
        return self.predicted - self.measured

    def limits(self) -> tuple[float, float]:
        """Common colour range of both."""
        return _limits(np.concatenate([self.measured, self.predicted]))

    def own_limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Separate colour ranges of measured and predicted values, to compare patterns rather than amounts."""
        return _limits(self.measured), _limits(self.predicted)

    def difference_limits(self) -> tuple[float, float]:
        """Colour range of the difference, symmetric around 0."""
        reach = max(float(np.nanquantile(np.abs(self.difference), _RANGE[1])), _LEAST_SPREAD)
        return -reach, reach

    def correlations(self) -> tuple[float, float]:
        """PCC and SCC over spots with both values; NaN if one is constant."""
        both = np.isfinite(self.measured) & np.isfinite(self.predicted)
        if both.sum() < 2:
            return float("nan"), float("nan")
        first, second = self.predicted[both, None], self.measured[both, None]
        return float(pearson(first, second)[0]), float(spearman(first, second)[0])


def _limits(values: Float32Array) -> tuple[float, float]:
    low, high = (float(v) for v in np.nanquantile(values, _RANGE))
    return low, max(high, low + _LEAST_SPREAD)


def gene_pair(compared: AnnData, gene: str) -> SpotPair:
    """Extract a gene from a table of :func:`~napari_cpnn.evaluation.predictions.predict_expression`."""
    if gene not in compared.var_names:
        raise GenesError(f"{gene} is not among the {compared.n_vars:,} genes that were both measured and predicted.")
    column = compared.var_names.get_loc(gene)
    tables = (compared.layers["measured"], compared.X)
    measured, predicted = (np.asarray(table[:, column], dtype=np.float32) for table in tables)
    return SpotPair(gene, "log1p CP10k", measured, predicted)
