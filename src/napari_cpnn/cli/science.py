"""Commands of the science: prototypes, deconvolve, train."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_cpnn.cli.files import refuse_existing, write_csv
from napari_cpnn.cli.options import (
    PRESETS,
    AddCommand,
    add_samples,
    add_settings,
    chosen_settings,
    given_settings,
    open_samples,
)
from napari_cpnn.settings import DeconvolutionSettings, PrototypeSettings, TrainingSettings


def add_science_commands(command: AddCommand) -> None:
    """Register prototypes, deconvolve and train."""
    sub = command("prototypes", _prototypes, "estimate cell-type prototypes from single cells")
    sub.add_argument("cells", type=Path, help="h5ad or 10x folder")
    sub.add_argument(
        "--cell-type",
        action="append",
        help="column of the cell type; repeat for more, in one go (default: celltype)",
    )
    sub.add_argument("--batch", help="column of the batch, such as the patient")
    sub.add_argument(
        "--out", type=Path, required=True, help="prototypes (.h5ad); a folder for those of several columns"
    )
    add_settings(sub, PrototypeSettings)

    sub = command("deconvolve", _deconvolve, "estimate cell-type shares of measured spots or bulk samples")
    sub.add_argument("spots", type=Path, help="spots, or with --bulk an h5ad of bulk samples")
    sub.add_argument("--positions", type=Path, help="spot table of legacy ST")
    sub.add_argument("--prototypes", type=Path, required=True)
    sub.add_argument("--out", type=Path, required=True, help="table of shares (.csv)")
    sub.add_argument("--sd", type=Path, help="table of their standard deviations (.csv); nb only")
    sub.add_argument("--bulk", action="store_true", help="bulk samples: other priors, all genes")
    add_settings(sub, DeconvolutionSettings)

    sub = command("train", _train, "train a model on slides with measured spots")
    add_samples(sub)
    sub.add_argument("--prototypes", type=Path, required=True)
    sub.add_argument("--out", type=Path, required=True, help="run folder")
    sub.add_argument("--preset", choices=list(PRESETS), default="ours", help="what the settings start from")
    sub.add_argument("--patch", nargs=2, metavar=("PX", "MPP"), help="patch size in px and um/px (default: 224 0.5)")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    sub.add_argument("--resume", action="store_true", help="go on with the run in the folder, after its last epoch")
    add_settings(sub, TrainingSettings)


def _prototypes(args: argparse.Namespace) -> None:
    from napari_cpnn.prototypes import estimate_prototypes, read_cells

    columns = args.cell_type or ["celltype"]
    paths = [args.out] if len(columns) == 1 else [args.out / f"{column}.h5ad" for column in columns]
    for path in paths:
        refuse_existing(path)
    cells = read_cells(args.cells, backed=args.cells.suffix.lower() == ".h5ad")
    found = estimate_prototypes(cells, columns, args.batch, chosen_settings(args, PrototypeSettings))
    for prototypes, path in zip(found.values(), paths, strict=True):
        prototypes.save(path)
        print(f"{len(prototypes.cell_types)} cell types x {len(prototypes.genes)} genes -> {path}")
        for name, n in zip(prototypes.cell_types, prototypes.n_cells, strict=True):
            print(f"  {name:<32} {int(n):>7} cells")
        for text in _fit_report(prototypes.provenance["fit"]):
            print(f"  {text}")


def _fit_report(fit: dict[str, Any]) -> Iterator[str]:
    """What the regression says of itself; nothing for mean profiles."""
    if not fit:
        return
    yield f"{'converged' if fit['converged'] else 'not converged'} after {fit['iterations']} steps"
    if len(fit["batch_scales"]) > 1:
        for name, scale in fit["batch_scales"].items():
            yield f"batch {name}: depth {scale:.2f}, background {fit['background_shares'][name]:.1%} of the counts"


def _deconvolve(args: argparse.Namespace) -> None:
    from napari_cpnn.prototypes import Prototypes, deconvolve, deconvolve_with_uncertainty, read_cells
    from napari_cpnn.spots import read_spots

    start = DeconvolutionSettings.bulk if args.bulk else DeconvolutionSettings
    settings = start(**given_settings(args, DeconvolutionSettings))
    spots = read_cells(args.spots) if args.bulk else read_spots(args.spots, positions=args.positions)
    prototypes = Prototypes.load(args.prototypes)
    if args.sd is None:
        shares = deconvolve(spots, prototypes, settings)
    else:
        found = deconvolve_with_uncertainty(spots, prototypes, settings)
        shares = found.shares
        write_csv(found.share_sd, args.sd)
    write_csv(shares, args.out)
    for name, share in shares.mean().sort_values(ascending=False).items():
        print(f"  {name!s:<32} {share:6.1%}")


def _train(args: argparse.Namespace) -> None:
    from napari_cpnn.prototypes import Prototypes
    from napari_cpnn.training import train

    settings = _training_settings(args)
    prototypes = Prototypes.load(args.prototypes)
    with contextlib.ExitStack() as opened:
        samples = [(opened.enter_context(slide), spots) for slide, spots in open_samples(args)]
        train(samples, prototypes, settings, out=args.out, progress=not args.quiet, resume=args.resume)
    print(f"wrote {Path(args.out) / 'model.safetensors'}")


def _training_settings(args: argparse.Namespace) -> TrainingSettings:
    return PRESETS[args.preset](**given_settings(args, TrainingSettings))
