"""Expression of each cell type: ``deconvolve --typed`` and ``outcome``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.facts import rows_of
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import (
    AddCommand,
    add_overwrite,
    add_quiet,
    add_settings,
    chosen_settings,
    decimal,
    progress_of,
)
from napari_cpnn.errors import CpnnError
from napari_cpnn.progress import Progress, reporter
from napari_cpnn.settings import TypedSettings
from napari_cpnn.storage import require_separate, write_csv
from napari_cpnn.texts import counted

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.cohort import Cohort
    from napari_cpnn.prototypes import Prototypes
    from napari_cpnn.settings import DeconvolutionSettings
    from napari_cpnn.training.bags import Bags

_N_SHOWN = 3


def add_typed_option(sub: argparse.ArgumentParser) -> None:
    """Add ``--typed`` to the command ``deconvolve``."""
    sub.add_argument(
        "--typed",
        type=Path,
        metavar="OUT",
        help="also split the counts of bulk samples over cell types: counts and expression of each type, and the "
        "confidence of each gene in it (.h5ad); implies --bulk",
    )
    sub.add_argument(
        "--technical-sd",
        type=decimal,
        default=0.1,
        help="--typed: relative standard deviation of a gene between replicates, beyond counting (default: 0.1)",
    )


def write_typed(args: argparse.Namespace, bulk: AnnData, protos: Prototypes, settings: DeconvolutionSettings) -> Facts:
    """Write the typed expression of bulk samples, and say for each type how many genes can be told."""
    from napari_cpnn.prototypes import deconvolve_typed

    typed = deconvolve_typed(bulk, protos, settings, technical_sd=args.technical_sd)
    typed.save(args.typed)
    print(
        f"{len(typed.samples)} samples x {len(typed.genes)} genes x {len(typed.cell_types)} cell types -> {args.typed}"
    )
    n_told: dict[str, int] = {}
    for name in typed.cell_types:
        confidence = typed.confidence[name].sort_values(ascending=False)
        best = ", ".join(str(gene) for gene in confidence.index[:_N_SHOWN])
        n_told[name] = int((confidence > 0.5).sum())
        print(f"  {name:<32} {n_told[name]:>6} genes with a confidence above 0.5; best: {best}")
    return {"n_samples": len(typed.samples), "n_genes": len(typed.genes), "n_genes_confident": n_told}


def add_typed_commands(command: AddCommand) -> None:
    """Register ``train-typed``, ``predict-typed`` and ``outcome``."""
    sub = command("train-typed", _train, "train a model of each cell type's expression on slides with bulk samples")
    sub.add_argument("cohort", type=Path, help="manifest of the slides (.csv, .tsv, .xlsx)")
    sub.add_argument(
        "--bulk",
        type=Path,
        required=True,
        help="bulk counts, by the names of the column 'sample'",
    )
    sub.add_argument("--prototypes", type=Path, required=True)
    sub.add_argument("--out", type=Path, required=True, help="model (.safetensors)")
    sub.add_argument("--scores", type=Path, help="also cross-validate by patient: scores per gene and type (.csv)")
    sub.add_argument("--patch", nargs=2, metavar=("PX", "MPP"), help="patch size in px and um/px (default: 224 1)")
    add_quiet(sub)
    add_overwrite(sub)
    add_settings(sub, TypedSettings)

    sub = command("predict-typed", _predict, "predict the expression of each cell type from slides")
    sub.add_argument("cohort", type=Path, help="manifest of the slides (.csv, .tsv, .xlsx)")
    sub.add_argument("--model", type=Path, required=True, help="model of train-typed")
    sub.add_argument("--out", type=Path, required=True, help="typed expression of the samples (.h5ad)")
    add_quiet(sub)
    add_overwrite(sub)
    _add_outcome(command)


def _train(args: argparse.Namespace) -> Facts:
    import numpy as np

    from napari_cpnn.bulk import read_bulk
    from napari_cpnn.cohort import read_cohort
    from napari_cpnn.prototypes import Prototypes, deconvolve_typed
    from napari_cpnn.settings import DeconvolutionSettings
    from napari_cpnn.studies import nested_typed, summarise_typed
    from napari_cpnn.training.bags.typed import TypedLabels, train_typed

    require_separate([args.out, args.scores], [args.cohort, args.bulk, args.prototypes])
    for path in (args.out, args.scores):
        if path is not None:
            refuse_existing(path, args.overwrite)
    settings: TypedSettings = chosen_settings(args, TypedSettings)
    cohort, bulk, protos = read_cohort(args.cohort), read_bulk(args.bulk), Prototypes.load(args.prototypes)
    labels = TypedLabels.of(deconvolve_typed(bulk, protos, DeconvolutionSettings.bulk()), bulk)
    known = {name: i for i, name in enumerate(labels.names.tolist())}
    samples = [name for name in cohort.bags("sample") if name in known]
    bags = _bags(cohort, settings, samples, args.bulk, reporter(progress_of(args)))
    labels = labels.subset(np.array([known[name] for name in bags.names.tolist()]))
    model = train_typed(bags, labels, settings)
    model.save(args.out)
    print(f"{settings.head}: {len(bags)} samples of {len(model.patients)} patients -> {args.out}")
    sizes = {"n_samples": len(bags), "n_patients": len(model.patients)}
    facts: Facts = {"head": settings.head, **sizes, "written": [args.out]}
    if args.scores is not None:
        held = nested_typed(bags, labels, settings)
        scores = held.scores()
        write_csv(scores.set_index(["cell_type", "gene"]), args.scores)
        summary, shares = summarise_typed(scores), list(held.share_scores())
        facts["scores"] = rows_of(summary.assign(share_r=shares).rename_axis("cell_type"))
        facts["written"].append(args.scores)
        for (name, row), share in zip(summary.iterrows(), shares, strict=True):
            print(
                f"  {name!s:<32} {row['n_robust']:.0f} of {row['n_genes']:.0f} genes robust, "
                f"median R {row['median_r']:.3f}, specific {row['median_specific_r']:.3f}; "
                f"share R {share:.3f}"
            )
    return facts


def _predict(args: argparse.Namespace) -> Facts:
    from napari_cpnn.cohort import read_cohort
    from napari_cpnn.training.bags.typed import load_typed

    require_separate([args.out], [args.cohort, args.model])
    refuse_existing(args.out, args.overwrite)
    cohort, model = read_cohort(args.cohort), load_typed(args.model)
    samples = list(cohort.bags("sample"))
    bags = _bags(cohort, model.settings, samples, args.cohort, reporter(progress_of(args)))
    typed = model.typed_expression(bags)
    typed.save(args.out)
    print(f"{len(typed.samples)} samples x {len(typed.genes)} genes x {len(typed.cell_types)} cell types -> {args.out}")
    sizes = {"n_samples": len(typed.samples), "n_genes": len(typed.genes)}
    return {**sizes, "cell_types": typed.cell_types, "written": [args.out]}


def _bags(cohort: Cohort, settings: TypedSettings, samples: list[str], source: Path, progress: Progress) -> Bags:
    """Features of the patches of samples of a cohort, by the encoder of the settings."""
    from napari_cpnn.settings import SlideLevelSettings
    from napari_cpnn.training.bags import BagReader, read_cohort_bags

    if not samples:
        raise CpnnError(f"No sample of the cohort is in {source}; the column 'sample' must have its names.")
    members = cohort.bags("sample")
    reader = BagReader(
        SlideLevelSettings(encoder=settings.encoder, encoder_weights=settings.encoder_weights, patch=settings.patch)
    )
    part = cohort.subset([name for sample in samples for name in members[sample]])
    return read_cohort_bags(part, reader, progress=progress)


def _add_outcome(command: AddCommand) -> None:
    sub = command("outcome", _outcome, "cross-validate how an outcome follows from typed expression, bulk, abundance")
    sub.add_argument("cohort", type=Path, help="manifest of the slides, with the outcome (.csv, .tsv, .xlsx)")
    sub.add_argument("--column", required=True, help="column of the outcome, with two values, such as pCR")
    sub.add_argument(
        "--typed",
        type=Path,
        required=True,
        help="typed expression of the samples of the cohort: of deconvolve --typed, or predicted from slides (.h5ad)",
    )
    sub.add_argument("--positive", help="value of the outcome that is predicted (default: the last in sorted order)")
    sub.add_argument("--clinical", nargs="+", default=[], metavar="COLUMN", help="clinical columns to compare with")
    sub.add_argument("--folds", type=int, default=5, help="folds by patient, outer and inner (default: 5)")
    sub.add_argument("--repeats", type=int, default=5, help="repeats with other folds (default: 5)")
    sub.add_argument("--seed", type=int, default=0, help="seed of the folds")
    sub.add_argument("--out", type=Path, help="output table (.csv)")
    add_overwrite(sub)


def _outcome(args: argparse.Namespace) -> Facts:
    from napari_cpnn.cohort import read_cohort
    from napari_cpnn.prototypes import TypedExpression
    from napari_cpnn.studies import cohort_outcome

    if args.folds < 2 or args.repeats < 1:
        raise CpnnError("An outcome needs at least two folds and one repeat.")
    if args.out is not None:
        require_separate([args.out], [args.cohort, args.typed])
        refuse_existing(args.out, args.overwrite)
    cohort, typed = read_cohort(args.cohort), TypedExpression.load(args.typed)
    study, n_left_out = cohort_outcome(
        cohort.table, typed, args.column, args.clinical, args.folds, args.repeats, args.seed, args.positive
    )
    if n_left_out:
        print(f"{counted(n_left_out, 'sample')} without typed expression left out")
    first = study.table.iloc[0]
    print(
        f"{args.column} = {study.positive}: {first['n_positive']:.0f} patients with, {first['n_negative']:.0f} "
        "without; AUC over patients that the regression has not seen, 95 % interval"
    )
    for name, row in study.table.iterrows():
        print(f"  {name!s:<32} {row['auc']:.3f} ({row['low']:.3f} to {row['high']:.3f})")
    if args.out is not None:
        write_csv(study.table, args.out)
        print(f"wrote {args.out}")
    return {
        "column": args.column,
        "positive": study.positive,
        "n_left_out": n_left_out,
        "auc": rows_of(study.table.rename_axis("input")),
        "written": [] if args.out is None else [args.out],
    }
