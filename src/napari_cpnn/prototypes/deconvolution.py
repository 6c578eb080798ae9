"""Deconvolve measured spots and bulk samples into cell types."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from napari_cpnn.arrays import FloatArray
from napari_cpnn.counts import as_counts, named_as, positions, shared_genes
from napari_cpnn.errors import CpnnWarning, PrototypesError, SettingsError, SpotsError
from napari_cpnn.prototypes.informative_genes import choose_informative, reference_counts
from napari_cpnn.prototypes.nnls import nnls_abundances
from napari_cpnn.prototypes.prototypes import Prototypes
from napari_cpnn.settings import DeconvolutionSettings

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_cpnn.prototypes.nb_deconvolution import NbFit


@dataclass(frozen=True, eq=False)
class Deconvolution:
    """Shares of cell types with their uncertainty, and other estimates of the negative binomial model.

    Parameters
    ----------
    shares, share_sd
        ``(spots, cell types)``, shares (rows sum to 1) and their posterior standard deviations. These cover counting
        noise, variation between spots and the unknown detection of genes, but not wrong prototypes or missing types.
    depth
        ``(spots,)``, expected counts of the spot's cells in the shared genes if each gene were detected as well as in
        the single cells. Shares times depth are abundances.
    gene_scale, background, dispersion
        Per used gene: detection relative to the single cells (around 1), ambient share of the counts, and theta of the
        negative binomial.
    log_posterior
        Logarithm of the posterior of the fit, up to a constant.
    iterations, converged
        Number of rounds, and whether the last one changed no share by more than the tolerance and hardly increased the
        posterior.

    Examples
    --------
    >>> found = nc.deconvolve_with_uncertainty(spots[:50], protos, nc.DeconvolutionSettings(max_genes=100))
    >>> found.shares.shape, found.share_sd.shape, found.depth.shape
    ((50, 8), (50, 8), (50,))
    """

    shares: pd.DataFrame
    share_sd: pd.DataFrame
    depth: pd.Series[float]
    gene_scale: pd.Series[float]
    background: pd.Series[float]
    dispersion: pd.Series[float]
    log_posterior: float
    iterations: int
    converged: bool


def deconvolve(spots: AnnData, protos: Prototypes, settings: DeconvolutionSettings | None = None) -> pd.DataFrame:
    """Estimate the shares of cell types in each spot or bulk sample.

    These are shares of RNA: prototypes are distributions over genes, so a type with large cells has a larger share than
    its share of cells. Gene scales, background and mean composition are estimated from the whole table: deconvolving it
    in parts gives slightly different shares, and with few spots the priors dominate.

    Parameters
    ----------
    spots
        Raw counts in ``layers["counts"]``: spots, or bulk samples with ``DeconvolutionSettings.bulk()``.
    protos
        Prototypes, most of whose genes are in the table. Genes are matched by name, and by Ensembl id if both have ids
        (``var["gene_ids"]``).
    settings
        Method and priors.

    Returns
    -------
    DataFrame
        ``(spots, cell types)``, rows sum to 1; NaN where a spot has no counts in genes of the prototypes.

    Raises
    ------
    GenesError
        If hardly any gene is shared; if few are, a :class:`~napari_cpnn.errors.CpnnWarning` is issued.
    PrototypesError
        If a cell type has no expression in the used genes.
    SpotsError
        If the table holds no raw counts or duplicate genes, or the memory is insufficient.

    Examples
    --------
    >>> shares = nc.deconvolve(spots, protos, nc.DeconvolutionSettings(method="nnls"))
    >>> shares.shape, list(shares.columns[:2])
    ((387, 8), ['B-cells', 'CAFs'])
    """
    settings = settings or DeconvolutionSettings()
    if settings.method == "nb":
        return deconvolve_with_uncertainty(spots, protos, settings).shares
    table = _Table.of(spots, protos, settings.ignore_gene_case)
    if not table.counted.size:
        return table.frame(np.zeros((0, len(protos.cell_types))))
    abundances = nnls_abundances(table.counts, table.profiles)
    totals = abundances.sum(axis=1, keepdims=True)
    return table.frame(np.divide(abundances, totals, out=np.full_like(abundances, np.nan), where=totals > 0))


def deconvolve_with_uncertainty(
    spots: AnnData, protos: Prototypes, settings: DeconvolutionSettings | None = None
) -> Deconvolution:
    """Estimate shares and their standard deviations with the negative binomial model; see :func:`deconvolve`.

    The method is described in :mod:`napari_cpnn.prototypes.nb_deconvolution`. The result is deterministic.

    Raises
    ------
    SettingsError
        If the settings select another method, which gives no uncertainty.

    Examples
    --------
    >>> found = nc.deconvolve_with_uncertainty(spots[:50], protos, nc.DeconvolutionSettings(max_genes=100))
    >>> bool((found.share_sd > 0).all(axis=None))
    True
    """
    import pandas as pd

    settings = settings or DeconvolutionSettings()
    if settings.method != "nb":
        raise SettingsError(f"The method {settings.method!r} gives no uncertainty; use 'nb'.")
    table = _Table.of(spots, protos, settings.ignore_gene_case)
    if not table.counted.size:
        return _nothing(table, protos)
    mean_counts = np.asarray(table.counts.mean(axis=0), dtype=np.float64).ravel()
    used = choose_informative(table.profiles, reference_counts(protos), mean_counts, settings.max_genes)
    profiles = table.profiles[:, used]
    _check_types(profiles, protos.cell_types)
    if len(used) < len(protos.cell_types) <= len(table.genes):
        warnings.warn(
            f"Only {len(used)} genes cannot tell {len(protos.cell_types)} cell types apart, so the shares are "
            "unreliable; raise max_genes.",
            CpnnWarning,
            stacklevel=2,
        )
    fit = _fit(table.counts[:, used], profiles, table.depth, settings)
    if not fit.converged:
        warnings.warn(
            f"Deconvolution has not converged after {fit.iterations} rounds, so its shares are preliminary; "
            "raise max_iterations.",
            CpnnWarning,
            stacklevel=2,
        )
    genes = pd.Index([table.genes[i] for i in used], name="gene")
    totals = fit.abundances.sum(axis=1, keepdims=True)
    depth = pd.Series(np.nan, index=table.names, name="depth")
    depth.iloc[table.counted] = table.depth * totals[:, 0]
    return Deconvolution(
        shares=table.frame(fit.abundances / totals),
        share_sd=table.frame(fit.share_sd),
        depth=depth,
        gene_scale=pd.Series(fit.gene_scale, genes, name="gene_scale"),
        background=pd.Series(fit.background, genes, name="background"),
        dispersion=pd.Series(fit.dispersion, genes, name="dispersion"),
        log_posterior=fit.log_posterior,
        iterations=fit.iterations,
        converged=fit.converged,
    )


@dataclass(frozen=True, eq=False)
class _Table:
    """Counts and profiles over the shared genes.

    ``counted`` marks the spots with counts in these genes; ``counts`` and ``depth`` are restricted to them.
    """

    names: pd.Index[str]
    cell_types: tuple[str, ...]
    genes: list[str]
    counts: sp.csr_matrix
    depth: FloatArray
    profiles: FloatArray
    counted: npt.NDArray[np.intp]

    @classmethod
    def of(cls, spots: AnnData, protos: Prototypes, ignore_case: bool) -> _Table:
        if "counts" not in spots.layers:
            raise SpotsError('The spots have no raw counts in layers["counts"]; read them with read_spots.')
        names = [str(name) for name in spots.var_names]
        ids = [str(i) for i in spots.var["gene_ids"]] if "gene_ids" in spots.var else None
        names = named_as(names, ids, protos.genes, protos.gene_ids, ignore_case)
        genes = shared_genes(protos.genes, names, ("The prototypes", "the table of spots"))
        _check_unique(names, genes)
        if len(genes) < len(protos.cell_types):
            warnings.warn(
                f"The {len(genes)} genes that the prototypes and the table of spots share cannot tell "
                f"{len(protos.cell_types)} cell types apart, so the shares are unreliable.",
                CpnnWarning,
                stacklevel=4,
            )
        counts = as_counts(spots.layers["counts"], "The table of spots", SpotsError)[:, positions(names, genes)]
        depth = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        counted = np.flatnonzero(depth > 0)
        profiles = protos.select(genes).profiles.astype(np.float64)
        return cls(spots.obs_names.copy(), protos.cell_types, genes, counts[counted], depth[counted], profiles, counted)

    def frame(self, values: FloatArray) -> pd.DataFrame:
        """Return ``(all spots, cell types)`` from the values of spots with counts; NaN for the others."""
        import pandas as pd

        full = np.full((len(self.names), len(self.cell_types)), np.nan)
        full[self.counted] = values
        return pd.DataFrame(full, index=self.names, columns=pd.Index(self.cell_types, name="cell_type"))


def _check_unique(names: list[str], shared: list[str]) -> None:
    wanted = set(shared)
    present = [name for name in names if name in wanted]
    if len(present) > len(wanted):
        twice = next(name for i, name in enumerate(present) if name in present[:i])
        raise SpotsError(
            f"The table of spots has duplicate gene names, such as {twice}; call var_names_make_unique() on it, or "
            "read it with read_spots."
        )


def _check_types(profiles: FloatArray, cell_types: tuple[str, ...]) -> None:
    silent = [name for name, row in zip(cell_types, profiles, strict=True) if not row.any()]
    if silent:
        raise PrototypesError(
            f"{', '.join(silent)} has no expression in the {profiles.shape[1]} selected genes; raise max_genes."
        )


def _fit(counts: sp.csr_matrix, profiles: FloatArray, depth: FloatArray, settings: DeconvolutionSettings) -> NbFit:
    """Fit the model on the selected device; report insufficient memory in one sentence."""
    from napari_cpnn.models import choose_device, is_out_of_memory
    from napari_cpnn.prototypes.nb_deconvolution import fit_nb

    device = choose_device(settings.device)
    try:
        # Apple's GPUs do not support float64.
        return fit_nb(counts, profiles, depth, settings, "cpu" if device.type == "mps" else str(device))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise SpotsError(
            f"There is not enough memory on {device} to deconvolve {counts.shape[0]:,} spots with {counts.shape[1]:,} "
            "genes; lower max_genes, or deconvolve fewer spots at a time."
        ) from error


def _nothing(table: _Table, protos: Prototypes) -> Deconvolution:
    """Return the result for a table in which no spot has counts: all values are NaN."""
    import pandas as pd

    empty = table.frame(np.zeros((0, len(protos.cell_types))))
    none: pd.Series[float] = pd.Series(np.zeros(0), index=pd.Index([], name="gene"))
    depth = pd.Series(np.nan, index=table.names, name="depth")
    return Deconvolution(empty, empty.copy(), depth, none, none.copy(), none.copy(), 0.0, 0, converged=True)
