"""Slide-level models on the command line: ``train --cohort``, ``evaluate --cohort``, ``predict --slide-level``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.facts import rows_of
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import AddCommand, add_overwrite, add_quiet, add_settings, chosen_settings, progress_of
from napari_cpnn.errors import CpnnError
from napari_cpnn.progress import reporter
from napari_cpnn.settings import SlideLevelSettings
from napari_cpnn.storage import require_separate
from napari_cpnn.texts import counted

if TYPE_CHECKING:
    from napari_cpnn.cohort import Cohort
    from napari_cpnn.training.bags import BagReader, Bags

#: Command and the option that makes it another one, of a cohort or of cells, and the command that it then is.
_COHORT = {
    ("train", "--cohort"): "train-cohort",
    ("evaluate", "--cohort"): "evaluate-cohort",
    ("predict", "--slide-level"): "predict-cohort",
    ("train", "--cells"): "train-cells",
}
#: Options that only choose the command.
_WORDS = ("--slide-level", "--cells")


def of_cohort(argv: Sequence[str]) -> list[str]:
    """Return the arguments of the command of a cohort or of cells, where ``--cohort`` or ``--cells`` asks for it.

    >>> of_cohort(["train", "--cohort", "slides.csv"])
    ['train-cohort', '--cohort', 'slides.csv']
    """
    given = list(argv)
    for (command, option), name in _COHORT.items():
        if given[:1] == [command] and any(one == option or one.startswith(f"{option}=") for one in given):
            return [name, *(one for one in given[1:] if one not in _WORDS)]
    return given


def add_slide_level_commands(command: AddCommand) -> None:
    """Register the commands of slide-level models."""
    sub = command("train-cohort", _train, "train a model of slides on bulk RNA-seq (the same as train --cohort)")
    _add_cohort(sub)
    _add_bulk(sub)
    sub.add_argument("--prototypes", type=Path, help="prototypes of the cell types; not needed for ridge, mlp, abmil")
    sub.add_argument("--out", type=Path, required=True, help="folder of the model, model.safetensors")
    sub.add_argument("--patch", nargs=2, metavar=("PX", "MPP"), help="patch size in px and um/px (default: 224 0.5)")
    add_quiet(sub)
    add_overwrite(sub)
    add_settings(sub, SlideLevelSettings)

    sub = command("evaluate-cohort", _evaluate, "score models of slides over a cohort (the same as evaluate --cohort)")
    _add_cohort(sub)
    _add_bulk(sub)
    _add_models(sub, several=True)
    sub.add_argument("--out", type=Path, help="table of scores per model and gene (.csv or .parquet)")
    add_quiet(sub)
    add_overwrite(sub)

    sub = command("predict-cohort", _predict, "predict slides as a whole (the same as predict --slide-level)")
    _add_cohort(sub)
    _add_models(sub, several=False)
    sub.add_argument("--genes", nargs="+", metavar="GENE", help="genes of the table (default: all of the model)")
    add_quiet(sub)
    sub.add_argument(
        "--out", type=Path, required=True, help="table of shares and expression per bag (.csv or .parquet)"
    )
    add_overwrite(sub)


def _add_cohort(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--cohort", type=Path, required=True, help="manifest: slide, sample, patient, mpp, bulk, ...")
    sub.add_argument(
        "--by", choices=("sample", "patient", "slide"), default="sample", help="what is one bag (default: sample)"
    )


def _add_bulk(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--bulk", type=Path, help="bulk table, rows named as the bags (default: the manifest's column)")
    sub.add_argument(
        "--values", choices=("counts", "tpm"), default="counts", help="what the bulk table holds (default: counts)"
    )


def _add_models(sub: argparse.ArgumentParser, *, several: bool) -> None:
    more: dict[str, Any] = {"nargs": "+"} if several else {}
    sub.add_argument("--model", type=Path, required=True, help="model of slides (.safetensors)", **more)
    sub.add_argument("--encoder-weights", help="weights of the frozen encoder, where the model does not hold them")
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda")


def _train(args: argparse.Namespace) -> Facts:
    from napari_cpnn.prototypes import Prototypes
    from napari_cpnn.training.bags import BagReader, cohort_bulk, train_slides

    settings: SlideLevelSettings = chosen_settings(args, SlideLevelSettings)
    path = Path(args.out) / "model.safetensors"
    require_separate([path], [args.cohort, args.bulk, args.prototypes])
    refuse_existing(path, args.overwrite)
    cohort = _cohort(args)
    prototypes = None if args.prototypes is None else Prototypes.load(args.prototypes)
    if settings.head in ("cpnn", "paper") and prototypes is None:
        raise CpnnError(f"The head {settings.head} needs --prototypes; ridge, mlp and abmil do without.")
    bulk = cohort_bulk(cohort, args.by, args.bulk, args.values)
    bags = _bags(cohort, args, BagReader(settings))
    trained = train_slides(bags, bulk, prototypes, settings, out=path, progress=progress_of(args))
    sizes = [(len(bags), "bag"), (len(set(bags.patients.tolist())), "patient"), (len(trained.genes), "gene")]
    print(f"{path}: {settings.head}, {', '.join(counted(*size) for size in sizes)}")
    return {"head": settings.head, **{f"n_{what}s": n for n, what in sizes}, "written": [path]}


def _evaluate(args: argparse.Namespace) -> Facts:
    from napari_cpnn.evaluation import require_table_name, write_table
    from napari_cpnn.studies import evaluate_slides, summarise_slides
    from napari_cpnn.training.bags import BagReader, cohort_bulk, load_slide_model

    if args.out:
        require_table_name(args.out)
        require_separate([args.out], [args.cohort, args.bulk, *args.model])
        refuse_existing(args.out, args.overwrite)
    cohort = _cohort(args)
    names = [path.stem if len(args.model) == 1 else str(path) for path in args.model]
    models = {n: load_slide_model(path, args.encoder_weights) for n, path in zip(names, args.model, strict=True)}
    if len({one.model.encoder_fingerprint for one in models.values()}) > 1:
        raise CpnnError("The models have different encoders; evaluate them one at a time.")
    bulk = cohort_bulk(cohort, args.by, args.bulk, args.values)
    first = next(iter(models.values()))
    bags = _bags(cohort, args, BagReader(first.model, args.device))
    scores = evaluate_slides(models, bags, bulk)
    if args.out:
        write_table(scores, args.out, index=False)
    summary = summarise_slides(scores)
    for name, row in summary.iterrows():
        over = f"{counted(int(row['n_genes']), 'gene')}, {counted(len(bags), 'bag')}"
        print(f"{name}: PCC {row['pcc']:.3f}, SCC {row['scc']:.3f}, {over}")
    if args.out:
        print(f"wrote {args.out}")
    models_said = rows_of(summary.rename_axis("model"))
    return {"models": models_said, "n_bags": len(bags), "written": [args.out] if args.out else []}


def _predict(args: argparse.Namespace) -> Facts:
    import pandas as pd

    from napari_cpnn.counts import require_genes
    from napari_cpnn.evaluation import require_table_name, write_table
    from napari_cpnn.training.bags import BagReader, load_slide_model

    require_table_name(args.out)
    require_separate([args.out], [args.cohort, args.model])
    refuse_existing(args.out, args.overwrite)
    cohort, model = _cohort(args), load_slide_model(args.model, args.encoder_weights)
    index = require_genes(model.genes, args.genes or model.genes, "The model")
    bags = _bags(cohort, args, BagReader(model.model, args.device))
    table = pd.DataFrame({"patient": bags.patients.tolist(), "patches": bags.sizes}, index=bags.names.tolist())
    parts = [table]
    if model.network is None and model.model.cell_types:
        parts.append(model.composition(bags).add_prefix("share "))
    values = model.predict(bags)[:, index]
    parts.append(pd.DataFrame(values, index=table.index, columns=[model.genes[i] for i in index]))
    write_table(pd.concat(parts, axis=1).rename_axis(args.by), args.out, index=True)
    what = "that of the bag as one sample"
    if model.network is None and model.model.decoder().scale == "log":
        what = "the mean of its patches (this is a model of spots, not of bulk)"
    print(f"wrote {args.out}: {counted(len(bags), 'bag')}; shares are of RNA, expression in log1p CP10k is {what}")
    return {"n_bags": len(bags), "genes": [model.genes[i] for i in index], "expression": what, "written": [args.out]}


def _cohort(args: argparse.Namespace) -> Cohort:
    from napari_cpnn.cohort import read_cohort

    return read_cohort(args.cohort)


def _bags(cohort: Cohort, args: argparse.Namespace, reader: BagReader) -> Bags:
    from napari_cpnn.training.bags import read_cohort_bags

    return read_cohort_bags(cohort, reader, args.by, reporter(progress_of(args)))
