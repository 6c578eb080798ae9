"""Decode compositions and programs to gene expression, in numpy.

Expression is linear in the network's outputs, so that a map of any gene is one small matrix product over the stored
compositions, without running the network again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array
from napari_cpnn.counts import require_genes
from napari_cpnn.errors import GenesError, PrototypesError

#: Patches decoded per block: their float32 copies fit the processor's cache, which decodes a float16 map four times as
#: fast as converting it at once.
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Decoder:
    """The linear map from compositions to expression, ``e = alpha * (w @ T) + z @ V + beta``.

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
        of_types = self.prototypes[:, index] * self.alpha[index]
        return _linear(weights, of_types, programs, self.programs[:, index], self.beta[index])

    def contribution(self, weights: npt.ArrayLike, gene: str, cell_type: str) -> Float32Array:
        """Compute the contribution of one cell type to one gene, ``alpha_g * w_c * T_cg``.

        The contributions of all cell types, the programs' term and ``beta_g`` sum to the expression.

        Parameters
        ----------
        weights
            ``(..., C)``; NaN where unknown.

        Returns
        -------
        numpy.ndarray
            ``(...,)`` float32, in the units of :meth:`expression`.

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
        return np.asarray(share * np.float32(self.alpha[g] * self.prototypes[c, g]), dtype=np.float32)

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
