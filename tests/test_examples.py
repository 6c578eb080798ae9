"""Examples in docstrings of the public API: every name has one, and it runs on the packaged sample."""

from __future__ import annotations

import doctest
import importlib
import inspect
import io
import re
from pathlib import Path

import pytest

import napari_cpnn
from small_world import no_curves

__all__ = ["no_curves"]

ARCHITECTURE = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"
FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def interfaces() -> dict[str, object]:
    """Functions and classes that docs/architecture.md lists under *Interfaces*, in the faces of their packages."""
    found = {}
    text = ARCHITECTURE.read_text().split("\n## Interfaces", 1)[1].split("\n## ", 1)[0]
    for section in text.split("\n### ")[1:]:
        title, *blocks = re.split(r"\n```(?:python)?\n", section)
        listed = {name for block in blocks[::2] for pair in re.findall(r"class (\w+)|(\w+)\(", block) for name in pair}
        for package in re.findall(r"`(\w+)`", title.splitlines()[0]):
            face = importlib.import_module(f"napari_cpnn.{package}")
            found |= {
                f"{package}.{name}": getattr(face, name) for name in sorted(listed & {*getattr(face, "__all__", ())})
            }
    return found


PUBLIC = {name: getattr(napari_cpnn, name) for name in napari_cpnn.__all__ if name != "__version__"}
PUBLIC |= {name: value for name, value in interfaces().items() if value not in PUBLIC.values()}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """What the package's own example opens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_CPNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return run(napari_cpnn.__doc__, "napari_cpnn", {})


def run(text: str, name: str, known: dict[str, object]) -> dict[str, object]:
    """Run the examples of a docstring; names that they define, beside those that are known."""
    test = doctest.DocTestParser().get_doctest(inspect.cleandoc(text), dict(known), name, None, None)
    report = io.StringIO()
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.write, clear_globs=False)
    assert result.attempted
    assert not result.failed, report.getvalue()
    return test.globs


def test_the_interfaces_are_found():
    assert {"spots.check_fit", "regions.Region", "evaluation.summarise", "mapping.LiveMapper"} <= set(PUBLIC)
    assert len(PUBLIC) > 60


def test_what_has_an_example_is_in_the_reference():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ARCHITECTURE.parent / "api").glob("*.md"))
    assert set(PUBLIC) - set(re.findall(r"^   ([\w.]+)$", pages, re.MULTILINE)) == set()


#: Examples that train or map for seconds, whose tests do the same; `make test-slow` runs them.
LONG = {
    "CPNN",
    "BenchmarkSettings",
    "cross_validate",
    "predict_cells",
    "run_cohort",
    "train_cells",
    "studies.held_out_slides",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else []) for n in PUBLIC])
def test_every_public_name_has_an_example_that_runs(name, opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(inspect.getdoc(PUBLIC[name]), name, opened)
