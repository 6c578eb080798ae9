"""Commands ``prototypes``, ``deconvolve`` and ``train``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.facts import rows_of
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import (
    AddCommand,
    add_hierarchy,
    add_overwrite,
    add_quiet,
    add_samples,
    add_settings,
    chosen_settings,
    given_settings,
    progress_of,
    sample_files,
)
from napari_cpnn.cli.typed import add_typed_option, write_typed
from napari_cpnn.errors import CpnnError
from napari_cpnn.palette import read_hierarchy
from napari_cpnn.progress import reporter
from napari_cpnn.settings import TRAINING_PRESETS, DeconvolutionSettings, PrototypeSettings, TrainingSettings
from napari_cpnn.storage import require_separate, write_csv
from napari_cpnn.texts import file_name
from napari_cpnn.training.jobs import TrainingJob

_N_MARKERS = 10


def add_science_commands(command: AddCommand) -> None:
    """Register the commands ``prototypes``, ``deconvolve`` and ``train``."""
    sub = command("prototypes", _prototypes, "estimate cell-type prototypes from single cells")
    sub.add_argument("cells", type=Path, help="h5ad or 10x folder")
    sub.add_argument(
        "--cell-type",
        action="append",
        help="column with the cell type; repeat for several columns (default: celltype)",
    )
    sub.add_argument("--batch", help="column with the batch, such as the patient")
    sub.add_argument(
        "--annotations", type=Path, help="table of cell annotations (.csv, .tsv) with the barcode in the first column"
    )
    sub.add_argument("--out", type=Path, required=True, help="output file (.h5ad); a folder for several columns")
    add_hierarchy(sub)
    add_overwrite(sub)
    sub.add_argument("--markers", type=Path, help=f"output table of {_N_MARKERS} marker genes per cell type (.csv)")
    add_quiet(sub)
    add_settings(sub, PrototypeSettings)

    sub = command("deconvolve", _deconvolve, "estimate cell-type shares of measured spots or bulk samples")
    sub.add_argument("spots", type=Path, help="spots, or with --bulk a table of bulk samples (h5ad, CSV, STAR counts)")
    sub.add_argument("--positions", type=Path, help="spot table of legacy ST")
    sub.add_argument("--library", help="library to read if the spots hold several")
    sub.add_argument("--prototypes", type=Path, required=True)
    sub.add_argument("--out", type=Path, required=True, help="output table of shares (.csv)")
    sub.add_argument("--sd", type=Path, help="output table of standard deviations of the shares (.csv); nb only")
    add_overwrite(sub)
    sub.add_argument("--bulk", action="store_true", help="bulk samples: priors for bulk, all genes")
    add_typed_option(sub)
    add_settings(sub, DeconvolutionSettings)

    sub = command("train", _train, "train a model on slides with measured spots")
    add_samples(sub, required=False)
    sub.add_argument("--prototypes", type=Path)
    sub.add_argument("--out", type=Path, help="run folder")
    sub.add_argument("--job", type=Path, help="JSON file with all options, such as the job.json of a run folder")
    sub.add_argument(
        "--preset", choices=list(TRAINING_PRESETS), help="preset that the settings are based on (default: ours)"
    )
    sub.add_argument("--patch", nargs=2, metavar=("PX", "MPP"), help="patch size in px and um/px (default: 224 0.5)")
    add_quiet(sub)
    sub.add_argument("--resume", action="store_true", help="resume the run in the folder after its last epoch")
    add_overwrite(sub)
    add_settings(sub, TrainingSettings)


def _prototypes(args: argparse.Namespace) -> Facts:
    from napari_cpnn.prototypes import estimate_prototypes, open_cells

    columns = args.cell_type or ["celltype"]
    paths = [args.out] if len(columns) == 1 else [args.out / f"{file_name(column)}.h5ad" for column in columns]
    folder = args.out if len(columns) > 1 else None
    require_separate([*paths, args.markers], [args.cells, args.annotations])
    require_separate([folder, args.markers], [args.cells, args.annotations])
    for path in (*paths, args.markers):
        if path is not None:
            refuse_existing(path, args.overwrite)
    cells = open_cells(args.cells, args.annotations)
    settings: PrototypeSettings = chosen_settings(args, PrototypeSettings)
    found = estimate_prototypes(cells, columns, args.batch, settings, reporter(progress_of(args)))
    if args.hierarchy is not None:
        given = read_hierarchy(args.hierarchy)
        # Of several annotations the table is for those whose types it names.
        found = {
            name: one.with_hierarchy(given) if len(found) == 1 or given.keys() >= set(one.cell_types) else one
            for name, one in found.items()
        }
    facts: Facts = {"prototypes": [], "written": [*paths]}
    for (column, prototypes), path in zip(found.items(), paths, strict=True):
        prototypes.save(path)
        print(f"{len(prototypes.cell_types)} cell types x {len(prototypes.genes)} genes -> {path}")
        for name, n in zip(prototypes.cell_types, prototypes.n_cells, strict=True):
            print(f"  {name:<32} {int(n):>7} cells")
        left_out = prototypes.left_out().query("n > 0")
        for line in left_out.itertuples():
            print(f"  left out: {line.n} {line.what} {line.reason}")
        for text in _fit_report(prototypes.provenance["fit"]):
            print(f"  {text}")
        facts["prototypes"].append(
            {
                "column": column,
                "path": path,
                "n_genes": len(prototypes.genes),
                "cells": dict(zip(prototypes.cell_types, prototypes.n_cells, strict=True)),
                "left_out": rows_of(left_out),
                "fit": prototypes.provenance["fit"],
            }
        )
    if args.markers is not None:
        import pandas as pd

        tables = {name: prototypes.markers(_N_MARKERS) for name, prototypes in found.items()}
        write_csv(pd.concat(tables, names=["column"]).droplevel(1), args.markers)
        facts["written"].append(args.markers)
    return facts


def _fit_report(fit: dict[str, Any]) -> Iterator[str]:
    """Yield lines describing the quality of the regression; none for mean profiles."""
    if not fit:
        return
    yield f"{'converged' if fit['converged'] else 'not converged'} after {fit['iterations']} steps"
    if len(fit["batch_scales"]) > 1:
        for name, scale in fit["batch_scales"].items():
            yield f"{name}: depth {scale:.2f}, background {fit['background_shares'][name]:.1%} of the counts"


def _deconvolve(args: argparse.Namespace) -> Facts:
    from napari_cpnn.bulk import read_bulk
    from napari_cpnn.prototypes import Prototypes, deconvolve, deconvolve_with_uncertainty
    from napari_cpnn.spots import read_spots

    args.bulk |= args.typed is not None
    require_separate([args.out, args.sd, args.typed], [args.spots, args.positions, args.prototypes])
    for path in (args.out, args.sd, args.typed):
        if path is not None:
            refuse_existing(path, args.overwrite)
    start = DeconvolutionSettings.bulk if args.bulk else DeconvolutionSettings
    settings = start(**given_settings(args, DeconvolutionSettings))
    spots = read_bulk(args.spots) if args.bulk else read_spots(args.spots, args.positions, library=args.library)
    prototypes = Prototypes.load(args.prototypes)
    if args.sd is None:
        shares = deconvolve(spots, prototypes, settings)
    else:
        found = deconvolve_with_uncertainty(spots, prototypes, settings)
        shares = found.shares
        write_csv(found.share_sd, args.sd)
    write_csv(shares, args.out)
    typed = {} if args.typed is None else {"typed": write_typed(args, spots, prototypes, settings)}
    print(f"{len(shares)} {'samples' if args.bulk else 'spots'} x {shares.shape[1]} cell types -> {args.out}")
    for name, share in shares.mean().sort_values(ascending=False).items():
        print(f"  {name!s:<32} {share:6.1%}")
    return {
        "of": "samples" if args.bulk else "spots",
        "n": len(shares),
        "shares": shares.mean().to_dict(),
        **typed,
        "written": [path for path in (args.out, args.sd, args.typed) if path is not None],
    }


def _train(args: argparse.Namespace) -> Facts:
    job = _training_job(args)
    if args.overwrite:
        if job.resume:
            raise CpnnError("--resume goes on with a run and --overwrite begins another; give one of them.")
        job.remove_earlier_run()

    from napari_cpnn.training.jobs import run_job

    last: Facts = {}

    def report(event: Facts) -> None:
        """Events are lines on stdout; the result, or the error, stands for the last of them."""
        last.update(event)
        if event["event"] not in ("finished", "failed"):
            args.console.event(event)

    path = run_job(job, report if args.json else None, progress=not (args.quiet or args.json))
    print(f"wrote {path}")
    return {"event": "finished", "path": path, "complete": last.get("complete", True), "written": [path]}


def _training_job(args: argparse.Namespace) -> TrainingJob:
    needed = {f"--{name}": getattr(args, name) for name in ("slide", "spots", "prototypes", "out")}
    if args.job is None:
        missing = [option for option, value in needed.items() if value is None]
        if missing:
            raise CpnnError(f"Training needs {', '.join(missing)}; or give everything in a file with --job.")
        return TrainingJob(
            samples=tuple(sample_files(args)),
            prototypes=args.prototypes,
            settings=_training_settings(args),
            out=args.out,
            resume=args.resume,
        )
    given = [
        option
        for option, value in {
            **needed,
            "--positions": args.positions,
            "--library": args.library,
            "--registration": args.registration,
            "--mpp": args.mpp,
            "--affine": args.affine,
        }.items()
        if value
    ]
    given += [f"--{name.replace('_', '-')}" for name in given_settings(args, TrainingSettings)]
    if given or args.preset is not None:
        raise CpnnError(
            f"With --job, all options are read from {args.job}; set them there, not as {(given or ['--preset'])[0]}."
        )
    job = TrainingJob.read(args.job)
    return job.replace(resume=job.resume or args.resume)


def _training_settings(args: argparse.Namespace) -> TrainingSettings:
    return TRAINING_PRESETS[args.preset or "ours"](**given_settings(args, TrainingSettings))
