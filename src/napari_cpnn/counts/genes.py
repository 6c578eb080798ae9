"""Recognise gene names, and match the genes of two lists."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.counts.gene_lookup import match_gene
from napari_cpnn.errors import CpnnWarning, GenesError

#: Names of columns with gene symbols: CELLxGENE, Scanpy and Seurat exports, 10x, Ensembl's BioMart. Case and separators
#: are ignored: ``SYMBOL``, ``GeneSymbol``, ``gene symbol`` and ``Gene.Symbol`` all occur.
SYMBOL_COLUMNS = (
    "feature_name", "gene_name", "gene_names", "gene_symbol", "gene_symbols", "symbol", "symbols", "hgnc_symbol",
    "mgi_symbol", "hugo_symbol", "external_gene_name", "external_gene_id", "name", "names", "gene_short_name",
    "features", "feature", "gene", "genes", "gene_id", "gene_ids",
)  # fmt: skip
_SEPARATORS = re.compile(r"[\s_.\-]+")
#: Shares of the shorter list that indicate an error or deserve a warning when fewer genes are shared.
_HARDLY, _FEW = 0.01, 0.3
#: Fewer shared genes than this, and than half of the shorter list, are not enough to tell cell types apart.
_LEAST = 5
#: Additional share of the shorter list that must match when case is ignored for a warning to be issued.
_MANY_MORE = 0.1
#: If ignoring case multiplies few shared genes by this factor, the lists are of different species.
_FAR_MORE = 5
_NO_SYMBOL = ("", "nan", "none", "na", "<na>")

_ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}(\.\d+)?$")


def look_like_ensembl(genes: Sequence[str]) -> bool:
    """Return whether most names are Ensembl gene ids such as ``ENSG00000141736``."""
    sample = list(genes[:200])
    return bool(sample) and sum(bool(_ENSEMBL.match(g)) for g in sample) > len(sample) / 2


def symbols_beside(genes: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> list[str] | None:
    """Return symbols for genes named by Ensembl ids; None if they are not, or if no column holds symbols.

    Parameters
    ----------
    columns
        Annotations of the genes by column name. `SYMBOL_COLUMNS` lists the known names of symbol columns, the most
        likely first; case and separators are ignored.

    Returns
    -------
    list of str or None
        One name per gene; a gene without a symbol keeps its id.
    """
    if not look_like_ensembl(genes):
        return None
    named: dict[str, list[str]] = {}
    for column in columns:
        named.setdefault(_bare(column), []).append(column)
    for column in (column for name in SYMBOL_COLUMNS for column in named.get(_bare(name), ())):
        values = list(columns[column])
        symbols = ["" if str(v).strip().lower() in _NO_SYMBOL else str(v).strip() for v in values]
        known = [s for s in symbols if s]
        if len(known) > len(genes) / 2 and not look_like_ensembl(known):
            return [s or gene for s, gene in zip(symbols, genes, strict=True)]
    return None


def _bare(column: str) -> str:
    """Normalise a column name by removing case and separators.

    >>> _bare("Gene.Symbol") == _bare("gene_symbol")
    True
    """
    return _SEPARATORS.sub("", column).casefold()


def is_mitochondrial(genes: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which genes are mitochondrial, by symbol (``MT-`` in human, ``mt-`` in mouse)."""
    return np.array([g.upper().startswith("MT-") for g in genes], dtype=bool)


def positions(genes: Sequence[str], wanted: Sequence[str]) -> npt.NDArray[np.intp]:
    """Return the position of each of ``wanted`` in ``genes``; -1 if missing. The first of duplicates is used."""
    if len(wanted) == 1:  # a hundredth of the time of an index of 10,000 genes
        (gene,) = wanted
        return np.array([genes.index(gene) if gene in genes else -1], dtype=np.intp)
    index: dict[str, int] = {}
    for i, gene in enumerate(genes):
        index.setdefault(gene, i)
    return np.array([index.get(g, -1) for g in wanted], dtype=np.intp)


