"""Decode compositions and programs to gene expression, in numpy.

Expression is linear in the network's outputs, so that a map of any gene is one small matrix product over the stored
compositions, without running the network again. On the count scale it is linear before one division by the total over
all genes, one more column of the same product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array
from napari_cpnn.counts import require_genes
from napari_cpnn.errors import GenesError, PrototypesError

#: Patches decoded per block: their float32 copies fit the processor's cache, which decodes a float16 map four times as
#: fast as converting it at once.
_BLOCK = 4096


#: Scale on which expression is linear: log1p of counts per 10,000, or counts.
Scale = Literal["log", "count"]


@dataclass(frozen=True, eq=False)
class Decoder:
    """The map from compositions to expression, by ``n = alpha * (w @ T) + z @ V + beta``.

    Models trained on spots predict ``e_g = n_g`` (scale ``"log"``); those trained on bulk RNA-seq
    ``e_g = log1p(10^4 n_g / sum_g n_g)``, with the sum over all G genes (scale ``"count"``).

    Parameters
    ----------
    genes
        Names of the G genes.
    cell_types
        Names of the C cell types; none for a linear head.
    prototypes
        T, ``(C, G)`` float32, rows sum to 1.
    alpha, beta
        Scale and shift per gene, ``(G,)`` float32, in units of the measurement.
    programs
        V, ``(R, G)`` float32.
    scale
        ``"log"``: n is expression in log1p CP10k; ``"count"``: n is relative to its sum over the genes.

    Examples
    --------
    >>> decoder = model.decoder()
    >>> decoder.contribution(cmap.weights, "ERBB2", "Cancer Epithelial").shape == cmap.state.shape
    True
    """

    genes: tuple[str, ...]
    cell_types: tuple[str, ...]
    prototypes: Float32Array
    alpha: Float32Array
    beta: Float32Array
    programs: Float32Array
    scale: Scale = "log"

    def __post_init__(self) -> None:
        n = len(self.genes)
        shapes = {
            "prototypes": (len(self.cell_types), n),
            "alpha": (n,),
            "beta": (n,),
            "programs": (self.programs.shape[0], n),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")

    @property
    def n_programs(self) -> int:
        """Number of programs R."""
        return int(self.programs.shape[0])

    @property
    def part_unit(self) -> str:
        """Unit of contributions, which sum to expression on this scale: ``"log1p CP10k"`` or ``"CP10k"``."""
        return "log1p CP10k" if self.scale == "log" else "CP10k"

    @cached_property
    def _totals(self) -> tuple[Float32Array, Float32Array]:
        """Sums over genes of what each weight and program adds, ``(C + R, 1)``, and of beta, ``(1,)``."""
        of_types = self.prototypes.astype(np.float64) @ self.alpha.astype(np.float64)
        of_all = np.concatenate([of_types, self.programs.sum(axis=1, dtype=np.float64)])[:, None]
        return of_all.astype(np.float32), np.array([self.beta.sum(dtype=np.float64)], dtype=np.float32)

    @cached_property
    def _gene_index(self) -> dict[str, int]:
        return {gene: i for i, gene in reversed(list(enumerate(self.genes)))}

    @cached_property
    def _type_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.cell_types)}

    def expression(self, weights: npt.ArrayLike, programs: npt.ArrayLike, genes: Sequence[str]) -> Float32Array:
        """Compute the expression of selected genes.

        Parameters
        ----------
        weights, programs
            ``(..., C)`` and ``(..., R)``, of any float type; NaN where unknown.
        genes
            Names of n genes.

        Returns
        -------
        numpy.ndarray
            ``(..., n)`` float32 in log1p of counts per 10,000; NaN where unknown.

        Raises
        ------
        GenesError
            If a gene is unknown to the model.
        """
        index = self._positions(genes)
        of_types, of_programs, shift = self._columns(index, total=self.scale == "count")
        values = _linear(weights, of_types, programs, of_programs, shift)
        return values if self.scale == "log" else _log1p_cp10k(values[..., :-1], values[..., -1:])

    def numerators(
        self, weights: npt.ArrayLike, programs: npt.ArrayLike, genes: Sequence[str]
    ) -> tuple[Float32Array, Float32Array]:
        """Return what is linear on the count scale: ``n (..., n)`` of genes, and its sum ``(...,)`` over all G genes.

        The expression of several patches taken as one sample is ``log1p(10^4 mean(n) / mean(sum))``.
        """
        of_types, of_programs, shift = self._columns(self._positions(genes), total=True)
        values = _linear(weights, of_types, programs, of_programs, shift)
        return values[..., :-1], values[..., -1]

    def contribution(
        self, weights: npt.ArrayLike, gene: str, cell_type: str, programs: npt.ArrayLike | None = None
    ) -> Float32Array:
        """Compute the contribution of one cell type to one gene, ``alpha_g * w_c * T_cg``.

        The contributions of all cell types, the programs' term and ``beta_g`` sum to the expression; on the count
        scale, all of them are counts per 10,000.

        Parameters
        ----------
        weights
            ``(..., C)``; NaN where unknown.
        programs
            ``(..., R)``; needed on the count scale, if the model has programs.

        Returns
        -------
        numpy.ndarray
            ``(...,)`` float32, in :attr:`part_unit`.

        Raises
        ------
        GenesError
            If the gene is unknown to the model.
        PrototypesError
            If the cell type is unknown to the model.
        """
        (g,) = self._positions([gene])
        c = self._type_position(cell_type)
        share = np.asarray(weights)[..., c].astype(np.float32)
        part = np.asarray(share * np.float32(self.alpha[g] * self.prototypes[c, g]), dtype=np.float32)
        if self.scale == "log":
            return part
        none = np.zeros((*np.shape(weights)[:-1], 0), dtype=np.float32)
        return _cp10k(part, self.numerators(weights, none if programs is None else programs, [])[1])

    def parts(
        self, weights: npt.ArrayLike, programs: npt.ArrayLike, gene: str
    ) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Return all that a gene is the sum of, in :attr:`part_unit`.

        Returns
        -------
        tuple of numpy.ndarray
            The contributions of the cell types ``(..., C)``, of all programs together ``(...,)``, and the shift
            ``(...,)``. Their sum is the expression, on the count scale in counts per 10,000.
        """
        (g,) = self._positions([gene])
        w, z = np.asarray(weights, dtype=np.float32), np.asarray(programs, dtype=np.float32)
        of_types = np.asarray(w * (self.alpha[g] * self.prototypes[:, g]), dtype=np.float32)
        of_programs = _product(z, self.programs[:, g])
        shift = np.full(w.shape[:-1], self.beta[g], dtype=np.float32)
        if self.scale == "log":
            return of_types, of_programs, shift
        total = self.numerators(w, z, [])[1]
        return _cp10k(of_types, total[..., None]), _cp10k(of_programs, total), _cp10k(shift, total)

    def of_rows(self, rows: Float32Array, gene: str) -> Float32Array:
        """Expression ``(N,)`` of one gene from weights and programs side by side, ``(N, C + R)`` float32."""
        (g,) = self._positions([gene])
        column = np.concatenate([self.alpha[g] * self.prototypes[:, g], self.programs[:, g]]).astype(np.float32)
        values = np.asarray(rows @ column + np.float32(self.beta[g]), dtype=np.float32)
        return values if self.scale == "log" else _log1p_cp10k(values, self._total_of(rows))

    def contribution_of_rows(self, rows: Float32Array, gene: str, types: Sequence[int]) -> Float32Array:
        """Contribution ``(N,)`` of some cell types together, from ``(N, C + R)`` as :meth:`of_rows`."""
        (g,) = self._positions([gene])
        members = list(types)
        column = np.asarray(self.alpha[g] * self.prototypes[members, g], dtype=np.float32)
        part = np.asarray(rows[:, members] @ column, dtype=np.float32)
        return part if self.scale == "log" else _cp10k(part, self._total_of(rows))

    def _total_of(self, rows: Float32Array) -> Float32Array:
        of_all, shift = self._totals
        return np.asarray(rows @ of_all[:, 0] + shift, dtype=np.float32)

    def _columns(self, index: npt.NDArray[np.intp], *, total: bool) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Columns of genes of all types ``(C, n)`` and programs ``(R, n)``, and shifts; with the total as the last."""
        of_types, of_programs = self.prototypes[:, index] * self.alpha[index], self.programs[:, index]
        if not total:
            return of_types, of_programs, self.beta[index]
        (of_all, shift), c = self._totals, len(self.cell_types)
        return (
            np.concatenate([of_types, of_all[:c]], axis=1),
            np.concatenate([of_programs, of_all[c:]], axis=1),
            np.concatenate([self.beta[index], shift]),
        )

    def _positions(self, genes: Sequence[str]) -> npt.NDArray[np.intp]:
        if isinstance(genes, str):
            raise GenesError(f"Genes are given as a list of names; write ['{genes}'].")
        index = self._gene_index
        try:
            return np.array([index[g] for g in genes], dtype=np.intp)
        except KeyError:
            return require_genes(self.genes, genes, "The model")

    def _type_position(self, cell_type: str) -> int:
        try:
            return self._type_index[cell_type]
        except KeyError:
            known = f"it has {', '.join(self.cell_types)}" if self.cell_types else "it has none"
            raise PrototypesError(f"The model does not know the cell type {cell_type}; {known}.") from None


def _cp10k(values: Float32Array, totals: Float32Array) -> Float32Array:
    with np.errstate(divide="ignore", invalid="ignore"):  # unknown places have no total
        return np.asarray(np.float32(1e4) * values / totals, dtype=np.float32)


def _log1p_cp10k(values: Float32Array, totals: Float32Array) -> Float32Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log1p(_cp10k(values, totals)), dtype=np.float32)


def _linear(
    weights: npt.ArrayLike,
    of_types: Float32Array,
    programs: npt.ArrayLike,
    of_programs: Float32Array,
    shift: Float32Array,
) -> Float32Array:
    """``weights @ of_types + programs @ of_programs + shift`` in float32, by blocks; NaN where an input has NaN."""
    w, z = np.asarray(weights), np.asarray(programs)
    if w.shape[-1] != len(of_types) or z.shape[-1] != len(of_programs) or w.shape[:-1] != z.shape[:-1]:
        raise ValueError(
            f"weights {w.shape} and programs {z.shape} do not fit {len(of_types)} types, {len(of_programs)} programs"
        )
    lead = w.shape[:-1]
    n = int(np.prod(lead))
    w, z = w.reshape(n, w.shape[-1]), z.reshape(n, z.shape[-1])
    # One channel shows whether a patch is known; the matrix product propagates NaN of the others.
    first = w if w.shape[1] else z
    out = np.empty((n, len(shift)), dtype=np.float32)
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        known = ~np.isnan(first[rows, 0]) if first.shape[1] else np.ones(len(out[rows]), dtype=bool)
        if known.all():
            out[rows] = _product(w[rows], of_types) + _product(z[rows], of_programs) + shift
            continue
        out[rows] = np.nan
        if known.any():
            part = _product(w[rows][known], of_types) + _product(z[rows][known], of_programs) + shift
            out[rows][known] = part
    return out.reshape(*lead, len(shift))


def _product(values: npt.NDArray[np.floating], matrix: Float32Array) -> Float32Array:
    return np.asarray(values.astype(np.float32, copy=False) @ matrix, dtype=np.float32)
