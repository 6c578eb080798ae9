"""Command ``benchmark``."""

from __future__ import annotations

import argparse
import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.facts import rows_of
from napari_cpnn.cli.files import refuse_existing
from napari_cpnn.cli.options import (
    AddCommand,
    add_overwrite,
    add_quiet,
    add_samples,
    add_settings,
    chosen_settings,
    open_samples,
    progress_of,
    sample_paths,
)
from napari_cpnn.errors import CpnnError
from napari_cpnn.settings import BenchmarkSettings
from napari_cpnn.storage import require_separate

if TYPE_CHECKING:
    from napari_cpnn.studies import BenchmarkResult


def add_benchmark_command(command: AddCommand) -> None:
    """Register the command ``benchmark``."""
    sub = command(
        "benchmark", _benchmark, "score predictions of any model beside noise ceiling, baselines and negative controls"
    )
    add_samples(sub)
    sub.add_argument(
        "--predictions",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="a model (.safetensors), or predicted expression: a folder with one .h5ad per section, named as the "
        "section, or one .h5ad if there is one section; obs names as in the measured table. Repeat for more models",
    )
    sub.add_argument("--encoder-weights", help="encoder weights for models whose file does not contain them")
    sub.add_argument(
        "--groups",
        nargs="+",
        help="patients: one name per slide, or a column of the spots (default: all sections are of one patient)",
    )
    sub.add_argument(
        "--section", action="append", help="name of the section; once per slide (default: the name of the slide)"
    )
    sub.add_argument(
        "--out", type=Path, required=True, help="new folder for scores, summary and the page benchmark.html"
    )
    add_overwrite(sub)
    sub.add_argument("--patch", nargs=2, metavar=("PX", "MPP"), help="patch of colours and nuclei (default: 224 0.5)")
    add_quiet(sub)
    add_settings(sub, BenchmarkSettings)


def _benchmark(args: argparse.Namespace) -> Facts:
    from napari_cpnn.studies import benchmark

    given = dict(_named(text) for text in args.predictions)
    if len(given) < len(args.predictions):
        raise CpnnError("Two predictions have the same name; name them as in --predictions ours=model.safetensors.")
    require_separate([args.out], [*given.values(), *sample_paths(args)])
    refuse_existing(args.out, args.overwrite)
    predictions: dict[str, Any] = dict(given)
    if args.encoder_weights:
        from napari_cpnn.models import load_model

        for name, path in given.items():
            if path.suffix == ".safetensors":
                predictions[name] = load_model(path, args.encoder_weights)
    groups: Any = args.groups
    if groups and len(groups) == 1 and len(args.slide) > 1:
        groups = groups[0]
    with contextlib.ExitStack() as opened:
        samples = [(opened.enter_context(slide), spots) for slide, spots in open_samples(args)]
        settings = chosen_settings(args, BenchmarkSettings)
        result = benchmark(
            predictions, samples, groups, args.section, args.out, settings, progress_of(args), overwrite=args.overwrite
        )
    _say(result)
    print(f"wrote {args.out / 'benchmark.html'} and tables next to it")
    return {
        "summary": rows_of(result.summary),
        "flags": result.flags,
        "notes": result.notes,
        "written": sorted(args.out.iterdir()),
    }


def _named(text: str) -> tuple[str, Path]:
    """Parse ``NAME=PATH``, or ``PATH``, which is named by its file."""
    name, equals, path = text.partition("=")
    if not equals:
        return Path(text).stem, Path(text)
    if not name.strip() or not path:
        raise CpnnError(f"--predictions takes NAME=PATH, such as ours=model.safetensors, not {text!r}.")
    return name.strip(), Path(path)


def _say(result: BenchmarkResult) -> None:
    table = result.summary
    for kind in ("ceiling", "model", "baseline"):
        for name in dict.fromkeys(table.loc[table["kind"] == kind, "name"]):
            scores = {metric: result.mean(name, metric, kind) for metric in ("pcc", "scc", "pcc_given_depth", "rmse")}
            words = {"pcc": "PCC", "scc": "SCC", "pcc_given_depth": "PCC given depth", "rmse": "RMSE"}
            said = [f"{words[metric]} {value:z.3f}" for metric, value in scores.items() if math.isfinite(value)]
            print(f"{name}: {', '.join(said) or 'no score'}")
    for sentence in (*result.flags, *result.notes):
        print(sentence)
