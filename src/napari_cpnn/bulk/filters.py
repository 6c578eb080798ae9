"""Filters of bulk samples and genes, those of the paper's supplement 8."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from napari_cpnn.counts import is_mitochondrial
from napari_cpnn.errors import SpotsError
from napari_cpnn.settings import BulkSettings

if TYPE_CHECKING:
    from anndata import AnnData

_RIBOSOMAL = re.compile(r"^RP[SL]\d", re.IGNORECASE)
_HAEMOGLOBIN = re.compile(r"^HB[ABDEGMQZ]\d?$", re.IGNORECASE)


def filter_bulk(bulk: AnnData, settings: BulkSettings | None = None) -> AnnData:
    """Return the samples and genes that pass; what was left out is in ``uns["left_out"]``.

    Parameters
    ----------
    bulk
        Output of :func:`read_bulk`.
    settings
        Thresholds; the defaults are those of the paper.

    Raises
    ------
    SpotsError
        If no sample or gene is left.

    Examples
    --------
    >>> kept = nc.filter_bulk(nc.read_bulk(folder / "spots.h5ad"), nc.BulkSettings(min_genes=100, min_samples=10))
    >>> kept.n_obs > 0
    True
    """
    settings = settings or BulkSettings()
    counts = sp.csr_matrix(bulk.layers["counts"])
    names = [str(one) for one in bulk.var_names]
    mito = is_mitochondrial(names)
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    share = np.asarray(counts[:, mito].sum(axis=1), dtype=np.float64).ravel() / np.maximum(totals, 1)
    n_genes = np.asarray((counts > 0).sum(axis=1)).ravel()
    samples = (share < settings.max_mito) & (n_genes > settings.min_genes) & (totals > 0)
    if not samples.any():
        raise SpotsError(
            f"No sample has more than {settings.min_genes} genes and less than {settings.max_mito:.0%} mitochondrial "
            "counts; lower min_genes, or raise max_mito."
        )
    needed = settings.least_samples(int(samples.sum()))
    genes = np.asarray((counts[samples] > 0).sum(axis=0)).ravel() >= needed
    families = np.zeros(len(names), dtype=bool)
    if settings.drop_families:
        families = mito | np.array([bool(_RIBOSOMAL.match(g) or _HAEMOGLOBIN.match(g)) for g in names])
    kept = genes & ~families
    if not kept.any():
        raise SpotsError(f"No gene is detected in {needed} of {int(samples.sum())} samples; lower min_samples.")
    result = bulk[samples][:, kept].copy()
    result.uns["left_out"] = {
        "samples": [str(one) for one in bulk.obs_names[~samples]],
        "rare_genes": int((~genes & ~families).sum()),
        "mitochondrial_ribosomal_haemoglobin_genes": int(families.sum()),
    }
    return result
