"""A kill at any moment leaves the old file or the new one, and the next write leaves nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kills.writers import VERSIONS, WRITERS

TESTS = Path(__file__).resolve().parents[1]
QUICK = ("model", "map", "h5ad")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are copied by fork")


class Template:
    """The process of :mod:`kills.template`."""

    def __init__(self, cache: Path) -> None:
        found = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1", "NAPARI_CPNN_CACHE": str(cache)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kills.template"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    one = Template(tmp_path_factory.mktemp("cache"))
    yield one
    one.close()


def kill(template: Template, name: str, folder: Path, n: int) -> None:
    """``n`` kills; the writing begins with version 0, version 1, or nothing."""
    rng = np.random.default_rng([n, *name.encode()])
    for i in range(n):
        start = (0, 1, None)[i % 3]
        place = folder / f"{i}"
        place.mkdir()
        delay = float(rng.uniform(0, 2.5 if start is not None else 1.0))
        found = template.ask(writer=name, folder=str(place), delay=delay, start=start)
        case = f"kill {i} of {name}, beginning with {start}, after {delay:.2f} of a write: {found}"
        assert "error" not in found, case
        assert found["version"] in ((None, *VERSIONS) if start is None else VERSIONS), case
        assert found["read"] == 0, case
        assert found["litter"] == [], case


@pytest.mark.parametrize("name", QUICK)
def test_three_kills(template: Template, name: str, tmp_path: Path) -> None:
    kill(template, name, tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", WRITERS)
def test_thirty_kills(template: Template, name: str, tmp_path: Path) -> None:
    kill(template, name, tmp_path, 30)
