"""Prototypes: the mean expression profile of each cell type."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.counts import csr_of, read_h5ad_table, require_genes
from napari_cpnn.errors import PrototypesError
from napari_cpnn.palette import checked_hierarchy, hierarchy_of
from napari_cpnn.prototypes.batch_codes import coded_provenance
from napari_cpnn.storage import whole_file, write_h5ad
from napari_cpnn.untrusted import reading, require_memory, to_path

if TYPE_CHECKING:
    import pandas as pd

_FORMAT = 1
_KEY = "napari_cpnn_prototypes"


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Mean expression profiles of cell types, each a distribution over genes.

    Parameters
    ----------
    profiles
        ``(C, G)`` float32, non-negative; each row sums to 1.
    cell_types, genes
        Names of the C rows and G columns, each unique.
    n_cells
        ``(C,)``, number of cells behind each profile; 0 if it does not come from cells.
    provenance
        Origin of the profiles and method of estimation; JSON types.
    dispersion
        ``(G,)`` float32, positive: ``theta`` of each gene's negative binomial for cells of one type and batch,
        ``variance = mean + mean^2 / theta``. None if the method does not estimate it.
    gene_ids
        Ensembl id of each gene; None if unknown.
    hierarchy
        Major type of each cell type; empty if unknown.

    Raises
    ------
    PrototypesError
        If the parts are inconsistent or a row is not a distribution.

    Examples
    --------
    >>> protos.to_frame().shape
    (8, 1707)
    >>> protos.select(["ERBB2", "CD3E"]).genes
    ('ERBB2', 'CD3E')
    >>> path = protos.save("prototypes.h5ad")
    """

    profiles: npt.NDArray[np.float32]
    cell_types: tuple[str, ...]
    genes: tuple[str, ...]
    n_cells: npt.NDArray[np.int64]
    provenance: dict[str, Any] = field(default_factory=dict)
    dispersion: npt.NDArray[np.float32] | None = None
    gene_ids: tuple[str, ...] | None = None
    hierarchy: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        profiles = np.array(self.profiles, dtype=np.float32)
        n_cells = np.array(self.n_cells, dtype=np.int64)
        profiles.flags.writeable = n_cells.flags.writeable = False
        object.__setattr__(self, "profiles", profiles)
        object.__setattr__(self, "n_cells", n_cells)
        object.__setattr__(self, "cell_types", tuple(str(name) for name in self.cell_types))
        object.__setattr__(self, "genes", tuple(str(name) for name in self.genes))
        if self.dispersion is not None:
            dispersion = np.array(self.dispersion, dtype=np.float32)
            dispersion.flags.writeable = False
            object.__setattr__(self, "dispersion", dispersion)
        if self.gene_ids is not None:
            object.__setattr__(self, "gene_ids", tuple(str(name) for name in self.gene_ids))
        object.__setattr__(self, "hierarchy", hierarchy_of(self.cell_types, self.hierarchy))
        wrong = self._what_is_wrong()
        if wrong:
            raise PrototypesError(f"Invalid prototypes: {wrong}.")

    def __repr__(self) -> str:
        names = ", ".join(self.cell_types[:4]) + (", ..." if len(self.cell_types) > 4 else "")
        return f"Prototypes({len(self.cell_types)} cell types x {len(self.genes)} genes: {names})"

    def _what_is_wrong(self) -> str | None:
        shape = (len(self.cell_types), len(self.genes))
        if 0 in shape or self.profiles.shape != shape or self.n_cells.shape != shape[:1]:
            return f"{shape[0]} cell types and {shape[1]} genes, with profiles of shape {self.profiles.shape}"
        for names, what in ((self.cell_types, "cell type"), (self.genes, "gene")):
            if len(set(names)) < len(names):
                return f"a {what} occurs twice"
        if not (np.isfinite(self.profiles).all() and (self.profiles >= 0).all()):
            return "a value is negative or missing"
        if self.dispersion is not None:
            if self.dispersion.shape != shape[1:]:
                return f"{shape[1]} genes, with dispersions of shape {self.dispersion.shape}"
            if not (np.isfinite(self.dispersion).all() and (self.dispersion > 0).all()):
                return "a dispersion is not a positive number"
        if self.gene_ids is not None and len(self.gene_ids) != len(self.genes):
            return f"{len(self.genes)} genes, with {len(self.gene_ids)} gene ids"
        off = np.abs(self.profiles.sum(axis=1, dtype=np.float64) - 1)
        if (off > 1e-3).any():
            return f"the profile of {self.cell_types[int(off.argmax())]} does not sum to 1 over genes"
        return None

    def to_frame(self) -> pd.DataFrame:
        """Return the profiles as ``(cell types, genes)``; rows sum to 1."""
        import pandas as pd

        return pd.DataFrame(
            self.profiles, index=pd.Index(self.cell_types, name="cell_type"), columns=pd.Index(self.genes, name="gene")
        )

    def select(self, genes: Sequence[str]) -> Prototypes:
        """Return the prototypes restricted to ``genes``, in that order, with rows rescaled to sum to 1.

        Raises
        ------
        GenesError
            If a gene is not among the prototypes' genes.
        PrototypesError
            If a cell type expresses none of the genes.
        """
        index = require_genes(self.genes, genes, "The table of prototypes")
        part = self.profiles[:, index].astype(np.float64)
        totals = part.sum(axis=1, keepdims=True)
        if not (totals > 0).all():
            silent = [name for name, total in zip(self.cell_types, totals, strict=True) if not total > 0]
            raise PrototypesError(f"{', '.join(silent)} has no expression in the {len(genes)} requested genes.")
        return replace(
            self,
            profiles=(part / totals).astype(np.float32),
            genes=tuple(genes),
            dispersion=None if self.dispersion is None else self.dispersion[index],
            gene_ids=None if self.gene_ids is None else tuple(self.gene_ids[i] for i in index),
        )

    def markers(
        self, n: int = 5, min_fold_change: float = 2.0, min_cp10k: float = 1.0, min_counts: float = 10.0
    ) -> pd.DataFrame:
        """Find marker genes of each cell type.

        A marker is higher in its type than in every other type, and at least ``min_fold_change`` times the mean of the
        other types. Genes are sorted by that ratio: ``log2((x + 1) / (mean of others + 1))`` with ``x`` in counts per
        10,000; the 1 prevents rarely detected genes from ranking first.

        Parameters
        ----------
        n
            Maximum number per type; a type that differs little from the others has fewer, or none.
        min_fold_change
            Minimum ratio to the mean of the other types.
        min_cp10k
            Minimum expression, in counts per 10,000.
        min_counts
            Minimum number of counts of the gene behind the value (``x`` times the counts of all cells of the type),
            since profiles of few cells are noisy. Ignored for prototypes that do not come from counts.

        Returns
        -------
        DataFrame
            One row per marker, types in the order of ``cell_types``: ``cell_type``, ``rank`` from 1, ``gene``,
            ``cp10k``, ``log2_fold_change``, ``next_type`` with ``next_cp10k`` (the highest of the others), and the
            number of ``counts``, NaN if unknown. Empty if there is only one type.
        """
        from napari_cpnn.prototypes.markers import marker_genes

        return marker_genes(
            self.profiles,
            self.cell_types,
            self.genes,
            self.provenance.get("counts_per_type", {}),
            n=n,
            min_fold_change=min_fold_change,
            min_cp10k=min_cp10k,
            min_counts=min_counts,
        )

    def left_out(self) -> pd.DataFrame:
        """Summarise what the filters of the estimate left out.

        Returns
        -------
        DataFrame
            ``what`` (cells, genes or cell types), ``reason`` in words, and ``n``. A cell counts for the first reason
            that applies. Empty if the prototypes do not come from single cells.
        """
        from napari_cpnn.prototypes.left_out import left_out

        return left_out(self.provenance, len(self.genes))

    def with_hierarchy(self, hierarchy: Mapping[str, str]) -> Prototypes:
        """Return these prototypes with a major type for each cell type; models trained with them keep it.

        Raises
        ------
        PrototypesError
            If a cell type has no major type.

        Examples
        --------
        >>> majors = {name: "immune" if "cells" in name else "other" for name in protos.cell_types}
        >>> protos.with_hierarchy(majors).hierarchy["T-cells"]
        'immune'
        """
        return replace(self, hierarchy=checked_hierarchy(self.cell_types, hierarchy))

    def save(self, path: str | Path) -> None:
        """Write an ``.h5ad`` (cell types x genes) atomically: an interruption leaves either the old or the new file."""
        import pandas as pd
        from anndata import AnnData

        target = Path(path)
        var = pd.DataFrame(index=pd.Index(self.genes, dtype=object))
        if self.dispersion is not None:
            var["dispersion"] = self.dispersion
        if self.gene_ids is not None:
            var["gene_ids"] = list(self.gene_ids)
        obs = pd.DataFrame({"n_cells": self.n_cells}, index=pd.Index(self.cell_types, dtype=object))
        if self.hierarchy:
            obs["major_type"] = [self.hierarchy.get(name, name) for name in self.cell_types]
        table = AnnData(
            X=self.profiles.copy(),
            obs=obs,
            var=var,
            uns={_KEY: {"format": _FORMAT, "provenance": json.dumps(self.provenance)}},
        )
        with whole_file(target, PrototypesError) as temporary:
            write_h5ad(table, temporary, compression="gzip")

    @classmethod
    def load(cls, path: str | Path) -> Prototypes:
        """Load prototypes written by :meth:`save`.

        Raises
        ------
        PrototypesError
            If the file is missing, damaged, of another kind or of a newer format.
        """
        source = to_path(path, PrototypesError)
        if not source.is_file():
            raise PrototypesError(f"The prototypes file {source} does not exist.")
        table = read_h5ad_table(source, PrototypesError)
        if _KEY not in table.uns or "n_cells" not in table.obs:
            raise PrototypesError(f"{source} holds no prototypes; create them with `napari-cpnn prototypes`.")
        with reading(source, PrototypesError, "it is damaged; create it again."):
            version = int(table.uns[_KEY]["format"])
            provenance = json.loads(str(table.uns[_KEY]["provenance"]))
            if not isinstance(provenance, dict):
                raise PrototypesError(f"{source} is damaged (its provenance is not a mapping); create it again.")
            provenance = coded_provenance(provenance)
            X = table.X
            if not isinstance(X, np.ndarray):
                require_memory(4.0 * table.n_obs * table.n_vars, source, PrototypesError)
                X = csr_of(X, f"The matrix of {source}", PrototypesError).toarray()
            n_cells = table.obs["n_cells"].to_numpy(dtype=np.int64)
            dispersion = table.var["dispersion"].to_numpy(dtype=np.float32) if "dispersion" in table.var else None
            gene_ids = tuple(table.var["gene_ids"].astype(str)) if "gene_ids" in table.var else None
            majors = dict(table.obs["major_type"].astype(str)) if "major_type" in table.obs else {}
            parts = (tuple(table.obs_names), tuple(table.var_names), n_cells, provenance, dispersion, gene_ids, majors)
        if version > _FORMAT:
            raise PrototypesError(f"{source} was written by a newer version of napari-cpnn; update napari-cpnn.")
        with reading(source, PrototypesError, "it is damaged; create it again."):
            try:
                return cls(X, *parts)
            except PrototypesError as exc:
                raise PrototypesError(f"{source} is damaged ({str(exc).rstrip('.')}); create it again.") from exc
