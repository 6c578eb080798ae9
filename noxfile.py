"""Sessions for every system, Windows too: ``nox --session tests_locked`` is what ``make unit`` is elsewhere."""

from __future__ import annotations

import os
import sys

import nox

nox.options.sessions = ["tests"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PYTEST = (
    "pytest",
    "-m",
    "not slow",
    "-n",
    "auto",
    "--maxprocesses",
    "4",
    "--dist",
    "loadfile",
    "--no-loadscope-reorder",
)
CONSTRAINTS = ("--constraint", "constraints.txt")


def _pytest(session: nox.Session) -> None:
    """Run the tests, on a virtual display where there is none."""
    hidden = sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    screen = ("xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", "python", "-m") if hidden else ("python", "-m")
    session.run(*screen, *PYTEST, *session.posargs, external=hidden, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests with the newest versions that pyproject.toml allows."""
    session.install("--editable", ".[all]", *nox.project.dependency_groups(nox.project.load_toml(), "test"))
    _pytest(session)


@nox.session
def tests_locked(session: nox.Session) -> None:
    """The tests with the versions of constraints.txt."""
    groups = nox.project.dependency_groups(nox.project.load_toml(), "test")
    session.install(*CONSTRAINTS, "--editable", ".[all]", *groups)
    _pytest(session)


@nox.session
def tests_pre(session: nox.Session) -> None:
    """The tests with pre-releases of all dependencies."""
    session.install("--pre", "--editable", ".[all]", *nox.project.dependency_groups(nox.project.load_toml(), "test"))
    _pytest(session)


@nox.session
def tests_napari_main(session: nox.Session) -> None:
    """The tests of the window with napari's main branch."""
    session.install("--editable", ".[all]", *nox.project.dependency_groups(nox.project.load_toml(), "test"))
    session.install("--upgrade", "git+https://github.com/napari/napari.git")
    session.posargs[:0] = ["tests/ui"]
    _pytest(session)


@nox.session
def audit(session: nox.Session) -> None:
    """Known advisories of the versions in constraints.txt; asks a server."""
    session.install("pip-audit")
    session.run("pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip")
