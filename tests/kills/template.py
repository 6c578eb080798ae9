"""A process that has everything imported and is copied by ``fork``, so that a kill costs no start of Python.

``python -m kills.template`` reads a line of JSON per question from stdin and answers with one:

``{"writer": name, "folder": path, "delay": share, "start": 0 | 1 | null}``
    A copy writes version after version into the folder and is killed after ``delay`` times the time that a write takes.
    Another copy then reads what is there, writes once more, and looks at what lies in the folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kills.writers import WRITERS


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    _warm_up()
    for line in sys.stdin:
        print(json.dumps(_trial(**json.loads(line))), file=answers, flush=True)


def _warm_up() -> None:
    import anndata
    import spatialdata
    import torch

    import napari_cpnn.export.formats
    import napari_cpnn.mapping.store
    import napari_cpnn.training.data.patch_cache
    import napari_cpnn.training.fit.fit
    import napari_cpnn.training.jobs.job_run

    torch.set_num_threads(1)
    _ = anndata, spatialdata.read_zarr, napari_cpnn


def _trial(writer: str, folder: str, delay: float, start: int | None) -> dict[str, Any]:
    chosen, place = WRITERS[writer], Path(folder)
    path = place / chosen.name
    if start is not None:
        first = _in_copy(lambda: _timed(lambda: chosen.write(path, start)))
        if "error" in first:
            return first
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover -- it is killed
        _write_on(lambda version: chosen.write(path, version), 0 if start is None else 1 - start, tell)
    os.close(tell)
    with os.fdopen(ready, "rb") as pipe:
        pipe.read(1)
        seconds = first["seconds"] if start is not None else _SECONDS.get(writer, 0.5)
        _SECONDS[writer] = seconds
        time.sleep(delay * seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        n_written = len(pipe.read())
    left = sorted(p.name for p in place.iterdir())

    def look() -> dict[str, Any]:
        there = os.path.lexists(path)
        if not there and (n_written or start is not None) and not chosen.begins_anew:
            raise AssertionError(f"nothing is at the name; beside it: {left}")
        version = chosen.read(path) if there else None
        if chosen.tidied_by_age:
            _age(place)
        chosen.write(path, 0)
        return {"version": version, "read": chosen.read(path), "litter": _litter(place, chosen.name)}

    return {"written": n_written, "left": left, **_in_copy(look)}


#: How long a write took, by the trials that began with one.
_SECONDS: dict[str, float] = {}


def _write_on(write: Callable[[int], object], version: int, tell: int) -> None:
    try:
        os.write(tell, b"s")
        while True:
            write(version)
            os.write(tell, b"w")
            version = 1 - version
    finally:
        traceback.print_exc()
        os._exit(3)


def _litter(place: Path, name: str) -> list[str]:
    """What is neither the file nor inside it under a name of its own: temporaries and locks."""
    beside = [p for p in place.iterdir() if p.name != name and not p.name.startswith("scratch")]
    inside = [
        p for p in (place / name).rglob("*") if p.name.startswith(".") or p.suffix in (".part", ".partial", ".lock")
    ]
    return sorted(str(p.relative_to(place)) for p in [*beside, *inside])


def _age(place: Path) -> None:
    """As if two days had passed."""
    then = time.time() - 2 * 24 * 3600
    for path in [*place.rglob("*"), place]:
        os.utime(path, (then, then))


def _timed(work: Callable[[], object]) -> dict[str, Any]:
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start}


def _in_copy(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``work`` gives in a copy of this process, which so stays as it is: no threads, no locks."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover -- not seen from here
        try:
            answer = work()
        except BaseException:  # noqa: BLE001 -- told to the parent
            answer = {"error": traceback.format_exc()[-1500:]}
        os.write(tell, json.dumps(answer).encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(ready, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(content) if content else {"error": f"the copy ended with status {status}"}


if __name__ == "__main__":
    main()
