"""The parser: options that every command has, wrong usage, the version, and completion in a shell."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from napari_cpnn._version import __version__
from napari_cpnn.cli.console import Facts
from napari_cpnn.errors import CpnnError

SHELLS = ("bash", "zsh", "fish", "tcsh")

#: Packages whose versions matter for what is computed or shown.
_PACKAGES = ("torch", "numpy", "anndata", "zarr", "openslide-python", "napari")

EXIT_CODES = """exit codes:
  0    done
  1    a fault of the program (a traceback), or the reader of the output has gone
  2    it could not be done as asked: wrong usage, or files that do not fit; one sentence on stderr
  130  interrupted by Ctrl-C (143: ended by SIGTERM; 129: its terminal was closed)"""


class UsageError(CpnnError):
    """Options are unknown, missing, or do not go together; ``usage`` says how the command is used."""

    def __init__(self, message: str, usage: str, command: str | None) -> None:
        super().__init__(message)
        self.usage, self.command = usage, command


class Parser(argparse.ArgumentParser):
    """A parser that raises :class:`UsageError` for wrong usage."""

    def error(self, message: str) -> NoReturn:
        """Raise an error that knows the parser, and so the usage of the command."""
        raise self.wrong(message)

    def wrong(self, message: str) -> UsageError:
        """Return the error of wrong usage of this parser."""
        usage = f"{self.format_usage()}{self.prog}: error: {message}"
        return UsageError(message, usage, self.prog.partition(" ")[2] or None)


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the commands that do something, with their full names, such as ``cohort run``."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001 -- argparse has no other way
    if not groups:
        yield name, parser
    for group in groups:
        for part, sub in group.choices.items():
            yield from leaves(sub, f"{name} {part}".strip())


def complete_parser(parser: Parser) -> Parser:
    """Add what all have in common: the versions, completion, and for each command ``--json`` and its name."""
    parser.epilog = EXIT_CODES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="store_true", help="show the version, with --json of other packages, too")
    parser.add_argument("--json", action="store_true", help="with --version: print JSON")
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        metavar="SHELL",
        help=f"print a script that completes commands and options in a shell: {', '.join(SHELLS)}",
    )
    for name, sub in leaves(parser):
        sub.set_defaults(command=name)
        sub.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,  # so that napari-cpnn --json COMMAND does the same
            help="print the result as one JSON object on stdout, and progress as lines of JSON on stderr",
        )
    return parser


def versions() -> Facts:
    """Return the versions of the package, Python, and what maps are computed and shown with; imports none of them."""
    return {"napari-cpnn": __version__, "python": platform.python_version(), **{p: _version(p) for p in _PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return a script that makes a shell complete commands, options and file names.

    Raises
    ------
    CpnnError
        If shtab, which writes the script, is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise CpnnError(
            'Completion is written by shtab, which is not installed; pip install "napari-cpnn[completion]".'
        ) from None
    for _, sub in leaves(parser):
        for action in sub._actions:  # noqa: SLF001 -- argparse has no other way
            if action.type is Path and not action.choices:
                _complete_files(action, shtab.FILE)
    return str(shtab.complete(parser, shell))


def _complete_files(action: Any, files: object) -> None:
    action.complete = files
