"""The rules of the house that no linter checks."""

from __future__ import annotations

import ast
import functools
import graphlib
import inspect
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import napari_cpnn as nc

REPO = Path(__file__).resolve().parents[1]
SOURCES = sorted((REPO / "src").rglob("*.py"))


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, napari_cpnn; "
        "print([m for m in ('torch', 'napari', 'qtpy', 'lightning', 'dask', 'anndata', 'pandas') if m in sys.modules])"
    )
    assert run(code).strip() == "[]"


def test_importing_the_package_is_quick():
    def best(code: str) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            run(code)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best("import napari_cpnn") - best("pass") < 0.3


def test_help_answers_without_heavy_imports():
    code = (
        "import sys\nfrom napari_cpnn.cli import main\n"
        "try:\n    main(['train', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'napari', 'qtpy', 'lightning', 'dask', 'anndata') if m in sys.modules])"
    )
    assert run(code).strip().endswith("[]")


@pytest.mark.parametrize("name", [n for n in nc.__all__ if n != "__version__"])
def test_every_public_name_is_there_and_documented(name):
    documented = inspect.getdoc(getattr(nc, name))
    assert documented
    assert len(documented) > 30


PACKAGE = REPO / "src" / "napari_cpnn"
#: Rooms that are used through the face of the room they are in.
INNER = {"models/backbones": "models", "models/triplex": "models", "slides/backends": "slides"}


@functools.cache
def rooms() -> list[str]:
    """Folders of the package that have a face (``__init__.pyi``), the deepest first."""
    found = [str(face.parent.relative_to(PACKAGE)) for face in PACKAGE.rglob("__init__.pyi") if face.parent != PACKAGE]
    return sorted([*found, *INNER], key=lambda room: -room.count("/"))


def room_of(place: str) -> str | None:
    """The room that a module (``models/card``) is in."""
    room = next((room for room in rooms() if place == room or place.startswith(f"{room}/")), None)
    return INNER.get(room, room) if room else None


def deep_imports(path: Path) -> list[str]:
    """Imports of a file that reach into another room, past its face."""
    inside = str(path.relative_to(PACKAGE).with_suffix("")) if path.is_relative_to(PACKAGE) else ""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("napari_cpnn."):
            continue
        target = (node.module or "").removeprefix("napari_cpnn.").replace(".", "/")
        room = room_of(target)
        if room and target != room and not inside.startswith(f"{room}/"):
            found.append(f"{path.relative_to(REPO)}:{node.lineno}: {node.module}")
    return found


def test_rooms_are_used_through_their_faces():
    assert len(rooms()) > 20
    others = [*(REPO / "scripts").rglob("*.py"), *(REPO / "benchmarks").rglob("*.py")]
    assert [found for path in (*SOURCES, *others) for found in deep_imports(path)] == []


def test_a_deep_import_would_be_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "REPO", tmp_path)
    path = tmp_path / "one.py"
    path.write_text("from napari_cpnn.models.backbones.hub import x\nfrom napari_cpnn.models import CPNN\n")
    assert deep_imports(path) == ["one.py:1: napari_cpnn.models.backbones.hub"]


def file_of(package: Path, module: str, name: str = "") -> str | None:
    """The file behind ``from module import name``, through the face of a room if that has the name."""
    place = package.joinpath(*module.split(".")[1:])
    if name and (found := file_of(package, f"{module}.{name}")):
        return found
    face = place / "__init__.pyi"
    listed = re.search(rf"^from \.([\w.]+) import {name} as", face.read_text() if face.is_file() else "", re.MULTILINE)
    if name and listed:
        return file_of(package, f"{module}.{listed[1]}")
    found = next((f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()), None)
    return str(found.relative_to(package)) if found else None


def circle_of_imports(package: Path) -> list[str]:
    """Files that import each other in a circle, counting imports for types and inside functions; empty if none do."""
    graph = {}
    for path in package.rglob("*.py"):
        file = str(path.relative_to(package))
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.module]
        pairs = [(node.module, alias.name) for node in nodes for alias in node.names]
        found = {file_of(package, m, name) for m, name in pairs if m.split(".")[0] == package.name}
        graph[file] = found - {file, None}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle():
    assert circle_of_imports(PACKAGE) == []


@pytest.mark.parametrize(
    "code",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.room.b import y",
        "def f():\n    from pack.room import b",
        "def f():\n    from pack.room import y",
    ],
    ids=["types", "function", "face"],
)
def test_a_circle_would_be_found(tmp_path, code):
    room = tmp_path / "pack" / "room"
    room.mkdir(parents=True)
    (room / "__init__.pyi").write_text("from .b import y as y\n")
    (room / "__init__.py").touch()
    (room / "b.py").write_text("from pack.room.a import x\n")
    (room / "a.py").write_text("import re\n")
    assert circle_of_imports(tmp_path / "pack") == []
    (room / "a.py").write_text(code)
    assert set(circle_of_imports(tmp_path / "pack")) == {"room/a.py", "room/b.py"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPO / "src")))
def test_files_can_be_taken_in_at_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 400


def test_no_path_of_one_machine_and_no_leftover_in_what_is_committed():
    files = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=False)
    if files.returncode:
        pytest.skip("not a git checkout")
    bad = re.compile(r"/(?:home|root|Users|work)/\w|\b(?:TO" + r"DO|FIX" + r"ME)\b")
    found = []
    for name in files.stdout.splitlines():
        path = REPO / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".cff", ".sh", ""} and path.is_file():
            lines = enumerate(path.read_text(errors="ignore").splitlines(), 1)
            found += [f"{name}:{i}: {line.strip()}" for i, line in lines if bad.search(line)]
    assert not found


def test_menus_are_named_as_napari_shows_them():
    """Those of the docks, as ``tests/ui/frame/test_one_dock.py`` chooses them in a real napari."""
    manifest = (REPO / "src/napari_cpnn/napari.yaml").read_text(encoding="utf-8")
    docks = re.findall("display_name: (.+)", manifest.split("  widgets:\n")[1].split("  sample_data:\n")[0])
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    assert [name for name in docks if f"*{name}" not in readme and f"{name} (CPNN)*" not in readme] == []
    shown = "|".join([*(rf"CPNN > {name} \(CPNN\)" for name in docks), "CPNN has docks", "Install/Uninstall Plugins"])
    pages = [REPO / "README.md", *(REPO / "docs").rglob("*.md"), *SOURCES]
    paths = [
        (page.name, found[1])
        for page in pages
        for found in re.finditer(r"Plugins > (.{50})", re.sub(r"\s+", " ", page.read_text(encoding="utf-8")))
    ]
    assert len(paths) > 10
    assert [(page, path) for page, path in paths if not re.match(shown, path)] == []


def test_the_mouse_is_moved_in_a_widget_and_not_on_the_display():
    """Test processes share a display, and so its pointer (tests/ui/mouse.py)."""
    moved = re.compile(r"(?:qtbot|QTest)\.mouseMove\(|QCursor\.setPos\(")
    tests = (path for path in (REPO / "tests").rglob("*.py"))
    assert [path.name for path in tests if moved.search(path.read_text(encoding="utf-8"))] == []
