"""Fixtures that every part uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real data sets; the test is skipped where they are absent."""
    folder = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data are not at {folder}; set NAPARI_CPNN_DATA")
    return folder


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the user's own cache."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(cache))
    return cache
