"""Failing inputs with right answers, read in place where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
CASES = Path(os.environ.get("NAPARI_CPNN_CASES", REPO.parent / "shared" / "cases"))


def case(name: str) -> Path:
    """The file or folder of a case; the test is skipped where it is absent."""
    path = CASES / name
    if not path.exists():
        pytest.skip(f"there is no {name} at {CASES}; set NAPARI_CPNN_CASES")
    return path
