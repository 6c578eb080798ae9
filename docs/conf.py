"""How Sphinx builds the documentation site (``make docs``)."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import os
import pydoc
import re
import shutil
import sys
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.ext.napoleon import Config, NumpyDocstring
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode

import napari_cpnn
from napari_cpnn.settings import Settings

REPO = Path(__file__).resolve().parents[1]
SITE = REPO / "site"


def fingerprint() -> str:
    """Return a hash of what the output of a tutorial depends on beside its own cells."""
    files = [*(REPO / "src").rglob("*.py"), *(REPO / "src").rglob("*.safetensors"), *(REPO / "sample_data").iterdir()]
    total = hashlib.sha256((REPO / "constraints.txt").read_bytes())
    for path in sorted(files):
        total.update(path.read_bytes())
    return total.hexdigest()[:12]


# What was executed with another version of the package is not kept.
executed = SITE / "cache" / fingerprint()
for folder in (SITE / "cache").glob("*"):
    if folder != executed:
        shutil.rmtree(folder)
os.environ["NAPARI_CPNN_CACHE"] = str(executed / "napari-cpnn")

os.environ["PYTHONWARNINGS"] = "ignore::SyntaxWarning,ignore:IProgress not found"  # of libraries that squidpy loads

project = "napari-cpnn"
author = "The napari-cpnn developers"
version = release = napari_cpnn.__version__
html_title = "napari-cpnn"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["conf.py"]
nitpicky = True
default_role = "code"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

nb_execution_mode = "cache"
nb_execution_cache_path = str(executed / "notebooks")
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_output_stderr = "warn"
nb_merge_streams = True

autosummary_generate = True
autosummary_ignore_module_all = False
templates_path = ["_templates"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
NAPOLEON = Config(napoleon_use_rtype=False, napoleon_custom_sections=[("Attributes", "params_style")])

html_theme = "sphinx_book_theme"
html_theme_options: dict[str, Any] = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_edit_page_button": False,
    "use_source_button": False,
    "use_repository_button": False,
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False


def list_guide(app: Any, page: str, source: list[str]) -> None:
    """Put the pages of the guide below its first page, in the order of its table.

    The pages are also read in napari, which knows no directives of Sphinx, so that none can stand in the file.
    """
    if page == "guide/index":
        pages = dict.fromkeys(re.findall(r"^\| \[[^]]+\]\((\w[\w-]*)\.md\)", source[0], re.MULTILINE))
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def read_numpy_style(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring in numpy's style into reStructuredText.

    This is what ``sphinx.ext.napoleon`` does, but for properties: there it takes words before a colon for a type.
    """
    what = "method" if what == "property" else what
    lines[:] = NumpyDocstring(lines, NAPOLEON, app, what, name, item, options).lines()


def is_code(text: str) -> bool:
    """Return whether a text can be read as Python."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def write_signature(app: Any, what: str, name: str, item: Any, options: Any, text: str | None, returns: Any) -> Any:
    """Write a signature with the types as they are in the source; settings have a table instead."""
    if isinstance(item, type) and issubclass(item, Settings):
        return "", None
    if text is None or not callable(item):
        return None
    signature = inspect.signature(item)
    own = [p for p in signature.parameters.values() if what != "method" or p.name not in {"self", "cls"}]
    own = [p if p.default is p.empty or is_code(repr(p.default)) else p.replace(default=...) for p in own]
    if isinstance(item, type):
        signature = signature.replace(return_annotation=inspect.Signature.empty)
    return stringify_signature(signature.replace(parameters=own)), None


def list_settings(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Add the table of all settings, with their help, to the docstring of a settings class."""
    if not (isinstance(item, type) and issubclass(item, Settings) and item is not Settings):
        return
    table = [".. list-table::", "   :header-rows: 1", "   :widths: 25 20 55", ""]
    table += ["   * - setting", "     - default", "     - meaning"]
    for field in dataclasses.fields(item):  # type: ignore[arg-type]
        default = type(field.default).__name__ + "()" if isinstance(field.default, Settings) else repr(field.default)
        table += [f"   * - ``{field.name}``", f"     - ``{default}``", f"     - {field.metadata.get('help', '')}"]
    example = lines.index("Examples")
    lines[example:example] = [*table, ""]


#: Short names of libraries, and libraries whose names stand alone in annotations.
SHORT = {"np": "numpy", "npt": "numpy.typing", "pd": "pandas", "nn": "torch.nn"}
ALONE = ["anndata", "pandas", "pathlib", "shapely", "spatialdata", "distributed"]


def attribute(module: str, target: str) -> Any:
    """Return what a module that was imported has under a dotted name, or None."""
    try:
        return attrgetter(target)(sys.modules[module])
    except AttributeError:
        return None


def home(node: Any) -> str:
    """Return the module of what a reference is written at."""
    while node is not None and not isinstance(node, addnodes.desc):
        node = node.parent
    item = None if node is None else pydoc.locate(f"{node[0]['module']}.{node[0]['fullname']}")
    return getattr(getattr(item, "fget", item), "__module__", "")


@cache
def locate(target: str, inside: str | None = None, module: str = "napari_cpnn") -> Any:
    """Return what is meant by a name in a module, from within a class or not; None if there is nothing of this name."""
    first, _, rest = target.partition(".")
    ours = sorted((name for name in sys.modules if name.startswith("napari_cpnn")), key=lambda name: name.count("."))
    tries = (
        partial(attribute, module, target),
        lambda: pydoc.locate(f"{SHORT.get(first, first)}.{rest}".rstrip(".")),
        *(partial(attribute, module, f"{inside}.{target}") for module in ours if inside),
        *(partial(attribute, module, target) for module in ours),
        *(partial(pydoc.locate, f"{module}.{target}") for module in ALONE),
    )
    found = next((item for look in tries if (item := look()) is not None), None)
    if found is None and inside is not None:
        text = pydoc.getdoc(locate(inside))
        return text if re.search(rf"^{re.escape(target)}( :|,|$)", text, re.MULTILINE) else None
    return found


def link(app: Any, env: Any, node: Any, content: nodes.Element) -> nodes.Node | None:
    """Link a name to its page, from whichever module it is taken; what has no page stays text.

    A name that exists nowhere stays unresolved, which is an error.
    """
    if node.get("refdomain") != "py":
        return None
    meant = locate(node["reftarget"], node.get("py:class"), home(node) or "napari_cpnn")
    if meant is None:
        return None
    for page, found in env.domains["py"].objects.items():
        if locate(page) is meant:
            return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content, page)
    return content


def setup(app: Any) -> None:
    """Connect what is particular to this site."""
    app.connect("source-read", list_guide)
    app.connect("autodoc-process-docstring", list_settings, priority=400)
    app.connect("autodoc-process-docstring", read_numpy_style)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("missing-reference", link)
