"""Find the gene that a name means, among the genes of a model or a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from napari_cpnn.counts.alias_table import AliasTable, Entry, folded, load_aliases, names_in_pathology
from napari_cpnn.errors import GenesError

_VERSION = re.compile(r"(?i)^(ENS[A-Z]*G\d{6,})\.\d+$")
#: Symbols that a message names at most.
_MOST_NAMED = 8


@dataclass(frozen=True)
class GeneMatch:
    """The gene that a name means in a list of genes.

    Parameters
    ----------
    name
        The name that was looked up.
    gene
        The gene as it is spelt in the list; None if there is none, or several are meant.
    candidates
        Genes of the list that may be meant, where there are several; empty otherwise.
    symbols
        Approved symbols that the name stands for; empty for a name that is spelt as in the list, or unknown.
    note
        How the name was understood, or why no gene was found: one sentence, or empty where nothing is to be said.
    """

    name: str
    gene: str | None
    candidates: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    note: str = ""


def find_gene(name: str, genes: Sequence[str], owner: str = "the list") -> str:
    """Return the gene that a name means, as it is spelt in a list of genes.

    Names are compared without case. Names of the pathology lab (HER2, Ki-67, PD-L1, p40), approved and previous
    symbols, aliases and Ensembl ids are understood, whichever of them the list has. A name that means several genes,
    such as CD3, is never decided: see :func:`match_gene` for the choices.

    Parameters
    ----------
    name
        The name of one human gene or of its protein.
    genes
        The genes of a model or a table.
    owner
        What the list belongs to, for messages.

    Raises
    ------
    GenesError
        If the name is unknown, its gene is not in the list, or it means several genes; the message names them.

    Examples
    --------
    >>> nc.find_gene("HER2", model.genes)
    'ERBB2'
    >>> nc.find_gene("CD3", ["CD3D", "CD3E"])
    Traceback (most recent call last):
        ...
    napari_cpnn.errors.GenesError: CD3 stands for CD3D, CD3E, CD3G; choose one of CD3D, CD3E.
    """
    match = match_gene(name, genes, owner)
    if match.gene is None:
        raise GenesError(match.note)
    return match.gene


def match_gene(name: str, genes: Sequence[str], owner: str = "the list") -> GeneMatch:
    """Return which gene of a list a name means, which genes it may mean, or why there is none.

    Parameters
    ----------
    name, genes, owner
        As for :func:`find_gene`.

    Examples
    --------
    >>> from napari_cpnn.counts import match_gene
    >>> match_gene("CD8", ["CD8A", "CD8B", "CD4"]).candidates
    ('CD8A', 'CD8B')
    """
    return _match(name, _Index(genes), owner)


def match_genes(names: Iterable[str], genes: Sequence[str], owner: str = "the list") -> dict[str, GeneMatch]:
    """Return :func:`match_gene` of many names, by name; the list of genes is indexed once."""
    index = _Index(genes)
    return {name: _match(name, index, owner) for name in dict.fromkeys(names)}


def _match(name: str, index: _Index, owner: str) -> GeneMatch:
    name = " ".join(name.split())
    if own := index.spelt(name):
        return GeneMatch(name, own, note=_other_meaning(name, own))
    entries = _meant(name, load_aliases())
    if not entries:
        return GeneMatch(name, None, note=f"{_capital(owner)} does not have {name}, and no gene of that name is known.")
    symbols = tuple(entry.symbol for entry in entries)
    there = tuple(gene for entry in entries if (gene := index.of(entry)) is not None)
    if len(entries) > 1:
        said = f"{name} stands for {_listed(symbols)}"
        if not there:
            return GeneMatch(name, None, (), symbols, f"{said}; {owner} has none of them.")
        choice = f"choose one of {_listed(there)}" if len(there) > 1 else f"of these, {owner} has only {there[0]}"
        return GeneMatch(name, None, there, symbols, f"{said}; {choice}.")
    if there:
        return GeneMatch(name, there[0], (), symbols, f"{name} is the gene {there[0]}.")
    note = f"{name} is {symbols[0]}, which {owner} does not have."
    if symbols[0].casefold() == name.casefold():
        note = f"{_capital(owner)} does not have the gene {name}."
    return GeneMatch(name, None, (), symbols, note)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def other_names(genes: Sequence[str]) -> dict[str, str]:
    """Return names of the pathology lab for genes of a list, such as ``{"HER2": "ERBB2"}``; only clear ones."""
    from napari_cpnn.counts.alias_table import pathology_rows

    there = {gene.casefold(): gene for gene in genes}
    found = {}
    for symbols, names in pathology_rows():
        gene = there.get(symbols[0].casefold()) if len(symbols) == 1 else None
        if gene is not None:
            found.update({name: gene for name in names if folded(name) != folded(gene)})
    return found


class _Index:
    """A list of genes, searched by any name of a gene."""

    def __init__(self, genes: Sequence[str]) -> None:
        self._exact = set(genes)
        self._there: dict[str, str] = {}
        for gene in genes:
            self._there.setdefault(_bare(gene).casefold(), gene)

    def spelt(self, name: str) -> str | None:
        """Return the spelling of a name in the list, whatever its case."""
        return name if name in self._exact else self._there.get(_bare(name).casefold())

    def of(self, entry: Entry) -> str | None:
        """Return the gene of an entry as spelt in the list: by its symbol, ids, previous symbols, then aliases."""
        for group in ((entry.symbol,), entry.ids, entry.previous, entry.aliases):
            for name in group:
                gene = self._there.get(name.casefold())
                if gene is not None and (group in ((entry.symbol,), entry.ids) or not _is_approved(name)):
                    return gene
        return None


def _is_approved(name: str) -> bool:
    """Return whether a name is the approved symbol of some gene, which a list that has it then means."""
    entry = load_aliases().entry(name)
    return entry is not None and entry.symbol.casefold() == name.casefold()


def _bare(name: str) -> str:
    """Return an Ensembl id without its version; other names as they are."""
    found = _VERSION.match(name) if name[:3].upper() == "ENS" else None
    return name if found is None else found[1]


def _meant(name: str, table: AliasTable) -> list[Entry]:
    """Return the genes that a name means: in the pathology lab, by its approved symbol, or by other names.

    A name that is the approved symbol of one gene, and the name of the protein of another, means either: MIB1 is a
    gene, and MIB-1 the antibody against Ki-67.
    """
    own, symbols = table.entry(name), names_in_pathology().get(folded(name))
    if symbols is None:
        return [own] if own is not None else table.named(_bare(name))
    meant = [table.entry(symbol) or Entry(symbol) for symbol in symbols]
    is_symbol = own is not None and own.symbol.casefold() == name.casefold() and own.symbol not in symbols
    return [own, *meant] if own is not None and is_symbol else meant


def _other_meaning(name: str, gene: str) -> str:
    """Say so if the pathology lab means another gene by the name of a gene, such as TTF1."""
    symbols = names_in_pathology().get(folded(name), (gene,))
    if gene.casefold() in (symbol.casefold() for symbol in symbols) or not _is_approved(gene):
        return ""
    return f"{gene} is a gene of its own; for the protein of that name in pathology, see {_listed(symbols)}."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
