"""Fixtures that every part uses."""

from __future__ import annotations

import atexit
import faulthandler
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

from warm_child import WarmSubprocess

REPO = Path(__file__).resolve().parents[1]

#: napari's settings and those of its plugins, for the tests and the programs that they start. napari takes the name of
#: its file when it is imported, so it is set before.
_SETTINGS = tempfile.mkdtemp(prefix="napari-cpnn-tests-")
os.environ["NAPARI_CONFIG"] = str(Path(_SETTINGS) / "settings.yaml")
atexit.register(shutil.rmtree, _SETTINGS, ignore_errors=True)

#: Networks are not converted for OpenVINO in every process; its tests ask for it.
os.environ.setdefault("NAPARI_CPNN_ENGINE", "torch")

#: Files whose tests send themselves Ctrl-C, first: what escapes them ends the process, as xdist says without a word. It
#: did four times, where a test asked a run to stop at each epoch and a second epoch ended before the first was noticed.
SIGNALLED = ("test_fit", "test_steps", "test_resume")

#: Files that take longest: begun first, so that those who run files side by side end together.
LONGEST = ("test_stories", "test_compare", "test_finetune", "test_explore", "test_launch", "test_corpus", "test_child")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, before them those with signals."""
    first = (*SIGNALLED, *LONGEST)
    items.sort(key=lambda item: first.index(item.path.stem) if item.path.stem in first else len(first))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A crash says where it was after a training run too: Lightning sets all signals back, faulthandler's with them."""
    stderr = item.config.stash.get(fault_handler_stderr_fd_key, None)
    if stderr is not None:
        faulthandler.disable()
        faulthandler.enable(file=stderr)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real data sets; the test is skipped where they are absent."""
    folder = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data are not at {folder}; set NAPARI_CPNN_DATA")
    return folder


@pytest.fixture(scope="session", autouse=True)
def as_if_it_had_bfloat16() -> Iterator[None]:
    """With ``NAPARI_CPNN_TEST_BFLOAT16``, models choose bfloat16 as they do on processors that have it."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("NAPARI_CPNN_TEST_BFLOAT16"):
            patch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_of_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures that outlive a test do not touch the user's own cache either, nor what earlier runs left there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_CPNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the user's own cache."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def warm_process() -> Iterator[WarmSubprocess]:
    warm = WarmSubprocess()
    yield warm
    warm.close()


@pytest.fixture(autouse=True)
def warm_child(warm_process: WarmSubprocess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are checked in a copy of a process that has started; tests of the child itself start it."""
    if sys.platform == "linux":
        monkeypatch.setattr("napari_cpnn.untrusted.subprocess", warm_process)
