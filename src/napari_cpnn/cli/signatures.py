"""Gene sets on the command line: the command ``signatures``, and the option ``--signature``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.cli.options import AddCommand, decimal
from napari_cpnn.errors import CpnnError

if TYPE_CHECKING:
    from napari_cpnn.counts import GeneSet
    from napari_cpnn.mapping import CompositionMap, Signature


def add_signature_options(sub: argparse.ArgumentParser) -> None:
    """Add the options that score gene sets."""
    sub.add_argument(
        "--signature",
        action="append",
        default=[],
        metavar="SET",
        help="score a gene set (mean z-score): a name (napari-cpnn signatures), 'markers of TYPE', genes separated by "
        "commas, or a file (.gmt, .json of MSigDB, .txt; FILE:NAME for one of its sets); repeat for more",
    )
    sub.add_argument(
        "--least-pcc",
        type=decimal,
        help="least held-out correlation of the genes of signatures (default: those with a trusted scale)",
    )


def add_signatures_command(command: AddCommand) -> None:
    """Register the command ``signatures``."""
    sub = command("signatures", _list, "list the built-in gene sets and their sources, or those of a file")
    sub.add_argument("file", nargs="?", type=Path, help=".gmt, .json of MSigDB, or .txt")
    sub.add_argument("--genes", action="store_true", help="also list the genes")


def scored(cmap: CompositionMap, args: argparse.Namespace) -> list[Signature]:
    """Score the sets that the options name, keep them for exports, and say which genes were used."""
    from napari_cpnn.mapping import signature

    if args.least_pcc is not None and not args.signature:
        raise CpnnError("--least-pcc is for --signature.")
    found = [signature(cmap, one, least_pcc=args.least_pcc) for text in args.signature for one in _sets(cmap, text)]
    for one in found:
        cmap.signatures[one.name] = one
        print(one.note)
    return found


def _sets(cmap: CompositionMap, text: str) -> list[GeneSet]:
    from napari_cpnn.counts import builtin_gene_sets, gene_list, read_gene_sets
    from napari_cpnn.mapping import gene_set_of

    if text.strip().casefold() in {one.name.casefold() for one in builtin_gene_sets()}:
        return [gene_set_of(cmap.decoder, text)]
    file, _, name = text.rpartition(":")
    if Path(text).is_file():
        return list(read_gene_sets(text))
    if file and Path(file).is_file():
        sets = [one for one in read_gene_sets(file) if one.name == name]
        if not sets:
            raise CpnnError(f"{file} has no gene set {name!r}; see napari-cpnn signatures {file}.")
        return list(sets)
    if "," in text:
        return [gene_list(text, text if len(text) <= 40 else f"{text[:37]}...")]
    return [gene_set_of(cmap.decoder, text)]


def _list(args: argparse.Namespace) -> None:
    from napari_cpnn.counts import builtin_gene_sets, read_gene_sets

    for one in builtin_gene_sets() if args.file is None else read_gene_sets(args.file):
        print(f"{one.name} ({len(one.genes)} genes). {one.source}".rstrip())
        if args.genes:
            print(f"  {', '.join(one.genes)}")
