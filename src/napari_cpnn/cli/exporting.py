"""Command ``export``: write maps for other programs, or as figures."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.facts import facts_of_map, facts_of_places, facts_of_signatures
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import (
    AddCommand,
    add_hierarchy,
    add_model,
    add_overwrite,
    add_settings,
    chosen_settings,
    decimal,
    pixel_size,
)
from napari_cpnn.cli.signatures import add_signature_options, scored
from napari_cpnn.counts import find_gene
from napari_cpnn.errors import CpnnError, CpnnWarning
from napari_cpnn.geometry import Rect
from napari_cpnn.palette import checked_hierarchy, choose_colors, read_colors, read_hierarchy
from napari_cpnn.settings import ExportSettings, FigureSettings
from napari_cpnn.storage import require_separate
from napari_cpnn.untrusted import reading, to_path

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap, MarkedPlaces, Signature
    from napari_cpnn.painting import Shown

#: Same as ``napari_cpnn.export.FORMATS``, whose import would slow down ``--help``.
_OWNER = "the model of this map"
_FORMATS = ("anndata", "spatialdata", "ome-zarr", "geojson", "csv", "figure")


def add_export_command(command: AddCommand) -> None:
    """Register the command ``export``."""
    sub = command("export", _export, "write a map for squidpy, napari-spatialdata, QuPath and others, or as a figure")
    sub.add_argument("map", type=Path, help="map (.zarr) written by predict")
    sub.add_argument(
        "--out",
        type=Path,
        required=True,
        help=".h5ad (AnnData), .zarr (SpatialData), .ome.zarr, .geojson, .csv; or a figure: .png, .svg, .pdf",
    )
    sub.add_argument("--format", choices=_FORMATS, help="output format (default: by the file extension)")
    sub.add_argument(
        "--genes",
        nargs="+",
        metavar="GENE",
        help="gene names; 'all'; or a text file with one per line (default: all in AnnData and SpatialData, else none)",
    )
    sub.add_argument(
        "--min-pcc",
        type=decimal,
        metavar="PCC",
        help="instead of --genes: those whose held-out PCC is at least this, as far as the map knows it",
    )
    sub.add_argument(
        "--cell-types",
        nargs="+",
        metavar="TYPE",
        help="figure: cell types to show, in panels before those of the genes; 'dominant': the type with the largest "
        "share (default: dominant, where no genes are given)",
    )
    sub.add_argument(
        "--intervals",
        action="store_true",
        help="figure: beside each gene and cell type the width of its 90 %% interval",
    )
    sub.add_argument("--out-of-domain", action="store_true", help="figure: a last panel with the out-of-domain score")
    sub.add_argument(
        "--region",
        nargs=4,
        type=decimal,
        metavar=("Y0", "X0", "Y1", "X1"),
        help="export only this part of the map, in um",
    )
    sub.add_argument(
        "--colors",
        default="",
        metavar="TEXT",
        help="colours of cell types, such as 'T-cells = #0072B2, CAFs = orange'",
    )
    sub.add_argument("--slide", type=Path, help="the slide of the map, for its picture")
    sub.add_argument("--mpp", help="um per pixel of the slide, or y,x (default: as stored in the map)")
    add_overwrite(sub)
    for side, other in (("high", "above"), ("low", "below")):
        sub.add_argument(
            f"--where-{side}",
            nargs="+",
            metavar="GENE",
            default=[],
            help=f"mark where these genes are {side}: {other} the median of the section; needs --model",
        )
    sub.add_argument(
        "--fdr", type=decimal, default=0.1, help="false discovery rate of --where-high and --where-low (default: 0.1)"
    )
    add_signature_options(sub)
    add_model(sub, required=False)
    add_hierarchy(sub)
    add_settings(sub, ExportSettings)
    add_settings(sub, FigureSettings, title="figures")


def _export(args: argparse.Namespace) -> Facts:
    from napari_cpnn.export import export_map, format_of, to_figure
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import open_slide

    kind = args.format or format_of(args.out)
    if args.settings_scale_um is not None and kind != "figure":
        raise CpnnError(f"--scale-um is for figures, and {args.out} is none: its values are those of single patches.")
    choose_colors(read_colors(args.colors))
    listed = Path(args.genes[0]) if args.genes and len(args.genes) == 1 else None
    require_separate([args.out], [args.map, args.slide, listed, args.model])
    refuse_existing(args.out, args.overwrite)
    cmap = CompositionMap.load(args.map)
    if args.hierarchy is not None:
        cmap.hierarchy = checked_hierarchy(cmap.cell_types, read_hierarchy(args.hierarchy))
    settings = chosen_settings(args, ExportSettings)
    if settings.level == "major" and not cmap.hierarchy:
        raise CpnnError(f"{args.map} has no major types; give a table of them with --hierarchy.")
    slide = None if args.slide is None else open_slide(args.slide, mpp=pixel_size(args.mpp))
    try:
        genes = _chosen_genes(args.genes, cmap.genes) if args.min_pcc is None else _genes_above(args, cmap)
        marked = _mark(cmap, args)
        if args.cell_types:
            if kind != "figure":
                raise CpnnError(
                    f"--cell-types is for figures; {args.out} contains the shares of all cell types anyway."
                )
            genes = [*args.cell_types, *(genes or [])]
        if args.intervals or args.out_of_domain:
            genes = _with_more_panels(args, kind, genes)
        settings = settings.replace(figure=chosen_settings(args, FigureSettings))
        signatures = scored(cmap, args)
        area = None if args.region is None else Rect(*args.region)
        if kind == "figure" and signatures:
            panels: list[str | Shown | Signature] = [*(genes or []), *signatures]
            to_figure(cmap, args.out, panels, slide, settings.figure, overwrite=args.overwrite, area=area)
        else:
            export_map(cmap, args.out, genes, slide, kind, settings, overwrite=args.overwrite, area=area)
        if foreign := cmap.domain_report().warning:
            warnings.warn(f"{args.map}: {foreign}", CpnnWarning, stacklevel=2)
    finally:
        if slide is not None:
            slide.close()
    print(f"{cmap.summary} -> {args.out}")
    return {
        "format": kind,
        **facts_of_map(cmap),
        "signatures": facts_of_signatures(signatures),
        "places": facts_of_places(marked),
        "written": [args.out],
    }


def _with_more_panels(args: argparse.Namespace, kind: str, names: list[str] | None) -> list[str]:
    """Add the panels of ``--intervals`` and ``--out-of-domain`` to those of a figure."""
    if kind != "figure":
        raise CpnnError(f"--intervals and --out-of-domain are for figures, and {args.out} is none.")
    if args.intervals and not names:
        raise CpnnError("--intervals needs the genes or cell types to show: give --genes or --cell-types.")
    panels = []
    for name in names or []:
        single = args.intervals and name != "dominant"
        panels += [name, f"interval of {name}"] if single else [name]
    return [*panels, "out of domain"] if args.out_of_domain else panels


def _mark(cmap: CompositionMap, args: argparse.Namespace) -> list[MarkedPlaces]:
    """Mark where the genes of ``--where-high`` and ``--where-low`` are so, and say what is marked."""
    from napari_cpnn.models import Side, load_model

    if not args.where_high and not args.where_low:
        return []
    if args.model is None:
        raise CpnnError("--where-high and --where-low need the calibration of the model; give it with --model.")
    model = load_model(args.model, args.encoder_weights)
    wanted: list[tuple[str, Side]] = [
        *((gene, "high") for gene in args.where_high),
        *((gene, "low") for gene in args.where_low),
    ]
    found = []
    for gene, side in wanted:
        places = cmap.mark(find_gene(gene, cmap.genes, _OWNER), model, side, args.fdr)
        none = "" if places.mask.any() else " No place of this map is marked: those are unlike the training tissue."
        print(f"{places.note}{none}")
        found.append(places)
    return found


def _genes_above(args: argparse.Namespace, cmap: CompositionMap) -> list[str]:
    """Return the genes of ``--min-pcc``, by the scores of the map or else of the model."""
    from napari_cpnn.models import genes_above, load_model

    if args.genes:
        raise CpnnError("--genes and --min-pcc both choose genes; give one of them.")
    if cmap.trust is None and args.model is not None:
        return genes_above(load_model(args.model, args.encoder_weights), args.min_pcc)
    return genes_above(cmap, args.min_pcc)


def _chosen_genes(words: list[str] | None, known: tuple[str, ...]) -> list[str] | None:
    """Return gene names as given, all genes for the word ``all``, or the lines of a file if its path is given."""
    if words is None:
        return None
    if words == ["all"] and "all" not in known:
        return list(known)
    path = None if len(words) > 1 or words[0] in known else to_path(words[0], CpnnError)
    if path is not None and path.is_file():
        with reading(f"The list of genes {path}", CpnnError, "it must be text with one name per line."):
            words = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return [_gene(word, known) for word in words]


def _gene(word: str, known: tuple[str, ...]) -> str:
    """Return the gene that a word means, such as HER2; a text for a panel of a figure is returned as it is."""
    of, _, cell_type = word.partition(" from ")
    if cell_type:
        return f"{_gene(of, known)} from {cell_type}"
    first, _, quantity = word.partition("interval of ")
    if (quantity and not first) or word in ("dominant", "out of domain"):
        return word
    return word if word in known else find_gene(word, known, _OWNER)
