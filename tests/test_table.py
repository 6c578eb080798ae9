"""docs/guide/table.md: every action of every dock with its Python and its command, and each of the three exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import napari_cpnn as nc
from napari_cpnn import cells, cohort_run, evaluation, export, models, painting, palette, regions, registration, studies
from napari_cpnn import spots as nc_spots
from napari_cpnn.cli import _parser
from napari_cpnn.cli.slide_level import of_cohort
from napari_cpnn.spots import SpotFix
from napari_cpnn.training import jobs
from napari_cpnn.training.bags import typed

REPO = Path(__file__).resolve().parents[1]
UI = REPO / "src" / "napari_cpnn" / "ui"
PAGE = REPO / "docs" / "guide" / "table.md"

#: Sections of the page, and the folders of ui whose buttons they have.
SECTIONS = {
    "Explore": ("explore", "canvas"),
    "Export": ("export",),
    "Sessions": ("sessions",),
    "Compare": ("compare",),
    "Align": ("align",),
    "Regions": ("regions",),
    "Cells": ("cells",),
    "Panels": ("panels",),
    "Cohort": ("cohort",),
    "Prototypes": ("prototypes",),
    "Fine-tune": ("finetune",),
}
#: What names of the page stand for: rooms of the package, and the classes of what their rows return.
ROOMS = {
    "nc": nc, "regions": regions, "cells": cells, "evaluation": evaluation, "export": export, "models": models,
    "painting": painting, "palette": palette, "studies": studies, "cohort_run": cohort_run, "jobs": jobs,
    "typed": typed, "nc_spots": nc_spots, "registration": registration,
}  # fmt: skip
OBJECTS = {
    "cmap": nc.CompositionMap, "model": nc.CPNN, "protos": nc.Prototypes, "found": nc.CellMap, "nuclei": nc.Nuclei,
    "slide": nc.Slide, "cohort": nc.Cohort,
}  # fmt: skip
#: What needs no script: the bar of titles, tours and forms that all docks share.
OF_ALL_DOCKS = {"frame", "layers", "viewer"}


@dataclass(frozen=True)
class Row:
    section: str
    dock: str
    python: str
    terminal: str

    def spans(self, cell: str) -> list[str]:
        return re.findall(r"`([^`]+)`", cell)

    @property
    def labels(self) -> list[str]:
        return [label.replace(r"\|", "|") for label in re.findall(r"\*\*(.+?)\*\*", self.dock)]


def rows() -> list[Row]:
    found = []
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, *lines = part.splitlines()
        table = [line for line in lines if line.startswith("| ")][1:]
        cells_ = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]
        assert all(len(row) == 3 for row in cells_), title
        found += [Row(title, *row) for row in cells_ if not row[0].startswith("---")]
    return found


ROWS = rows()
PARSER = _parser()


def texts(folder: Path) -> set[str]:
    """All texts in the sources of a folder, a single & of a mnemonic written as it is seen."""
    return {
        node.value.replace("&&", "&")
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def buttons(folder: Path) -> set[str]:
    """Texts of the buttons, checkboxes and entries of menus that the sources of a folder make."""
    kinds = ("utton", "addAction", "CheckBox", "addMenu")
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "func", None)
            called = getattr(name, "attr", getattr(name, "id", ""))
            if isinstance(node, ast.Call) and called.endswith(kinds) and node.args:
                first = next((a for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)), None)
                if first is not None and first.value:
                    found.add(first.value.replace("&&", "&"))
    return found


def test_the_page_has_all_docks():
    assert list(dict.fromkeys(row.section for row in ROWS)) == list(SECTIONS)
    folders = {path.name for path in UI.iterdir() if (path / "__init__.py").is_file()}
    assert folders - OF_ALL_DOCKS == {folder for group in SECTIONS.values() for folder in group}


@pytest.mark.parametrize("section", SECTIONS)
def test_names_of_the_page_are_those_of_the_docks_and_no_button_is_missing(section):
    labels = {label for row in ROWS if row.section == section for label in row.labels}
    seen = texts(UI)
    assert {label for label in labels if label not in seen} == set()
    made = {text for folder in SECTIONS[section] for text in buttons(UI / folder)}
    assert made - labels == set()


def calls(source: str) -> Iterator[tuple[str, object, ast.Call]]:
    """Yield what a line of Python calls: the text, what it is, and the call."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), target(node.func), node


def target(node: ast.expr) -> object:
    if isinstance(node, ast.Attribute):
        if node.attr == "apply" and isinstance(node.value, ast.Call):  # of what given_fix returns
            return SpotFix.apply
        return getattr(target(node.value), node.attr)
    assert isinstance(node, ast.Name), ast.unparse(node)
    return ROOMS[node.id] if node.id in ROOMS else OBJECTS[node.id]


def arguments(node: ast.Call, what: object) -> tuple[list[object], dict[str, object]]:
    given: list[object] = [object() for _ in node.args]
    names = list(inspect.signature(what).parameters)  # type: ignore[arg-type]
    if names[:1] == ["self"]:
        given.insert(0, object())
    return given, {keyword.arg or "": object() for keyword in node.keywords}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}-{row.dock[:30]}")
def test_python_of_the_page_can_be_called_like_this(row):
    spans = row.spans(row.python)
    assert spans or row.python.startswith("–")
    for source in spans:
        found = list(calls(source))
        assert found, source
        for name, what, node in found:
            assert callable(what), name
            given, named = arguments(node, what)
            inspect.signature(what).bind(*given, **named)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}-{row.dock[:30]}")
def test_commands_of_the_page_parse(row):
    spans = [span for span in row.spans(row.terminal) if span.startswith("napari-cpnn ")]
    assert spans or row.terminal.startswith("–")
    for command in spans:
        args = PARSER.parse_args(of_cohort(shlex.split(command)[1:]))
        assert args.command


def test_what_does_not_exist_would_be_found():
    with pytest.raises(AttributeError):
        list(calls("nc.open_slides('C.svs')"))
    ((_, what, node),) = calls("nc.open_slide('C.svs', microns=0.5)")
    given, named = arguments(node, what)
    with pytest.raises(TypeError, match="microns"):
        inspect.signature(what).bind(*given, **named)


def test_rooms_can_be_imported_as_the_page_says():
    for name, room in ROOMS.items():
        assert importlib.import_module(room.__name__) is room, name
