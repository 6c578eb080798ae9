"""Libraries of torch are linked ahead of its import, which stays the one that tells what is wrong."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from napari_cpnn.models import linking

AHEAD = """
import sys
from napari_cpnn.models import link_ahead
thread = link_ahead()
thread.join()
assert "torch" not in sys.modules
with open("/proc/self/maps") as file:
    assert "libtorch_python.so" in file.read()
import torch
assert float(torch.linalg.norm(torch.eye(4))) == 2.0
assert link_ahead() is None
print("linked")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="on Linux only")
def test_libraries_are_linked_before_torch_is_imported():
    done = subprocess.run([sys.executable, "-c", AHEAD], capture_output=True, text=True, check=False)
    assert done.stdout == "linked\n", done.stderr


@pytest.mark.parametrize("origin", [None, "missing", "bad"])
def test_what_cannot_be_linked_is_left_to_the_import(monkeypatch, tmp_path, origin):
    (tmp_path / "bad" / "lib").mkdir(parents=True)
    (tmp_path / "bad" / "lib" / "libtorch_python.so").write_bytes(b"no library")
    spec = None if origin is None else SimpleNamespace(origin=str(tmp_path / origin / "__init__.py"))
    monkeypatch.setattr(linking, "find_spec", lambda _name: spec)
    monkeypatch.setattr(linking, "sys", SimpleNamespace(platform="linux", modules={}))
    thread = linking.link_ahead()
    assert (thread is None) == (origin != "bad")
    if thread is not None:
        thread.join()
