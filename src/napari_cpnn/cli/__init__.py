"""Command-line interface to the tasks that are also available in Python and in the docks.

User errors give one line on stderr (with ``--json`` an object on stdout) and exit code 2, never a traceback. Heavy
libraries are imported only by the commands that need them, so that ``--help`` is fast.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from napari_cpnn._version import __version__
from napari_cpnn.cli.benchmarking import add_benchmark_command
from napari_cpnn.cli.cells import add_cells_commands
from napari_cpnn.cli.cohort import add_cohort_command
from napari_cpnn.cli.console import Console, Facts
from napari_cpnn.cli.doctor import add_doctor_command
from napari_cpnn.cli.encoders import add_encoders_command
from napari_cpnn.cli.evaluation import add_evaluation_commands
from napari_cpnn.cli.exporting import add_export_command
from napari_cpnn.cli.genes import add_genes_command
from napari_cpnn.cli.nuclei import add_nuclei_command
from napari_cpnn.cli.options import Command
from napari_cpnn.cli.parser import Parser, UsageError, complete_parser, completion, versions
from napari_cpnn.cli.regions import add_regions_command
from napari_cpnn.cli.registering import add_register_command
from napari_cpnn.cli.science import add_science_commands
from napari_cpnn.cli.signals import Ended
from napari_cpnn.cli.signatures import add_signatures_command
from napari_cpnn.cli.skill import add_skill_command
from napari_cpnn.cli.slide_level import add_slide_level_commands, of_cohort
from napari_cpnn.cli.typed import add_typed_commands
from napari_cpnn.cli.viewing import add_viewing_commands
from napari_cpnn.errors import CpnnError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    given, ended = list(sys.argv[1:] if argv is None else argv), Ended()
    console, parser = Console(as_json="--json" in given), _parser()
    command: str | None = None
    try:
        args = parser.parse_args(of_cohort(given))
        console, command = Console(as_json=args.json), getattr(args, "command", None)
        args.console = console
        with console.listening(), ended.like_ctrl_c(has_window=hasattr(args, "screenshot")):
            facts = args.run(args)
        console.finish(command, facts)
    except UsageError as error:
        if console.as_json:
            console.fail(error.command, error)
        else:
            print(error.usage, file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as error:
        return _interrupted(console, command, error, ended)
    except CpnnError as error:
        if ended.asked:
            return _interrupted(console, command, KeyboardInterrupt(), ended)
        console.fail(command, error)
        return 2
    except BrokenPipeError:  # the reader of the output, such as head, has exited
        sys.stderr.close()
        return 1
    except Exception as error:
        if ended.asked:
            return _interrupted(console, command, KeyboardInterrupt(), ended)
        if console.as_json:
            console.fail(command, error)
        raise
    return 0


def _interrupted(console: Console, command: str | None, error: KeyboardInterrupt, ended: Ended) -> int:
    console.fail(command, error, "interrupted")
    return 128 + ended.by


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="napari-cpnn", description="See molecular maps on an H&E slide: cell-type composition and gene expression."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    parser.set_defaults(run=_without_command, parser=parser)

    def command(name: str, run: Command, help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    add_viewing_commands(command)
    add_science_commands(command)
    add_encoders_command(command)
    add_evaluation_commands(command)
    add_benchmark_command(command)
    add_cells_commands(command)
    add_cohort_command(command)
    add_doctor_command(command)
    add_export_command(command)
    add_genes_command(command)
    add_nuclei_command(command)
    add_regions_command(command)
    add_register_command(command)
    add_signatures_command(command)
    add_skill_command(command)
    add_slide_level_commands(command)
    add_typed_commands(command)
    return complete_parser(parser)


def _without_command(args: argparse.Namespace) -> Facts:
    """Say the version, or how to complete commands; without either, a command is missing."""
    if args.print_completion is not None:
        script = completion(args.parser, args.print_completion)
        print(script)
        return {"shell": args.print_completion, "script": script}
    if args.version:
        print(f"napari-cpnn {__version__}")
        return {"versions": versions()}
    raise args.parser.wrong("the following arguments are required: COMMAND")
