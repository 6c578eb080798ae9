"""Gene sets on the command line: the command ``signatures``, and the option ``--signature``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.options import AddCommand, decimal
from napari_cpnn.errors import CpnnError

if TYPE_CHECKING:
    from napari_cpnn.counts import GeneSet
    from napari_cpnn.mapping import CompositionMap, Signature
    from napari_cpnn.models import CPNN, Decoder, Trust


_NAMES = (
    "a name (napari-cpnn signatures), 'markers of TYPE', genes separated by commas, or a file (.gmt, .json of MSigDB, "
    ".txt; FILE:NAME for one of its sets)"
)


def add_signature_options(sub: argparse.ArgumentParser, *, to_show: bool = False) -> None:
    """Add the options that score gene sets; ``to_show``: only the one of a set that a window shows."""
    if to_show:
        sub.add_argument("--signature", metavar="SET", help=f"gene set to show (mean z-score): {_NAMES}")
        return
    sub.add_argument(
        "--signature",
        action="append",
        default=[],
        metavar="SET",
        help=f"score a gene set (mean z-score): {_NAMES}; repeat for more",
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

    found = [signature(cmap, one, least_pcc=args.least_pcc) for one in gene_sets(cmap.decoder, cmap.trust, args)]
    for one in found:
        cmap.signatures[one.name] = one
        print(one.note)
    return found


def check_gene_sets(model: CPNN, args: argparse.Namespace) -> None:
    """Refuse sets that do not exist, and limits that do not apply, before anything is predicted."""
    if args.signature or args.least_pcc is not None:
        gene_sets(model.decoder(), model.trust, args)


def gene_sets(decoder: Decoder, trust: Trust | None, args: argparse.Namespace) -> list[GeneSet]:
    """Return the sets that the options name, of a file, of a list, or built in; refuse limits that do not apply."""
    from napari_cpnn.mapping import choose_genes, gene_sets_of

    if args.least_pcc is not None and not args.signature:
        raise CpnnError("--least-pcc is for --signature.")
    sets = [one for text in args.signature for one in gene_sets_of(decoder, text)]
    for one in sets:
        choose_genes(one, decoder.genes, trust, args.least_pcc)
    return sets


def _list(args: argparse.Namespace) -> Facts:
    from napari_cpnn.counts import builtin_gene_sets, read_gene_sets

    sets = builtin_gene_sets() if args.file is None else read_gene_sets(args.file)
    for one in sets:
        print(f"{one.name} ({len(one.genes)} genes). {one.source}".rstrip())
        if args.genes:
            print(f"  {', '.join(one.genes)}")
    return {"signatures": [{"name": one.name, "source": one.source, "genes": one.genes} for one in sets]}
