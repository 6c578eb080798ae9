"""The rules of the house that no linter checks."""

from __future__ import annotations

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
