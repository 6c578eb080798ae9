"""Select the genes that best distinguish cell types in spots, given the uncertainty of the prototypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.prototypes.prototypes import Prototypes

#: Assumed counts per cell if the prototypes do not store the number.
_COUNTS_PER_CELL = 1000.0
#: Bounds on the squared coefficient of variation of a gene between types.
_LEAST_CV2, _MOST_CV2 = 0.05, 20.0
#: Dispersion of a typical gene in spots, used only for the selection.
_THETA = 2.0


def reference_counts(protos: Prototypes) -> FloatArray:
    """Return the number of counts behind each prototype, ``(C,)``; infinite if it does not come from cells."""
    known = protos.provenance.get("counts_per_type")
    per_type: Mapping[str, Any] = known if isinstance(known, Mapping) else {}
    guesses = np.where(protos.n_cells > 0, protos.n_cells * _COUNTS_PER_CELL, np.inf)
    return np.array([float(per_type.get(t, n)) for t, n in zip(protos.cell_types, guesses, strict=True)])


def shrunk_profiles(profiles: FloatArray, n_counts: FloatArray) -> FloatArray:
    """Shrink profiles to their mean according to their uncertainty: the mean of a Gamma-Poisson posterior per gene.

    ``T_cg`` is estimated from ``N_c T_cg`` counts. With the prior ``Gamma(shape a_g, mean m_g)``, where ``1 / a_g`` is
    the squared coefficient of variation between types in excess of counting noise, the posterior mean is ``(N_c T_cg +
    a_g) / (N_c + a_g / m_g)``.

    Parameters
    ----------
    profiles
        ``(C, G)``.
    n_counts
        ``(C,)``, N; infinite for an exact profile.
    """
    counted = np.minimum(n_counts, 1e9)
    trust = counted / (counted + np.median(counted))
    trust /= trust.sum()
    mean = np.maximum(trust @ profiles, 1e-12)
    variance = trust @ ((profiles - mean) ** 2) - mean * (trust / counted).sum()
    shape = 1 / np.clip(variance / mean**2, _LEAST_CV2, _MOST_CV2)
    shrunk: FloatArray = (profiles * counted[:, None] + shape) / (counted[:, None] + shape / mean)
    return shrunk


def choose_informative(
    profiles: FloatArray, n_counts: FloatArray, mean_counts: FloatArray, max_genes: int | None
) -> npt.NDArray[np.intp]:
    """Return the genes whose counts are most informative about the composition of a spot.

    The information of a gene is its squared coefficient of variation between the types times the Fisher information of
    a negative binomial count about its log mean, ``k / (1 + k / theta)``, at the mean count ``k`` of the spots. The
    profiles are shrunk first: in a type with few cells most genes appear absent or strong by chance.

    Parameters
    ----------
    profiles
        ``(C, G)``, rows sum to 1.
    n_counts
        ``(C,)``, see :func:`reference_counts`.
    mean_counts
        ``(G,)``, mean count per spot.
    max_genes
        Number of genes; None for all genes detected in the spots and in a prototype.

    Returns
    -------
    ndarray
        Positions in ascending order. Ties are resolved by gene order.
    """
    shrunk = shrunk_profiles(profiles, n_counts)
    mean = shrunk.mean(axis=0)
    information = shrunk.var(axis=0) / mean**2 * mean_counts / (1 + mean_counts / _THETA)
    usable = (mean_counts > 0) & (profiles.sum(axis=0) > 0)
    order = np.argsort(-np.where(usable, information, -1), kind="stable")[: int(usable.sum())]
    return np.sort(order[:max_genes])
