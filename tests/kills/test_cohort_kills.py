"""A head that is killed at any moment loses nothing, does nothing twice, and comes to the same result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are copied by fork")


def killed(folder: Path, n: int) -> dict[str, Any]:
    found = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "kills.cohort_kills", str(folder), str(n)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_three_kills_of_the_head(tmp_path: Path) -> None:
    found = killed(tmp_path, 3)
    assert found["met"] >= 1
    assert (found["same"], found["litter"]) == (True, [])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_kills_of_the_head(tmp_path: Path) -> None:
    found = killed(tmp_path, 30)
    assert found["met"] >= 15
    assert (found["same"], found["litter"]) == (True, [])
