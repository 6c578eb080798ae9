"""Commands ``cohort check``, ``run``, ``status`` and ``report``."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.files import require_writable
from napari_cpnn.cli.options import (
    AddCommand,
    Command,
    add_model,
    add_overwrite,
    add_quiet,
    add_settings,
    chosen_settings,
    progress_of,
)
from napari_cpnn.errors import CohortError
from napari_cpnn.progress import counting
from napari_cpnn.settings import CohortSettings, MappingSettings
from napari_cpnn.storage import require_separate
from napari_cpnn.texts import counted, duration

if TYPE_CHECKING:
    from napari_cpnn.cohort import Cohort
    from napari_cpnn.cohort_run import CohortProgress, CohortStatus

#: Settings of a map that a run decides itself, or that are of a view.
_NOT_OF_RUNS = ("cache", "cache_dir", "cache_gb", "coarsest", "min_screen_px", "margin")
_CLUSTERS = ("local", "slurm", "ssh", "kubernetes")
#: Problems of a manifest that are printed.
_MOST_PROBLEMS = 50


def add_cohort_command(command: AddCommand) -> None:
    """Register the command ``cohort`` with its own commands."""
    parser = command("cohort", _nothing, "map all slides of a manifest, with quality control and a report")
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def part(name: str, run: Command, help_: str) -> argparse.ArgumentParser:
        sub = parts.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    sub = part("check", _check, "say all that is wrong with a manifest, with row numbers")
    _add_manifest(sub)

    sub = part("run", _run, "map all slides of a manifest; the same command takes up a run that ended in any way")
    _add_manifest(sub)
    add_model(sub)
    sub.add_argument("--out", type=Path, required=True, help="folder of the results, on a disk that all workers share")
    sub.add_argument("--strict", action="store_true", help="stop at the first slide that fails")
    add_quiet(sub)
    add_overwrite(sub)
    group = sub.add_argument_group("where it runs")
    group.add_argument("--scheduler", default="", metavar="ADDRESS", help="a dask scheduler that runs")
    group.add_argument("--cluster", choices=_CLUSTERS, default="local", help="start a cluster (default: local)")
    group.add_argument(
        "--cluster-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="passed on to dask-jobqueue, distributed.SSHCluster or dask-kubernetes; repeat for more",
    )
    add_settings(sub, CohortSettings)
    add_settings(sub, MappingSettings, _NOT_OF_RUNS, title="settings of the maps")

    sub = part("status", _status, "how far a run is, who works on it, and which slides failed")
    sub.add_argument("out", type=Path, help="folder of the run")

    sub = part("report", _report, "write the report of a run anew, also while it goes on")
    sub.add_argument("out", type=Path, help="folder of the run")


def _nothing(_: argparse.Namespace) -> Facts:
    """Stand for the command itself, which is never run without one of its own."""
    return {}


def _add_manifest(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("manifest", type=Path, help="table with a row per slide (.csv, .tsv, .xlsx, .h5ad)")
    sub.add_argument("--root", type=Path, help="folder of relative paths (default: that of the manifest)")
    sub.add_argument(
        "--group", action="append", default=[], metavar="COLUMN", help="column to compare patients by; repeat for more"
    )


def _read(args: argparse.Namespace) -> Cohort:
    from napari_cpnn.cohort import read_cohort

    try:
        return read_cohort(args.manifest, args.root, args.group)
    except CohortError as error:
        if not error.problems or args.json:
            raise
        for problem in error.problems[:_MOST_PROBLEMS]:
            print(problem, file=sys.stderr)
        n = len(error.problems)
        if n > _MOST_PROBLEMS:
            print(f"... and {n - _MOST_PROBLEMS:,} more", file=sys.stderr)
        raise CohortError(
            f"{args.manifest} has {'a problem' if n == 1 else f'{n:,} problems'}; nothing was done.",
            problems=error.problems,
        ) from None


def _check(args: argparse.Namespace) -> Facts:
    cohort = _read(args)
    numbers = (len(cohort), cohort.table["sample"].nunique(), cohort.table["patient"].nunique())
    words = ("slide", "sample", "patient")
    print(", ".join(counted(n, one) for n, one in zip(numbers, words, strict=True)))
    groups: dict[str, Facts] = {}
    for column in cohort.groups:
        sizes = cohort.table.groupby(column, dropna=False)["patient"].nunique()
        texts = [f"{name} ({counted(n, 'patient')})" for name, n in sizes.items()]
        print(f"  {column}: {', '.join(texts)}")
        groups[column] = {str(name): int(n) for name, n in sizes.items()}
    return {**{f"n_{one}s": n for n, one in zip(numbers, words, strict=True)}, "n_patients_by_group": groups}


def _run(args: argparse.Namespace) -> Facts:
    from napari_cpnn.cohort_run import Cluster, cluster_options, run_cohort

    require_separate([args.out], [args.manifest, args.model])
    cohort = _read(args)
    options = cluster_options(args.cluster_option)
    cluster = Cluster(args.cluster, options, args.scheduler)
    mapping = chosen_settings(args, MappingSettings)
    settings = chosen_settings(args, CohortSettings).replace(mapping=mapping)
    require_writable(args.out)
    model: object = str(args.model)
    if args.encoder_weights is not None:
        from napari_cpnn.models import load_model

        model = load_model(args.model, args.encoder_weights)
    n_shown = 0
    with counting(progress_of(args), "mapping", len(cohort), "slide") as count:

        def show(progress: CohortProgress) -> None:
            nonlocal n_shown
            count(progress.done + progress.failed - n_shown)
            n_shown = progress.done + progress.failed
            if progress.last is not None and progress.last.kind == "failed":
                args.console.note(f"{progress.last.name} failed: {progress.last.sentence}")

        status = run_cohort(
            cohort,
            model,  # type: ignore[arg-type]
            args.out,
            settings,
            cluster=cluster,
            strict=args.strict,
            overwrite=args.overwrite,
            on_progress=show,
        )
        count(status.done + len(status.failed) - n_shown)
    failed = f", {len(status.failed)} failed" if status.failed else ""
    print(f"{status.done} of {status.slides} slides mapped{failed} -> {args.out / 'report.html'}")
    return {**_facts(status), "written": [args.out / "report.html"]}


def _status(args: argparse.Namespace) -> Facts:
    from napari_cpnn.cohort_run import cohort_status

    status = cohort_status(args.out)
    print(f"{status.done} of {status.slides} slides done, {len(status.failed)} failed, {status.waiting} to do")
    if status.holder is None:
        print("nobody works on it" if status.waiting else "finished")
    else:
        who = status.holder
        print(f"process {who.get('pid', '?')} on {who.get('host', '?')} works on it since {who.get('since', '?')}")
    if status.mapping:
        print(f"begun: {', '.join(status.mapping)}")
    if not math.isnan(status.seconds_left):
        print(f"about {duration(status.seconds_left)} left")
    for name, why in status.failed.items():
        print(f"  {name}: {why}")
    return _facts(status)


def _facts(status: CohortStatus) -> Facts:
    names = ("slides", "done", "failed", "mapping", "waiting", "holder", "seconds_left")
    return {name: getattr(status, name) for name in names}


def _report(args: argparse.Namespace) -> Facts:
    from napari_cpnn.cohort_run import write_cohort_report

    written = write_cohort_report(args.out)
    for path in written:
        print(path)
    return {"written": written}
