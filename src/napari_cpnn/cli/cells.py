"""Commands ``train-cells`` and ``cells``: single cells, learnt from spots."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import (
    AddCommand,
    add_model,
    add_overwrite,
    add_quiet,
    add_samples,
    add_settings,
    chosen_settings,
    decimal,
    open_samples,
    pixel_size,
    progress_of,
)
from napari_cpnn.errors import CpnnError
from napari_cpnn.settings import CellSettings
from napari_cpnn.storage import require_separate
from napari_cpnn.texts import counted


def add_cells_commands(command: AddCommand) -> None:
    """Register the commands of single cells."""
    sub = command("train-cells", _train, "train a model of single cells on spots (the same as train --cells)")
    add_samples(sub)
    sub.add_argument("--prototypes", type=Path, required=True)
    sub.add_argument(
        "--nuclei", action="append", type=Path, metavar="FILE",
        help="nuclei of the slide, of this or another program; once per slide (default: found around the spots)",
    )  # fmt: skip
    sub.add_argument("--out", type=Path, required=True, help="file of the model (.safetensors)")
    sub.add_argument("--patch", nargs=2, metavar=("PX", "MPP"), help="crop around a nucleus (default: 48 0.25)")
    add_quiet(sub)
    add_overwrite(sub)
    add_settings(sub, CellSettings, shared=("head",))

    sub = command("cells", _cells, "predict types and expression of the cells of a slide")
    sub.add_argument("slide", type=Path, help="slide")
    add_model(sub)
    sub.add_argument(
        "--nuclei", type=Path, metavar="FILE", help="nuclei of this or another program (default: found on the tissue)"
    )
    sub.add_argument(
        "--out", type=Path, required=True,
        help=".zarr (for napari-cpnn), .h5ad (AnnData), .geojson (QuPath detections) or .csv",
    )  # fmt: skip
    sub.add_argument("--spatialdata", action="store_true", help="write .zarr as SpatialData instead")
    sub.add_argument("--genes", nargs="+", metavar="GENE", help="genes of the file (default: all in .h5ad, none else)")
    sub.add_argument("--region", nargs=4, type=decimal, metavar=("Y0", "X0", "Y1", "X1"), help="only this part, in um")
    sub.add_argument("--mpp", help="um per pixel of the slide, or y,x (default: from the file)")
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda")
    add_quiet(sub)
    add_overwrite(sub)


def _train(args: argparse.Namespace) -> Facts:
    from napari_cpnn.nuclei import read_nuclei
    from napari_cpnn.prototypes import Prototypes
    from napari_cpnn.training.bags import train_cells

    settings: CellSettings = chosen_settings(args, CellSettings)
    if args.out.suffix != ".safetensors":
        raise CpnnError(f"A model is written to a .safetensors file, not to {args.out.name}.")
    given = args.nuclei or []
    if given and len(given) != len(args.slide):
        raise CpnnError(f"Give --nuclei once per --slide: there are {len(args.slide)} slides and {len(given)} files.")
    require_separate([args.out], [*args.slide, *args.spots, args.prototypes, *given])
    refuse_existing(args.out, args.overwrite)
    samples = list(open_samples(args))
    nuclei = [read_nuclei(path, slide=slide) for path, (slide, _) in zip(given, samples, strict=False)]
    prototypes = Prototypes.load(args.prototypes)
    trained = train_cells(samples, prototypes, settings, nuclei or None, out=args.out, progress=progress_of(args))
    known = trained.provenance["cells"]
    sizes = [(known["n_spots"], "spot"), (known["n_cells"], "cell"), (len(trained.genes), "gene")]
    print(f"{args.out}: {', '.join(counted(*size) for size in sizes)}")
    if left_out := known["n_spots_left_out"]:
        reasons = ", ".join(f"{n:,} {why}" for why, n in left_out.items())
        n = sum(left_out.values())
        print(f"left out: {n:,} of {counted(known['n_spots'] + n, 'spot')} ({reasons})")
    if (exponent := trained.provenance.get("content_exponent")) is not None:
        print(f"RNA content of a cell: its nuclear area to the power {exponent:.2f}")
    scores = trained.provenance["metrics"].get("held_out")
    if scores:
        print(f"held-out spots of {scores['slide']}: PCC {scores['pcc_mean']:.3f}, SCC {scores['scc_mean']:.3f}")
    return {
        "n_spots": known["n_spots"],
        "n_cells": known["n_cells"],
        "n_genes": len(trained.genes),
        "n_spots_left_out": left_out,
        "content_exponent": exponent,
        "held_out": scores,
        "written": [args.out],
    }


def _cells(args: argparse.Namespace) -> Facts:
    from napari_cpnn.cells import FORMATS, export_cells, predict_cells, require_cells
    from napari_cpnn.counts import find_gene
    from napari_cpnn.models import load_model
    from napari_cpnn.nuclei import detect_nuclei, read_nuclei
    from napari_cpnn.slides import open_slide

    if args.out.suffix.lower() not in FORMATS:
        raise CpnnError(f"Cells are written to {', '.join(FORMATS)}, not to {args.out.name}.")
    require_separate([args.out], [args.slide, args.model, args.nuclei])
    refuse_existing(args.out, args.overwrite)
    model = load_model(args.model, args.encoder_weights)
    require_cells(model)
    genes = args.genes and [find_gene(name, model.genes, "the model") for name in args.genes]
    progress = progress_of(args)
    with open_slide(args.slide, mpp=pixel_size(args.mpp)) as slide:
        if args.nuclei is not None:
            nuclei = read_nuclei(args.nuclei, slide=slide)
        else:
            nuclei = detect_nuclei(slide, args.region, progress=progress)
        cells = predict_cells(slide, model, nuclei, args.region, progress, device=args.device)
        if args.out.suffix.lower() == ".zarr" and not args.spatialdata:
            cells.save(args.out, overwrite=args.overwrite)
        else:
            export_cells(cells, args.out, genes, slide, overwrite=args.overwrite)
    print(f"{counted(len(cells), 'cell')} -> {args.out}")
    types = cells.type_counts()
    for name, n in sorted(types.items(), key=lambda item: -item[1]):
        print(f"  {name:<32} {n / max(len(cells), 1):6.1%}")
    print("Types and genes are those of cells that look like these, as learnt from spots; no cell was measured.")
    return {"n_cells": len(cells), "types": types, "written": [args.out]}
