"""Workflows and the recipe of conda name what there is: pinned actions, make targets, sessions, dependencies."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((REPO / ".github" / "workflows").glob("*.yml"))
#: Names of packages that differ in conda.
CONDA = {"dask": "dask-core", "matplotlib": "matplotlib-base", "openslide-bin": "openslide", "torch": "pytorch"}


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_has_pinned_actions_and_few_rights(path: Path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert set(job["permissions"]) <= {"contents", "id-token", "pages"}
    lines = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert len(lines) == sum("uses" in step for step in steps(workflow))
    for action, comment in lines:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action)
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)


def test_what_workflows_run_exists():
    makefile, noxfile = (REPO / "Makefile").read_text(), (REPO / "noxfile.py").read_text()
    commands = "\n".join(
        step["run"] for path in WORKFLOWS for step in steps(yaml.safe_load(path.read_text())) if "run" in step
    )
    targets = set(re.findall(r"make ([\w-]+)", commands))
    assert "test" in targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    sessions = set(re.findall(r"--session (\w+)", commands))
    weekly = yaml.safe_load((REPO / ".github" / "workflows" / "weekly.yml").read_text())
    sessions |= set(weekly["jobs"]["to-come"]["strategy"]["matrix"]["session"])
    assert sessions >= {"tests", "tests_pre"}
    for session in sessions:
        assert re.search(rf"^def {session}\(", noxfile, re.MULTILINE), session


def test_the_recipe_of_conda_has_the_dependencies_of_the_wheel():
    text = (REPO / "recipe" / "recipe.yaml").read_text()
    recipe, project = yaml.safe_load(text), tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    conda = dict(line.split(" ", 1) for line in recipe["requirements"]["run"])
    wheel = {}
    for line in project["dependencies"]:
        name, least = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+).*", line).groups()
        wheel[CONDA.get(name, name)] = f">={least}"
    assert {k: v for k, v in conda.items() if k not in ("python", "numcodecs")} == {
        k: v for k, v in wheel.items() if k != "numcodecs"
    }
    assert conda["numcodecs"] == ">=0.17.1"  # the versions that are excluded for pip lie below
    assert project["requires-python"] == f">={recipe['context']['python_min']}"
    assert recipe["about"]["license"] == project["license"]
