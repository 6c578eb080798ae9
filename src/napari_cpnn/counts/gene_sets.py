"""Sets of genes: the built-in ones, those of a file (GMT, or MSigDB's JSON), and pasted lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_cpnn.errors import GenesError
from napari_cpnn.texts import shown as one_line
from napari_cpnn.untrusted import read_json, reading, to_path

#: Limits for files from elsewhere: MSigDB's largest file has 34,000 sets and 30 MB.
_MOST_BYTES, _MOST_SETS, _MOST_GENES, _LONGEST_NAME = 256 * 2**20, 100_000, 50_000, 120
_BUILT_IN = Path(__file__).parent / "tables" / "signatures.gmt"


@dataclass(frozen=True)
class GeneSet:
    """Genes whose mean is of interest.

    Parameters
    ----------
    name
        Name on one line.
    genes
        Names of the genes, without duplicates; synonyms are allowed.
    source
        Where the set comes from, such as a citation; empty if it is not known.

    Examples
    --------
    >>> from napari_cpnn.counts import GeneSet
    >>> GeneSet("hormone receptors", ("ER", "PR")).genes
    ('ER', 'PR')
    """

    name: str
    genes: tuple[str, ...]
    source: str = ""


@lru_cache(maxsize=1)
def builtin_gene_sets() -> tuple[GeneSet, ...]:
    """Return the built-in sets, each with the paper it comes from.

    Examples
    --------
    >>> [s.name for s in nc.builtin_gene_sets() if "Hypoxia" in s.name]
    ['Hypoxia']
    """
    return tuple(_parse_gmt(_BUILT_IN.read_text(encoding="utf-8"), _BUILT_IN))


def read_gene_sets(path: str | Path) -> tuple[GeneSet, ...]:
    r"""Read the gene sets of a file.

    Parameters
    ----------
    path
        ``.gmt`` (one set per line: name, description, genes; tab-separated), ``.json`` of MSigDB (``geneSymbols`` by
        name), or ``.txt``/``.csv`` with one gene per line or separated by commas: one set with the name of the file.

    Raises
    ------
    GenesError
        If the file cannot be read or has no set with a gene.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("mine.gmt").write_text("B cells\tmy own\tCD79A\tMS4A1\n")
    >>> nc.read_gene_sets("mine.gmt")
    (GeneSet(name='B cells', genes=('CD79A', 'MS4A1'), source='my own'),)
    """
    path = to_path(path, GenesError)
    if not path.is_file():
        raise GenesError(f"{path} is not a file.")
    if path.stat().st_size > _MOST_BYTES:
        raise GenesError(f"{path} is too large for a file of gene sets.")
    with reading(path, GenesError, "gene sets are read from .gmt, the .json of MSigDB, or a list of genes in a .txt."):
        if path.suffix.lower() == ".json":
            sets = _parse_json(read_json(path, GenesError), path)
        else:
            text = path.read_text(encoding="utf-8-sig")
            if "\x00" in text:
                raise GenesError(f"{path} is not text; gene sets are read from .gmt, .json or .txt.")
            is_gmt = path.suffix.lower() == ".gmt"
            sets = _parse_gmt(text, path) if is_gmt else [gene_list(text, path.stem)]
    sets = [one for one in sets if one.genes]
    if not sets:
        raise GenesError(f"{path} has no gene set with a gene.")
    return tuple(sets)


def gene_list(text: str, name: str = "pasted genes") -> GeneSet:
    """Return the set of a pasted list: names on lines of their own, or separated by commas, semicolons or tabs.

    Where there is no separator but blanks, blanks separate.

    Examples
    --------
    >>> from napari_cpnn.counts import gene_list
    >>> gene_list("ERBB2, GRB7").genes
    ('ERBB2', 'GRB7')
    """
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    parts = re.split(r"[,;\t\r\n]+" if re.search(r"[,;\t\r\n]", text.strip()) else r"\s+", text)
    return GeneSet(_name(name), _genes(parts))


def _parse_gmt(text: str, path: Path) -> list[GeneSet]:
    sets = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *rest = line.split("\t")
        if len(rest) < 2:
            raise GenesError(
                f"{path}, line {number}: a set of a .gmt file has a name, a description and genes, in tabs."
            )
        sets.append(GeneSet(_name(name), _genes(rest[1:]), one_line(rest[0], 400)))
        _require_few(sets, path)
    return sets


def _parse_json(facts: Any, path: Path) -> list[GeneSet]:
    if not isinstance(facts, dict) or not all(isinstance(one, dict) for one in facts.values()):
        raise GenesError(f"{path} has no gene sets; MSigDB's JSON has geneSymbols by the name of the set.")
    sets: list[GeneSet] = []
    for name, one in facts.items():
        genes = one.get("geneSymbols")
        if not isinstance(genes, list):
            raise GenesError(f"{path}: the set {one_line(name, 60)} has no list geneSymbols.")
        parts = [one.get("systematicName"), one.get("pmid") and f"PMID {one['pmid']}", one.get("exactSource")]
        source = "; ".join(str(part) for part in parts if part)
        sets.append(GeneSet(_name(name), _genes([str(gene) for gene in genes]), one_line(source, 400)))
        _require_few(sets, path)
    return sets


def _require_few(sets: Sequence[GeneSet], path: Path) -> None:
    if len(sets) > _MOST_SETS:
        raise GenesError(f"{path} has more than {_MOST_SETS:,} gene sets.")


def _genes(names: Sequence[str]) -> tuple[str, ...]:
    if len(names) > _MOST_GENES:
        raise GenesError(f"A gene set has at most {_MOST_GENES:,} genes, not {len(names):,}.")
    return tuple(dict.fromkeys(one for name in names if (one := one_line(name.strip().strip("\"'"), 60))))


def _name(name: str) -> str:
    return one_line(name.strip(), _LONGEST_NAME) or "unnamed"
