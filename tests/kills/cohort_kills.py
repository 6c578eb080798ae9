"""Kill the head of a run over a cohort at random moments and take it up again, until it is complete.

``python -m kills.cohort_kills FOLDER N`` has everything imported and is copied by ``fork``, so that a kill costs no
start of Python. It prints, as JSON, how many kills met a run at work and whether the results are those of a run that
nobody killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np


def main() -> None:
    folder, n = Path(sys.argv[1]), int(sys.argv[2])
    warnings.simplefilter("ignore")
    world = _world(folder)
    start = time.perf_counter()
    _finish(world, "reference")
    seconds = time.perf_counter() - start
    rng, n_met = np.random.default_rng(n), 0
    for _ in range(n):
        child = _begin(world, "killed")
        time.sleep(float(rng.uniform(0, 0.6)) * seconds)
        os.kill(child, signal.SIGKILL)
        n_met += os.waitpid(child, 0)[1] == signal.SIGKILL
    _finish(world, "killed")
    same = _results(folder / "killed") == _results(folder / "reference")
    sys.stdout.write(json.dumps({"met": n_met, "same": same, "litter": _litter(folder / "killed")}))


def _world(folder: Path):
    import torch

    import napari_cpnn.cohort_run.run
    import napari_cpnn.cohort_run.slide_job
    from cohort_world import make_cohort

    torch.set_num_threads(1)
    _ = napari_cpnn
    return make_cohort(folder, n=5)


def _begin(world, out: str) -> int:
    child = os.fork()
    if child == 0:  # pragma: no cover -- not seen from here
        code = 3
        try:
            world.run(out)
            code = 0
        except BaseException:  # noqa: BLE001 -- told by the code
            traceback.print_exc()
        os._exit(code)
    return child


def _finish(world, out: str) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(_begin(world, out), 0)[1])
    if code:
        raise SystemExit(f"the run to {out} ended with {code}")


def _results(out: Path):
    from cohort_world import results_of

    found = {}
    for name, (facts, arrays, pictures) in results_of(out).items():
        found[name] = (json.dumps(facts), arrays, pictures)
    return found, (out / "composition.csv").read_bytes()


def _litter(out: Path) -> list[str]:
    return sorted(str(p.relative_to(out)) for p in out.rglob(".*") if p.name != ".running")


if __name__ == "__main__":
    main()
