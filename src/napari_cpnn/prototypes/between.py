"""How much of a gene's variation over single cells lies between the cell types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_cpnn.arrays import FloatArray
    from napari_cpnn.prototypes.prototypes import Prototypes


def variance_between_types(prototypes: Prototypes) -> FloatArray:
    """Return the share of each gene's variance over cells that lies between the types, without counting noise.

    With the mean ``mu_c`` of a type and the negative binomial's dispersion ``theta``, cells of one type vary by
    ``mu_c^2 / theta`` beside the noise of counting, so that the share is ``Var(mu) / (Var(mu) + E[mu^2] / theta)`` over
    the types as frequent as in the reference. A model that knows nothing but the type of a cell explains no more of the
    gene than this.

    Returns
    -------
    numpy.ndarray
        ``(G,)`` in [0, 1]; NaN without a dispersion (``method="mean"``), or where no cell expresses the gene.

    Examples
    --------
    >>> shares = nc.variance_between_types(protos)
    >>> shares.shape == (len(protos.genes),)
    True
    """
    if prototypes.dispersion is None:
        return np.full(len(prototypes.genes), np.nan)
    n = prototypes.n_cells.astype(np.float64)
    frequency = (n if n.sum() > 0 else np.ones_like(n))[:, None]
    frequency = frequency / frequency.sum()
    mu = prototypes.profiles.astype(np.float64)
    mean = (frequency * mu).sum(axis=0)
    between = (frequency * (mu - mean) ** 2).sum(axis=0)
    within = (frequency * mu**2).sum(axis=0) / prototypes.dispersion.astype(np.float64)
    total = between + within
    return np.asarray(np.divide(between, total, out=np.full(len(total), np.nan), where=total > 0))
