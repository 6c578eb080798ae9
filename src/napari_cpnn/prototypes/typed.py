"""Expression of each cell type in each bulk sample: what deconvolution leaves in the counts.

The counts of gene g in sample n are a sum over types, given the abundances ``w_nc`` (shares times depth) of
:func:`~napari_cpnn.deconvolve_with_uncertainty`:

    k_ng ~ Poisson(t_ng sum_c mu_ncg x_ncg),   mu_ncg = w_nc m_g exp(d_cg) T_cg,   x_ncg ~ Gamma(mean 1, variance v_cg)

``t_ng`` is technical noise of mean 1 and standard deviation ``technical_sd``; ``m_g`` is the detection of the gene
in bulk, ``d_cg ~ N(0, sd)`` how this cohort's type differs from the prototype, and ``x_ncg`` how sample n differs
from its cohort. ``m``, ``d`` and ``v`` are estimated from all samples (see
:mod:`napari_cpnn.prototypes.gamma_split`); given them, ``x`` is a posterior mode in closed form but for one number
per sample and gene. What a sample cannot say is left at the mean of the cohort, so that expression is comparable
between samples; the
*confidence* of a gene in a type says how much is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.counts import positions, read_h5ad_table, require_genes
from napari_cpnn.errors import SettingsError, SpotsError
from napari_cpnn.prototypes.deconvolution import _Table, deconvolve, deconvolve_with_uncertainty
from napari_cpnn.prototypes.gamma_split import relative_expression, reliability, scale_step, variances, varying
from napari_cpnn.prototypes.prototypes import Prototypes
from napari_cpnn.settings import DeconvolutionSettings
from napari_cpnn.storage import whole_file, write_h5ad
from napari_cpnn.untrusted import to_path

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_KEY = "napari_cpnn_typed"
_FORMAT = 1
#: Rounds of scales and variances; three more change no confidence by more than .01.
_ROUNDS = 6
#: Prior standard deviation of a type's log scale beyond that of the gene, and relative spread of variances over types.
_SCALE_SD, _SPREAD_SD = 0.5, 3.0
#: Prior of the detection of a gene that deconvolution did not use: Gamma, mean 1.
_DETECTION = 4.0
#: Elements of a (types, samples, genes) block, 32 MB.
_BLOCK = 2**22


@dataclass(frozen=True, eq=False)
class TypedExpression:
    """Counts and expression of each cell type in each sample, and how much of it the samples say.

    Parameters
    ----------
    counts
        ``(C, S, G)`` float32: the counts of each gene, split over types by the posterior. They sum over types to the
        sample's counts (less the ambient share, if deconvolution has one).
    relative
        ``(C, S, G)`` float32: ``x``, expression in this sample relative to the type's mean in the cohort.
    profiles
        ``(C, G)``, the mean expression of each type in the cohort, rows sum to 1.
    shares
        ``(S, C)``, shares of RNA; NaN where a sample has no counts, as is its expression.
    confidence
        ``(G, C)`` in [0, 1]: the correlation over samples with the truth that is expected of ``relative``. 0: the
        type's values are its mean; it grows with the type's share of the gene's counts and with how much the gene
        varies within the type.
    variance
        ``(G, C)``, estimated variance of ``relative`` between samples.
    trained_on
        Patients that a model was trained on, if the expression is predicted from slides; none for bulk.

    Examples
    --------
    >>> typed = nc.deconvolve_typed(spots[:40], protos, nc.DeconvolutionSettings(method="nnls"), ["ERBB2", "CD3E"])
    >>> typed.expression("T-cells").shape, typed.confidence.shape
    ((40, 2), (2, 8))
    """

    counts: Float32Array
    relative: Float32Array
    profiles: pd.DataFrame
    shares: pd.DataFrame
    confidence: pd.DataFrame
    variance: pd.DataFrame
    trained_on: tuple[str, ...] = ()

    @property
    def cell_types(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.profiles.index)

    @property
    def genes(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.profiles.columns)

    @property
    def samples(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.shares.index)

    def _index(self, cell_type: str) -> int:
        if cell_type not in self.cell_types:
            raise SpotsError(f"There is no cell type {cell_type!r}; there are {', '.join(self.cell_types)}.")
        return self.cell_types.index(cell_type)

    def expression(self, cell_type: str) -> pd.DataFrame:
        """Expression of a type, ``(S, G)``: log1p of counts per 10,000 counts of the type in an average sample."""
        import pandas as pd

        c = self._index(cell_type)
        values = np.log1p(1e4 * self.profiles.to_numpy()[c] * self.relative[c])
        return pd.DataFrame(values, index=self.shares.index, columns=self.profiles.columns)

    def stacked(self) -> Float32Array:
        """:meth:`expression` of all types, ``(S, C, G)`` float32."""
        values = np.log1p(1e4 * self.profiles.to_numpy()[:, None, :] * self.relative)
        return np.ascontiguousarray(values.swapaxes(0, 1), dtype=np.float32)

    def select(self, genes: Sequence[str]) -> TypedExpression:
        """Return it restricted to ``genes``, in that order; nothing is rescaled."""
        index = require_genes(self.genes, genes, "The typed expression")
        return TypedExpression(
            self.counts[..., index],
            self.relative[..., index],
            self.profiles.iloc[:, index],
            self.shares,
            self.confidence.iloc[index],
            self.variance.iloc[index],
            self.trained_on,
        )

    def to_anndata(self) -> AnnData:
        """Samples x genes: ``X`` the sum of the types' counts, a layer of counts and one of ``relative`` per type.

        ``obsm["shares"]``; ``varm["confidence"]``, ``varm["variance"]`` and ``varm["profiles"]``, types in the order of
        ``uns["cell_types"]``, as are the layers ``counts_0``, ``relative_0``, ...
        """
        import pandas as pd
        from anndata import AnnData

        layers = {f"counts_{c}": self.counts[c] for c in range(len(self.cell_types))}
        layers |= {f"relative_{c}": self.relative[c] for c in range(len(self.cell_types))}
        table = AnnData(
            X=self.counts.sum(axis=0),
            obs=pd.DataFrame(index=pd.Index(self.samples, dtype=object)),
            var=pd.DataFrame(index=pd.Index(self.genes, dtype=object)),
            layers=layers,
            uns={"cell_types": list(self.cell_types), "trained_on": list(self.trained_on), _KEY: _FORMAT},
        )
        table.obsm["shares"] = self.shares.to_numpy()
        for name in ("confidence", "variance"):
            table.varm[name] = getattr(self, name).to_numpy()
        table.varm["profiles"] = self.profiles.to_numpy().T
        return table

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_anndata` as ``.h5ad``, whole or not at all."""
        with whole_file(Path(path), SpotsError) as temporary:
            write_h5ad(self.to_anndata(), temporary, compression="gzip")

    @classmethod
    def load(cls, path: str | Path) -> TypedExpression:
        """Read a file of :meth:`save`.

        Raises
        ------
        SpotsError
            If it is missing, damaged, or of another kind.
        """
        import pandas as pd

        source = to_path(path, SpotsError)
        table = read_h5ad_table(source, SpotsError)
        if _KEY not in table.uns:
            raise SpotsError(f"{source} holds no typed expression; make it with `napari-cpnn deconvolve BULK --typed`.")
        if int(table.uns[_KEY]) > _FORMAT:
            raise SpotsError(f"{source} was written by a newer version of napari-cpnn; update napari-cpnn.")
        types = pd.Index([str(name) for name in table.uns["cell_types"]], name="cell_type")
        genes = pd.Index(table.var_names, name="gene")
        try:
            counts, relative = (
                np.stack([np.asarray(table.layers[f"{what}_{c}"], np.float32) for c in range(len(types))])
                for what in ("counts", "relative")
            )
            return cls(
                counts,
                relative,
                pd.DataFrame(np.asarray(table.varm["profiles"]).T, index=types, columns=genes),
                pd.DataFrame(np.asarray(table.obsm["shares"]), index=table.obs_names, columns=types),
                pd.DataFrame(np.asarray(table.varm["confidence"]), genes, types),
                pd.DataFrame(np.asarray(table.varm["variance"]), genes, types),
                tuple(str(name) for name in table.uns["trained_on"]),
            )
        except (KeyError, ValueError) as error:
            raise SpotsError(f"{source} is damaged; make it again.") from error


