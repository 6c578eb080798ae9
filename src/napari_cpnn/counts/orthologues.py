"""Name the genes of one species as their one-to-one orthologues of another, from a table that the user has.

No table is part of the package. ``HOM_MouseHumanSequence.rpt`` of Mouse Genome Informatics (CC BY 4.0), an export of
Ensembl's BioMart with homologues, and any table with a column for each species are read.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.counts.text_tables import read_table
from napari_cpnn.errors import DownloadError, GenesError
from napari_cpnn.storage import cache_folder, download_or_say, staged
from napari_cpnn.untrusted import to_path

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MGI_URL = "https://www.informatics.jax.org/downloads/reports/HOM_MouseHumanSequence.rpt"
#: Columns of the report of Mouse Genome Informatics: one row for each gene of a class of homologues.
_CLASS, _ORGANISM, _SYMBOL = "DB Class Key", "Common Organism Name", "Symbol"
_SPECIES = {"human": r"\bhuman|homo sapiens|^hgnc|^gene name$", "mouse": r"\bmouse|mus musculus|^mgi"}
_NAMES = r"symbol|gene.?name|^(human|mouse)$|^(human|mouse)[ _]gene$"


@dataclass(frozen=True)
class Orthologues:
    """Pairs of genes that have exactly one partner each way.

    Attributes
    ----------
    pairs
        Mouse symbol to human symbol.
    n_ambiguous
        Number of genes of either species that were left out, since they have several partners.
    source
        Name of the file.
    """

    pairs: dict[str, str]
    n_ambiguous: int
    source: str

    def partners(self, to: str) -> dict[str, str]:
        """Return the pairs in the direction ``to`` ``"human"`` or ``"mouse"``."""
        return self.pairs if to == "human" else {human: mouse for mouse, human in self.pairs.items()}


def own_orthologues() -> Path:
    """Path of the table that :func:`fetch_orthologues` keeps."""
    return cache_folder() / "genes" / "orthologues.rpt"


def fetch_orthologues(source: str | Path | None = None, sha256: str | None = None) -> Path:
    """Keep a table of human and mouse genes, which :func:`read_orthologues` reads if it is given none.

    Parameters
    ----------
    source
        A table that :func:`read_orthologues` reads; None to download that of Mouse Genome Informatics (10 MB).
    sha256
        Checksum that the file must have. The report is made anew each week, so none is known beforehand.

    Returns
    -------
    Path
        The table, in the user's cache.

    Raises
    ------
    DownloadError
        If it cannot be downloaded, or has another checksum.
    GenesError
        If it is no such table; the former one stays.

    Examples
    --------
    >>> from napari_cpnn.counts import fetch_orthologues
    >>> fetch_orthologues("no_such_file.rpt")
    Traceback (most recent call last):
        ...
    napari_cpnn.errors.GenesError: no_such_file.rpt is not there; a table of human and mouse genes comes from https://...
    """
    target = own_orthologues()
    target.parent.mkdir(parents=True, exist_ok=True)
    with staged(target) as temporary:
        if source is None:
            download_or_say(MGI_URL, temporary)
        else:
            read_orthologues(source)
            shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 is not None and found != sha256.lower():
            raise DownloadError(f"The table of orthologues is damaged or of another date: its SHA-256 is {found}.")
        read_orthologues(temporary)
    return target


def read_orthologues(path: str | Path | None = None) -> Orthologues:
    r"""Read a table of human and mouse genes.

    Parameters
    ----------
    path
        ``HOM_MouseHumanSequence.rpt`` of Mouse Genome Informatics; or a table (tab, comma or semicolon, gzip or not)
        with one column of human and one of mouse symbols, as BioMart writes it. None: that of `fetch_orthologues`.

    Returns
    -------
    Orthologues
        Genes with one partner each way. A gene with several partners is left out, since its counts cannot be divided.

    Raises
    ------
    GenesError
        If the file cannot be read, has no such columns, or no pair.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_cpnn.counts import read_orthologues
    >>> _ = Path("pairs.csv").write_text("human,mouse\nERBB2,Erbb2\nKRT5,Krt5\n")
    >>> read_orthologues("pairs.csv").pairs
    {'Erbb2': 'ERBB2', 'Krt5': 'KRT5'}
    """
    file = own_orthologues() if path is None else to_path(path, GenesError)
    if not file.is_file():
        told = "napari-cpnn fetch orthologues" if path is None else MGI_URL
        raise GenesError(f"{file} is not there; a table of human and mouse genes comes from {told}.")
    table = read_table(file, "table of orthologues", GenesError, dtype=str)
    is_report = {_CLASS, _ORGANISM, _SYMBOL} <= set(table.columns)
    human, mouse = _of_classes(table) if is_report else _of_columns(table, file)
    both = {(h, m) for h, m in zip(human, mouse, strict=True) if _is_name(h) and _is_name(m)}
    counts: dict[tuple[str, str], int] = {}
    for one, other in both:
        for key in (("human", one), ("mouse", other)):
            counts[key] = counts.get(key, 0) + 1
    pairs = {m: h for h, m in sorted(both) if counts["human", h] == counts["mouse", m] == 1}
    if not pairs:
        raise GenesError(f"{file} has no gene with one partner each way; is it a table of human and mouse genes?")
    return Orthologues(pairs, len(counts) - 2 * len(pairs), file.name)


def translate_genes(table: AnnData, orthologues: Orthologues, to: str = "human") -> AnnData:
    """Return a table whose genes are named as their orthologues; genes without one are left out.

    Parameters
    ----------
    table
        Spots, single cells or bulk samples; its genes are symbols of the other species.
    orthologues
        Pairs of genes.
    to
        Species of the result, ``"human"`` or ``"mouse"``.

    Returns
    -------
    AnnData
        A copy with fewer genes; ``var["orthologue_of"]`` has the former names, ``uns["orthologues"]`` the source.

    Raises
    ------
    GenesError
        If ``to`` is another species, or fewer than a tenth of the genes have a partner: they are of another species, or
        no symbols.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from napari_cpnn.counts import Orthologues, translate_genes
    >>> cells = anndata.AnnData(np.ones((2, 2)), var=pd.DataFrame(index=["Erbb2", "Gm1"]))
    >>> list(translate_genes(cells, Orthologues({"Erbb2": "ERBB2"}, 0, "pairs.csv")).var_names)
    ['ERBB2']
    """
    if to not in _SPECIES:
        raise GenesError(f"Genes are translated to human or mouse, not to {to!r}.")
    partners, names = orthologues.partners(to), [str(name) for name in table.var_names]
    kept = np.array([i for i, name in enumerate(names) if name in partners], int)
    if len(kept) < max(1, len(names) / 10):
        other = "mouse" if to == "human" else "human"
        raise GenesError(
            f"{len(kept):,} of {len(names):,} genes are {other} symbols with a {to} orthologue in {orthologues.source}"
            f"; they must be symbols of {other} genes, such as {', '.join(list(partners)[:2])}."
        )
    found: Any = table[:, kept].copy()
    found.var["orthologue_of"] = [names[i] for i in kept]
    found.var_names = [partners[names[i]] for i in kept]
    if "gene_ids" in found.var:  # of the other species
        del found.var["gene_ids"]
    n = {"genes": len(kept), "left_out": len(names) - len(kept)}
    found.uns["orthologues"] = {"to": to, "source": orthologues.source, **n}
    return found


def _of_classes(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return all pairs of the classes of homologues: symbols of human and of mouse genes."""
    is_human, is_mouse = (table[_ORGANISM].str.contains(_SPECIES[s], case=False, na=False) for s in ("human", "mouse"))
    pairs = table.loc[is_human, [_CLASS, _SYMBOL]].merge(table.loc[is_mouse, [_CLASS, _SYMBOL]], on=_CLASS)
    return list(pairs[f"{_SYMBOL}_x"]), list(pairs[f"{_SYMBOL}_y"])


def _of_columns(table: pd.DataFrame, file: Path) -> tuple[list[str], list[str]]:
    columns = {}
    for species in ("mouse", "human"):
        of_it = [
            str(c) for c in table.columns
            if re.search(_SPECIES[species], str(c), re.IGNORECASE) and re.search(_NAMES, str(c), re.IGNORECASE)
        ]  # fmt: skip
        if len(of_it) != 1:
            what = "no column" if not of_it else f"{len(of_it)} columns"
            raise GenesError(f"{file} has {what} of {species} symbols; name the columns human and mouse.")
        columns[species] = of_it[0]
    return [str(v) for v in table[columns["human"]]], [str(v) for v in table[columns["mouse"]]]


def _is_name(text: str) -> bool:
    return bool(text.strip()) and text.strip().casefold() not in ("nan", "na", "none")
