"""Command ``translate-genes``: a table of counts with the genes of another species."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import AddCommand, add_overwrite
from napari_cpnn.storage import require_separate, whole_file


def add_genes_command(command: AddCommand) -> None:
    """Register the command ``translate-genes``."""
    sub = command(
        "translate-genes", _translate, "name the genes of spots or single cells as their orthologues in human or mouse"
    )
    sub.add_argument("table", type=Path, help="spots or single cells (.h5ad)")
    sub.add_argument("--to", choices=("human", "mouse"), default="human", help="species of the result (default: human)")
    sub.add_argument(
        "--orthologues",
        type=Path,
        help="table of human and mouse genes: MGI's HOM_MouseHumanSequence.rpt, BioMart, or two columns (default: that "
        "of napari-cpnn fetch orthologues)",
    )
    sub.add_argument("--out", type=Path, required=True, help="result (.h5ad)")
    add_overwrite(sub)


def _translate(args: argparse.Namespace) -> Facts:
    from napari_cpnn.counts import read_h5ad_table, read_orthologues, translate_genes
    from napari_cpnn.errors import CpnnError, ExportError, GenesError
    from napari_cpnn.untrusted import to_path

    refuse_existing(args.out, args.overwrite)
    if args.out.suffix.lower() != ".h5ad":
        raise CpnnError(f"{args.out} must end in .h5ad.")
    require_separate([args.out], [args.table, args.orthologues], ExportError)
    orthologues = read_orthologues(args.orthologues)
    path = to_path(args.table, GenesError)
    if not path.is_file():
        raise GenesError(f"There is no table {path}.")
    found = translate_genes(read_h5ad_table(path, GenesError), orthologues, args.to)
    with whole_file(args.out, ExportError) as temporary:
        found.write_h5ad(temporary)
    facts = {name: int(found.uns["orthologues"][name]) for name in ("genes", "left_out")}
    print(f"{facts['genes']:,} genes translated, {facts['left_out']:,} left out -> {args.out}")
    return {"to": args.to, **facts, "written": [args.out]}