def named_as(
    genes: Sequence[str],
    ids: Sequence[str] | None,
    reference: Sequence[str],
    reference_ids: Sequence[str] | None,
    ignore_case: bool = False,
) -> list[str]:
    """Rename genes as in a reference list, where Ensembl ids show that they are the same gene.

    A gene whose name is in the reference keeps it. Otherwise it takes the name of the reference gene with the same id,
    unless another gene has that name already; versions of ids (``.17``) are ignored. Other genes keep their names.

    Parameters
    ----------
    genes, ids
        Names, and the corresponding ids; if ids are not given, names that are Ensembl ids are used.
    reference, reference_ids
        The same for the reference list.
    ignore_case
        Whether a name that differs only in case from exactly one name of the reference denotes the same gene.
    """
    there = set(reference)
    of_id: dict[str, str] = {}
    for name, gene_id in zip(reference, reference_ids or reference, strict=True):
        if _ENSEMBL.match(gene_id):
            of_id.setdefault(gene_id.split(".")[0], name)
    folded = Counter(name.casefold() for name in there)
    of_case = {name.casefold(): name for name in there if ignore_case and folded[name.casefold()] == 1}
    taken = {gene for gene in genes if gene in there}
    named = []
    for gene, gene_id in zip(genes, ids or genes, strict=True):
        other = of_id.get(gene_id.split(".")[0]) if gene not in there and _ENSEMBL.match(gene_id) else None
        other = of_case.get(gene.casefold()) if other is None else other
        named.append(gene if other is None or other in taken else other)
        taken.add(named[-1])
    return named


def shared_genes(first: Sequence[str], second: Sequence[str], names: tuple[str, str]) -> list[str]:
    """Return the genes in both lists, in the order of the first, without duplicates.

    Parameters
    ----------
    names
        What the two lists belong to, for error messages.

    Raises
    ------
    GenesError
        If hardly any genes are shared (none, less than a hundredth of the shorter list, or less than half of a
        handful), or few are and five times as many would be if case were ignored; the message shows how the lists spell
        their genes, and suggests a remedy.

    Warns
    -----
    CpnnWarning
        If few genes are shared, or many more would be if case were ignored.
    """
    one, other = list(dict.fromkeys(first)), set(second)
    shared = [gene for gene in one if gene in other]
    n, most = len(shared), min(len(one), len(other))
    n_folded = len({gene.casefold() for gene in one} & {gene.casefold() for gene in other})
    by_case = n_folded - n >= max(1.0, _MANY_MORE * most)
    other_case = by_case and n < _FEW * most and n_folded > _FAR_MORE * n
    refused = other_case or n < max(1, min(_LEAST, most / 2), _HARDLY * most)
    if not (refused or by_case or n < _FEW * most):
        return shared
    how_many = f"only {n:,} of {most:,} gene names" if n else "no gene names"
    said = f"{names[0]} and {names[1]} share {how_many}: {_spellings(first, second)}"
    if by_case:
        said += (
            f"; with upper and lower case ignored, {n_folded:,} of {most:,} would be shared: set ignore_gene_case "
            "(--ignore-gene-case) if this is intended"
        )
    if refused:
        raise GenesError(f"{said}.")
    warnings.warn(f"{said}.", CpnnWarning, stacklevel=3)
    return shared


def _spellings(first: Sequence[str], second: Sequence[str]) -> str:
    """Describe how two lists of genes differ, with examples."""
    kinds = ["Ensembl ids" if look_like_ensembl(genes) else "symbols" for genes in (first, second)]
    if kinds[0] != kinds[1]:
        return f"the former has {kinds[0]}, the latter {kinds[1]}; convert one of them"
    sets = set(first), set(second)
    alone = [
        [gene for gene in genes if gene not in there] for genes, there in zip((first, second), sets[::-1], strict=True)
    ]
    return "for instance " + " against ".join(", ".join((genes or ["none"])[:3]) for genes in alone)


def require_genes(genes: Sequence[str], wanted: Sequence[str], owner: str) -> npt.NDArray[np.intp]:
    """Return the positions of ``wanted`` in ``genes``; raise :class:`GenesError` naming up to five missing genes."""
    found = positions(genes, wanted)
    if (found < 0).any():
        missing = [str(gene) for gene, i in zip(wanted, found, strict=True) if i < 0]
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise GenesError(f"{owner} does not have {', '.join(missing[:5])}{more}{_meant(genes, missing)}.")
    return found


def _meant(genes: Sequence[str], missing: Sequence[str]) -> str:
    """Return genes of the list that resemble the missing ones, or else examples of its genes."""
    folded = {gene.split(".")[0].casefold(): gene for gene in genes}
    like = [folded[key] for gene in missing if (key := gene.split(".")[0].casefold()) in folded]
    like += [gene for name in missing[:5] if (gene := match_gene(name, genes).gene) is not None and gene not in like]
    if like:
        return f"; it has {', '.join(like[:5])}"
    return "; its genes are Ensembl ids" if look_like_ensembl(genes) and not look_like_ensembl(missing) else ""
