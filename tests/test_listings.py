"""Listings say what is true of the repository, and registries get a README whose pictures and links work."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

from napari_cpnn import __version__

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())


def test_the_entry_for_scverse_has_what_its_schema_asks_for():
    entry = yaml.safe_load((REPO / "listings" / "scverse.yaml").read_text())
    asked = "name description project_home documentation_home install license tags version category contact"
    assert set(asked.split()) <= set(entry)
    assert entry["name"] == entry["install"]["pypi"] == PROJECT["project"]["name"]
    assert entry["version"] == __version__
    assert entry["license"] == PROJECT["project"]["license"]
    urls = PROJECT["project"]["urls"]
    assert (entry["project_home"], entry["documentation_home"]) == (urls["Homepage"], urls["Documentation"])
    assert entry["category"] == "ecosystem"
    assert len(set(entry["tags"])) == len(entry["tags"]) > 0
    target = entry["test_command"].removeprefix("make ")
    assert re.search(rf"^{target}:", (REPO / "Makefile").read_text(), re.MULTILINE)


def test_what_the_checklists_name_exists():
    text = (REPO / "listings" / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 15
    assert [link for link in links if not (REPO / "listings" / link).exists()] == []
    assert "## Support" in (REPO / "README.md").read_text()


def test_registries_get_no_link_into_the_repository():
    """The rules of pyproject.toml, applied as the build does."""
    text = (REPO / "README.md").read_text()
    relative = re.compile(r"\]\((?!https?:|#)([^)]+)\)")
    inside = relative.findall(text)
    assert len(inside) > 5
    assert [path for path in inside if not (REPO / path).exists()] == []
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert relative.findall(text) == []
    assert "![Section C4 of her2st" in text
    for path in inside:
        pictured = path.endswith((".png", ".gif"))
        host = "https://raw.githubusercontent.com/" if pictured else "https://github.com/"
        assert any(host in line and path in line for line in text.splitlines()), path
