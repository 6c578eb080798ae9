"""Command-line interface to the tasks that are also available in Python and in the docks.

User errors give one line on stderr and exit code 2, never a traceback. Heavy libraries are imported only by the
commands that need them, so that ``--help`` is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from napari_cpnn._version import __version__
from napari_cpnn.cli.benchmarking import add_benchmark_command
from napari_cpnn.cli.cells import add_cells_commands
from napari_cpnn.cli.cohort import add_cohort_command
from napari_cpnn.cli.doctor import add_doctor_command
from napari_cpnn.cli.encoders import add_encoders_command
from napari_cpnn.cli.evaluation import add_evaluation_commands
from napari_cpnn.cli.exporting import add_export_command
from napari_cpnn.cli.nuclei import add_nuclei_command
from napari_cpnn.cli.options import Command
from napari_cpnn.cli.registering import add_register_command
from napari_cpnn.cli.science import add_science_commands
from napari_cpnn.cli.signals import Ended
from napari_cpnn.cli.signatures import add_signatures_command
from napari_cpnn.cli.slide_level import add_slide_level_commands, of_cohort
from napari_cpnn.cli.typed import add_typed_commands
from napari_cpnn.cli.viewing import add_viewing_commands
from napari_cpnn.errors import CpnnError, CpnnWarning

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    args, ended = _parser().parse_args(of_cohort(sys.argv[1:] if argv is None else argv)), Ended()
    try:
        with warnings.catch_warnings(), _notes_on_stderr(), ended.like_ctrl_c(has_window=hasattr(args, "screenshot")):
            warnings.simplefilter("always", CpnnWarning)
            warnings.showwarning = _Warnings().show  # type: ignore[assignment]
            args.run(args)
    except CpnnError as error:
        print(f"napari-cpnn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("napari-cpnn: interrupted", file=sys.stderr)
        return 128 + ended.by
    except BrokenPipeError:  # the reader of the output, such as head, has exited
        sys.stderr.close()
        return 1
    return 0


class _Notes(logging.Handler):
    """Print log messages of the package on stderr, one per line, such as the number of spots left out."""

    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info:  # records with a traceback are raised as well, and reported then
            _print_note(record.getMessage())


def _print_note(text: str) -> None:
    """Print on a line of its own, above a progress bar if there is one."""
    bars = sys.modules.get("tqdm")  # where it was not imported, there is none
    write: Callable[..., object] = print if bars is None else bars.tqdm.write
    write(f"napari-cpnn: {text}", file=sys.stderr)


@contextlib.contextmanager
def _notes_on_stderr() -> Iterator[None]:
    logger, handler = logging.getLogger("napari_cpnn"), _Notes(logging.INFO)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Warnings:
    """Print warnings on stderr, one per line; repeated warnings about a slide are printed once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def show(self, message: Warning | str, category: type[Warning], *_: Any) -> None:
        if issubclass(category, CpnnWarning) and str(message) not in self._said:
            self._said.add(str(message))
            _print_note(f"warning: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-cpnn", description="See molecular maps on an H&E slide: cell-type composition and gene expression."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

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
    add_nuclei_command(command)
    add_register_command(command)
    add_signatures_command(command)
    add_slide_level_commands(command)
    add_typed_commands(command)
    return parser