def deconvolve_typed(
    bulk: AnnData,
    protos: Prototypes,
    settings: DeconvolutionSettings | None = None,
    genes: Sequence[str] | None = None,
    technical_sd: float = 0.1,
) -> TypedExpression:
    """Estimate the expression of each cell type in each bulk sample, and the confidence of each gene in each type.

    The method is in :mod:`napari_cpnn.prototypes.typed`; deterministic. Means and variances are estimated from the
    samples that are given, so that ten are few and fifty are enough. The shares are not estimated again.

    Parameters
    ----------
    bulk
        Raw counts in ``layers["counts"]``, samples x genes.
    protos
        Prototypes, most of whose genes are in the table.
    settings
        Of the deconvolution (default: ``DeconvolutionSettings.bulk()``), by either method.
    genes
        Genes to return (default: all that the prototypes and the table share). Shares use all of them anyway.
    technical_sd
        Relative standard deviation of a gene's counts between replicates of a sample, beyond counting. Counts cannot
        tell it from expression that varies in all types alike: with 0, technical noise counts as expression, and
        confidences are too high.

    Raises
    ------
    SettingsError
        If ``technical_sd`` is negative or not a number.
    SpotsError
        With fewer than three samples that have counts.
    GenesError, PrototypesError
        As :func:`~napari_cpnn.deconvolve`.

    Examples
    --------
    >>> typed = nc.deconvolve_typed(spots[:40], protos, nc.DeconvolutionSettings(method="nnls"), genes=["KRT19"])
    >>> import numpy as np
    >>> np.allclose(typed.counts.sum(axis=0), spots[:40, ["KRT19"]].layers["counts"].toarray(), rtol=1e-4)
    True
    """
    import pandas as pd

    if not 0 <= technical_sd < np.inf:
        raise SettingsError(f"The technical noise is a relative standard deviation such as 0.1, not {technical_sd}.")
    settings = settings or DeconvolutionSettings.bulk()
    table = _Table.of(bulk, protos, settings.ignore_gene_case)
    if table.counted.size < 3:
        raise SpotsError(
            f"The expression of types is estimated from what differs between samples, and only {table.counted.size} of "
            f"{len(table.names)} samples have counts in genes of the prototypes; give more samples."
        )
    state = _state(bulk, protos, settings, table)
    columns = list(range(len(table.genes))) if genes is None else list(require_genes(table.genes, genes, "The table"))
    size = max(1, _BLOCK // (len(table.cell_types) * table.counted.size))
    blocks = [_of_genes(table, state, columns[i : i + size], technical_sd**2) for i in range(0, len(columns), size)]
    counts, relative, profiles, confidence, variance = (
        np.concatenate(part, axis=-1) for part in zip(*blocks, strict=True)
    )
    types = pd.Index(table.cell_types, name="cell_type")
    names = pd.Index([table.genes[i] for i in columns], name="gene")
    # The sum over all genes of the prototypes stays 1, whichever of them are returned.
    return TypedExpression(
        _all_samples(counts, table),
        _all_samples(relative, table),
        pd.DataFrame(profiles, index=types, columns=names),
        state.shares,
        pd.DataFrame(confidence.T, index=names, columns=types),
        pd.DataFrame(variance.T, index=names, columns=types),
    )


@dataclass(frozen=True, eq=False)
class _State:
    """What deconvolution found: abundances ``(S, C)`` and their sd of the samples with counts; per gene by name."""

    shares: pd.DataFrame
    abundances: FloatArray
    abundance_sd: FloatArray
    background: FloatArray


def _state(bulk: AnnData, protos: Prototypes, settings: DeconvolutionSettings, table: _Table) -> _State:
    background = np.zeros(len(table.genes))
    if settings.method == "nnls":
        shares = deconvolve(bulk, protos, settings)
        abundances = np.nan_to_num(shares.to_numpy()[table.counted]) * table.depth[:, None]
        return _State(shares, abundances, np.zeros_like(abundances), background)
    found = deconvolve_with_uncertainty(bulk, protos, settings)
    depth = found.depth.to_numpy()[table.counted, None]
    background[positions(table.genes, list(found.background.index))] = found.background.to_numpy()
    return _State(
        found.shares,
        found.shares.to_numpy()[table.counted] * depth,
        found.share_sd.to_numpy()[table.counted] * depth,
        background,
    )


def _of_genes(table: _Table, state: _State, columns: list[int], technical: float) -> tuple[FloatArray, ...]:
    """Counts, relative expression ``(C, S, G)``, profiles, confidence and variance ``(C, G)`` of some genes."""
    counts = np.asarray(table.counts[:, columns].toarray(), dtype=np.float64)
    profiles = table.profiles[:, columns]
    plain = state.abundances.T[:, :, None] * profiles[:, None, :]
    background = table.depth[:, None] * state.background[columns]
    detection = (_DETECTION + np.maximum(counts - background, 0).sum(axis=0)) / (_DETECTION + plain.sum(axis=(0, 1)))
    offset = np.zeros_like(profiles)
    variance = np.full_like(profiles, 0.01)
    for _ in range(_ROUNDS):
        expected = plain * (detection * np.exp(offset))[:, None, :]
        mean = np.maximum(expected.sum(axis=0) + background, 1e-12)
        spread = mean + technical * mean**2 + varying(expected, variance)
        offset = offset + scale_step(counts - mean, expected, spread, offset, _SCALE_SD)
        expected = plain * (detection * np.exp(offset))[:, None, :]
        mean = np.maximum(expected.sum(axis=0) + background, 1e-12)
        noise = mean + technical * mean**2
        variance = variances(counts - mean, expected, noise + varying(expected, variance), noise, _SPREAD_SD)
    # Counts with technical noise tell as much as fewer counts without.
    thinned = 1 + technical * mean
    relative = relative_expression(counts / thinned, expected / thinned, variance, background / thinned)
    fitted = (expected * relative).sum(axis=0) + background
    ratio = np.divide(counts, fitted, out=np.ones_like(counts), where=fitted > 0)
    scaled = detection * np.exp(offset) * profiles
    noise = noise + np.einsum("sc,cg->sg", state.abundance_sd**2, scaled**2)
    confidence = reliability(expected, variance, noise + varying(expected, variance))
    return expected * relative * ratio, relative, profiles * np.exp(offset), confidence, variance


def _all_samples(values: FloatArray, table: _Table) -> Float32Array:
    full = np.full((values.shape[0], len(table.names), values.shape[2]), np.nan, np.float32)
    full[:, table.counted] = values
    return full
