"""Command ``skill``: everything on one page, for coding assistants."""

from __future__ import annotations

import argparse
from pathlib import Path

import napari_cpnn
from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.options import AddCommand
from napari_cpnn.errors import CpnnError


def add_skill_command(command: AddCommand) -> None:
    """Register the command ``skill``."""
    command("skill", _skill, "print a page for coding assistants: commands, formats, units, limits, recipes")


def _skill(_args: argparse.Namespace) -> Facts:
    package = Path(napari_cpnn.__file__).parent
    for folder in (package, package.parents[1]):  # of an installation, and of a checkout
        page = folder / "docs" / "skill.md"
        if page.is_file():
            text = page.read_text(encoding="utf-8")
            print(text, end="")
            return {"text": text}
    raise CpnnError("The page is not part of this installation; see docs/skill.md of the project.")
