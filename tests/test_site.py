"""What the documentation site says of the package; ``make docs`` builds it and runs the tutorials."""

from __future__ import annotations

import ast
import importlib
import pydoc
import re
from pathlib import Path

import pytest

import napari_cpnn as nc

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"
TUTORIALS = sorted(path for path in (DOCS / "tutorials").glob("*.md") if path.name != "index.md")
#: All pages with code; that of docs/architecture.md are signatures, which tests/test_examples.py looks up.
PAGES = [
    REPO / "README.md",
    *sorted(path for path in DOCS.glob("*.md") if path.name != "architecture.md"),
    *sorted((DOCS / "guide").glob("*.md")),
    *TUTORIALS,
]


def reference() -> list[str]:
    """Names of the reference below ``napari_cpnn``, such as ``open_slide`` and ``regions.Region``."""
    pages = [path.read_text(encoding="utf-8") for path in sorted((DOCS / "api").glob("*.md"))]
    blocks = [block for page in pages for block in re.findall(r"\.\. autosummary::\n(.*?)```", page, re.DOTALL)]
    return [name for block in blocks for name in re.findall(r"^   ([\w.]+)$", block, re.MULTILINE)]


def listed(path: Path) -> set[str]:
    """Pages in the tables of contents of a page."""
    found = re.findall(r"```\{toctree\}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    return {line for block in found for line in block.splitlines() if re.fullmatch(r"[\w/-]+", line)}


def code(path: Path) -> list[str]:
    """Python of a page: cells of a tutorial, and blocks of other pages."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^ *```(?:python|\{code-cell\}.*)\n((?:.*\n)*?) *```$", text, re.MULTILINE)
    return [re.sub(r"\A(?:(?::.*\n)+|---\n(?:.*\n)*?---\n)\n?", "", block) for block in found]


def names_of_ours(source: str) -> list[str]:
    """Names below ``napari_cpnn`` that code uses: ``nc.open_slide``, ``from napari_cpnn.regions import Region``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "napari_cpnn":
            room = (node.module or "").partition(".")[2]
            found += [f"{room}.{alias.name}".lstrip(".") for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("napari_cpnn.")]
        elif isinstance(node, ast.Attribute) and (chain := ast.unparse(node)).startswith("nc."):
            found.append(chain.removeprefix("nc."))
    chains = {name for name in found if re.fullmatch(r"[\w.]+", name)}
    return sorted(name for name in chains if not any(longer.startswith(f"{name}.") for longer in chains))


def is_in(name: str, known: set[str]) -> bool:
    """Whether a name, or what it is a member of, is among those of the reference."""
    parts = name.split(".")
    return any(".".join(parts[:i]) in known for i in range(1, len(parts) + 1))


def test_every_public_name_is_in_the_reference_once():
    names = reference()
    assert {*nc.__all__} - {"__version__"} <= set(names)
    assert sorted(names) == sorted(set(names))


def test_what_the_reference_has_is_public():
    for name in reference():
        room, _, own = name.rpartition(".")
        module = importlib.import_module(f"napari_cpnn.{room}" if room else "napari_cpnn")
        assert own in module.__all__


def test_every_page_is_in_a_table_of_contents():
    assert {path.stem for path in TUTORIALS} == listed(DOCS / "tutorials" / "index.md")
    assert {path.stem for path in (DOCS / "api").glob("*.md")} - {"index"} == listed(DOCS / "api" / "index.md")
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} <= listed(DOCS / "index.md")
    guide = (DOCS / "guide" / "index.md").read_text(encoding="utf-8")
    in_table = set(re.findall(r"^\| \[[^]]+\]\((\w[\w-]*)\.md\)", guide, re.MULTILINE))
    assert {path.stem for path in (DOCS / "guide").glob("*.md")} - {"index"} == in_table


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_cells_of_tutorials_parse_and_use_public_names(path):
    cells = code(path)
    assert len(cells) > 3
    used = [name for cell in cells for name in names_of_ours(cell)]
    assert used
    assert [name for name in used if not is_in(name, set(reference()))] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPO)))
def test_code_of_pages_uses_names_that_exist(path):
    used = [name for block in code(path) for name in names_of_ours(block)]
    assert [name for name in used if pydoc.locate(f"napari_cpnn.{name}") is None] == []


def test_a_name_that_is_not_public_would_be_found():
    source = "import napari_cpnn as nc\nfrom napari_cpnn.training import predict_expression\nnc.open_slides('a').mpp\n"
    names = names_of_ours(source)
    assert names == ["open_slides", "training.predict_expression"]
    assert not any(is_in(name, set(reference())) for name in names)
