"""Gene names: what they look like, and how two lists of them are brought together."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import CpnnWarning, GenesError

#: Columns that hold symbols beside ids: CELLxGENE, Scanpy and Seurat exports, 10x, Ensembl's BioMart. In any case and
#: with any separator: ``SYMBOL``, ``GeneSymbol``, ``gene symbol`` and ``Gene.Symbol`` are names in use.
SYMBOL_COLUMNS = (
    "feature_name", "gene_name", "gene_names", "gene_symbol", "gene_symbols", "symbol", "symbols", "hgnc_symbol",
    "mgi_symbol", "hugo_symbol", "external_gene_name", "external_gene_id", "name", "names", "gene_short_name",
    "features", "feature", "gene", "genes", "gene_id", "gene_ids",
)  # fmt: skip
_SEPARATORS = re.compile(r"[\s_.\-]+")
#: Of two lists of the same genes most are shared. Below these shares of the shorter list, something is wrong.
_HARDLY, _FEW = 0.01, 0.3
#: Fewer shared genes than this, and than half of the shorter list, say nothing of cell types.
_LEAST = 5
#: So many more of the shorter list must be shared with upper and lower case ignored, for that to be said.
_MANY_MORE = 0.1
#: When few are shared and so many times as many would be, the names are another species', and those shared a chance.
_FAR_MORE = 5
_NO_SYMBOL = ("", "nan", "none", "na", "<na>")

_ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}(\.\d+)?$")


def look_like_ensembl(genes: Sequence[str]) -> bool:
    """Whether most names are Ensembl gene ids such as ``ENSG00000141736``."""
    sample = list(genes[:200])
    return bool(sample) and sum(bool(_ENSEMBL.match(g)) for g in sample) > len(sample) / 2


def symbols_beside(genes: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> list[str] | None:
    """Symbols for genes that are named by Ensembl ids; None when they are not, or no column holds any.

    Parameters
    ----------
    columns
        Annotations of the genes by name. `SYMBOL_COLUMNS` are the names under which symbols are kept in the wild, the
        likeliest first; case and separators do not matter.

    Returns
    -------
    list of str or None
        A gene without a symbol keeps its id.
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
    """The name of a column without case and separators.

    >>> _bare("Gene.Symbol") == _bare("gene_symbol")
    True
    """
    return _SEPARATORS.sub("", column).casefold()


def is_mitochondrial(genes: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which genes are mitochondrial, by their symbol (``MT-`` in man, ``mt-`` in mouse)."""
    return np.array([g.upper().startswith("MT-") for g in genes], dtype=bool)


def positions(genes: Sequence[str], wanted: Sequence[str]) -> npt.NDArray[np.intp]:
    """Where each of ``wanted`` stands in ``genes``; -1 where it does not. Of duplicates, the first counts."""
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
    """Names of genes as another list has them, where the two are the same gene by their Ensembl id.

    A gene whose name is in the reference keeps it. Another takes the name of the reference's gene of the same id, when
    no gene bears it yet; versions of ids (``.17``) do not matter. The rest keep their names.

    Parameters
    ----------
    genes, ids
        Names, and the ids beside them; where there are none, names that are ids count as such.
    reference, reference_ids
        The same of the list whose names are wanted.
    ignore_case
        Whether a name that differs from one of the reference, and from no other, in upper and lower case alone is the
        same gene.
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
    """Genes in both lists, in the order of the first, each once.

    Parameters
    ----------
    names
        What the two lists belong to, for the message.

    Raises
    ------
    GenesError
        When hardly any is shared (none, less than a hundredth of the shorter list, or of a handful less than half), or
        few are and five times as many would be if upper and lower case were ignored; the message shows how both sides
        spell their genes, and what would help.

    Warns
    -----
    CpnnWarning
        When few are shared, or many more would be if upper and lower case were ignored.
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
            "(--ignore-gene-case) if that is right"
        )
    if refused:
        raise GenesError(f"{said}.")
    warnings.warn(f"{said}.", CpnnWarning, stacklevel=3)
    return shared


def _spellings(first: Sequence[str], second: Sequence[str]) -> str:
    """How two lists of genes differ, with examples."""
    kinds = ["Ensembl ids" if look_like_ensembl(genes) else "symbols" for genes in (first, second)]
    if kinds[0] != kinds[1]:
        return f"the former are {kinds[0]}, the latter {kinds[1]}; convert one of them"
    sets = set(first), set(second)
    alone = [
        [gene for gene in genes if gene not in there] for genes, there in zip((first, second), sets[::-1], strict=True)
    ]
    return "for instance " + " against ".join(", ".join((genes or ["none"])[:3]) for genes in alone)


def require_genes(genes: Sequence[str], wanted: Sequence[str], owner: str) -> npt.NDArray[np.intp]:
    """Positions of ``wanted`` in ``genes``; a :class:`GenesError` names up to five that are missing."""
    found = positions(genes, wanted)
    if (found < 0).any():
        missing = [str(gene) for gene, i in zip(wanted, found, strict=True) if i < 0]
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise GenesError(f"{owner} does not know {', '.join(missing[:5])}{more}{_meant(genes, missing)}.")
    return found


def _meant(genes: Sequence[str], missing: Sequence[str]) -> str:
    """What of a list looks like the genes that are missing, or what its genes look like."""
    folded = {gene.split(".")[0].casefold(): gene for gene in genes}
    like = [folded[key] for gene in missing if (key := gene.split(".")[0].casefold()) in folded]
    if like:
        return f"; it has {', '.join(like[:5])}"
    return "; its genes are Ensembl ids" if look_like_ensembl(genes) and not look_like_ensembl(missing) else ""
