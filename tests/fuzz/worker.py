"""The child that opens one hostile file after another: ``python -m fuzz.worker``.

Reads a line of JSON per file from stdin, ``{"door": ..., "path": ...}``, and answers on stdout with a line for each
step of the door, then one with the time and the memory that they took.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.doors import DOORS, warm_up

_LONGEST_SENTENCE = 500


def main() -> None:
    # Libraries print where they like; the answers go to a file of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    if "--cold" not in sys.argv:
        warm_up()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        for answer in open_and_tell(asked["door"], Path(asked["path"])):
            print(json.dumps(answer), file=answers, flush=True)


def open_and_tell(door: str, path: Path) -> Iterator[dict[str, Any]]:
    """What came of each step; then the time, and the memory beyond what was in use before."""
    before = _memory_mb("VmRSS")
    _forget_peak()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    start = time.perf_counter()
    for step in DOORS[door](path):
        yield _outcome(step)
    children_now = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    yield {
        "seconds": time.perf_counter() - start,
        # A child begins with our size until it runs a program of its own; only one that grew beyond that says anything.
        "mb": max(_memory_mb("VmHWM"), children_now / 1024 if children_now > children else 0.0) - before,
    }


def _outcome(step: Any) -> dict[str, str]:
    from napari_cpnn.errors import CpnnError

    try:
        step()
    except CpnnError as error:
        text = str(error)
        wrong = "\n" in text or "Traceback" in text or not text or len(text) >= _LONGEST_SENTENCE
        return {
            "kind": "no sentence" if wrong else "sentence",
            "text": text,
            "where": _our_place(error) if wrong else "",
        }
    except Exception as error:  # noqa: BLE001 -- this is what is looked for
        text = "".join(traceback.format_exception_only(error)).strip()[:300]
        return {"kind": "traceback", "text": text, "where": _our_place(error)}
    return {"kind": "result", "text": "", "where": ""}


def _our_place(error: BaseException) -> str:
    """The innermost line of the package, as ``spots/tenx.py:44``; of the tests where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{f.filename.split('napari_cpnn/')[-1]}:{f.lineno}" for f in frames if "/napari_cpnn/" in f.filename]
    return ours[-1] if ours else f"tests: {frames[-1].name}:{frames[-1].lineno}"


def _memory_mb(name: str) -> float:
    """``VmRSS`` or ``VmHWM`` (its peak) where the system tells; elsewhere memory is not judged."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
