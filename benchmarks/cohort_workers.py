"""How well slides are shared among workers, and what sharing them costs.

``python benchmarks/cohort_workers.py efficiency``
    20 small slides with 1 and 2 workers: efficiency = time with 1 / (n x time with n), without the start of workers.
    Run it on a computer that does nothing else.
``python benchmarks/cohort_workers.py head``
    1,000 planned slides whose work is a stub: overhead per slide of planning, of handing out and of taking up again,
    and the memory of the head after 200 and after 1,000 slides.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import tifffile

import napari_cpnn.cohort_run.run as running
from common import print_table, sample_model, sample_slide
from napari_cpnn.cohort import read_cohort
from napari_cpnn.cohort_run import CohortProgress, run_cohort
from napari_cpnn.settings import CohortSettings, MappingSettings

SIDE = 4096


def make_slides(folder: Path, n: int) -> Path:
    """Parts of the sample slide, shifted, each a slide of its own; and their manifest."""
    whole = tifffile.imread(sample_slide(), level=0)
    at = np.linspace(0, min(whole.shape[:2]) - SIDE, n).astype(int)
    for i, start in enumerate(at):
        part = whole[start : start + SIDE, 3000 : 3000 + SIDE]
        tifffile.imwrite(folder / f"s{i}.tif", part, photometric="rgb", tile=(512, 512), compression="jpeg")
    table = pd.DataFrame({"slide": [f"s{i}.tif" for i in range(n)], "mpp": 0.5})
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def efficiency(n_slides: int, most: int, stride_um: float) -> None:
    rows, one = [], 0.0
    with tempfile.TemporaryDirectory() as place:
        cohort = read_cohort(make_slides(Path(place), n_slides))
        for n in range(1, most + 1):
            # the first slides of all workers end their start: they count from there on
            ends: list[float] = []

            def note(_: CohortProgress, ends: list[float] = ends) -> None:
                ends.append(time.perf_counter())

            settings = CohortSettings(workers=n, mapping=MappingSettings(device="cpu", stride_um=stride_um))
            run_cohort(cohort, sample_model(), Path(place) / f"out{n}", settings, on_progress=note)
            pace = (len(ends) - n) / (ends[-1] - ends[n - 1])
            one = one or pace
            rows.append((n, f"{1 / pace:.2f}", f"{pace / (n * one):.2f}"))
    print_table(f"{n_slides} slides, stride {stride_um:g} um", ("workers", "s per slide", "efficiency"), rows)


def stub(job) -> object:
    """Stand for the work of a slide: its summary is written, nothing is mapped."""
    folder = Path(job.out)
    (folder / "map.zarr").mkdir(parents=True, exist_ok=True)
    (folder / "slide.json").write_text(json.dumps({"key": job.key, "composition": {}, "quality": {}, "file": {}, "flags": []}))
    return running.Outcome(job.name, "done")


def head(n_slides: int) -> None:
    from distributed import Client, LocalCluster

    memory, done = [], 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for i in range(n_slides):
            (folder / f"{i}.svs").write_bytes(b"\0")  # opened by nobody
        pd.DataFrame({"slide": [f"{i}.svs" for i in range(n_slides)]}).to_csv(folder / "m.csv", index=False)
        start = time.perf_counter()
        cohort = read_cohort(folder / "m.csv")
        reading = time.perf_counter() - start
        jobs = running._Jobs(cohort, running.RunFolder(folder / "out"), "key", CohortSettings())  # noqa: SLF001 -- its parts are timed

        def take(run, outcome) -> None:
            nonlocal done
            run.take(outcome)
            done += 1
            if done in (n_slides // 5, n_slides):
                memory.append(psutil.Process().memory_info().rss / 2**20)

        start = time.perf_counter()
        run = running._Run(jobs, jobs.folder, strict=False, on_progress=None)  # noqa: SLF001 -- its parts are timed
        planning = time.perf_counter() - start
        with (
            LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
            Client(cluster) as client,
        ):
            client.submit(stub, jobs.of("0")).result()
            start, work = time.perf_counter(), time.process_time()
            running.drive(
                client,
                map(jobs.of, run.waiting),
                lambda job: client.submit(stub, job, pure=False),
                lambda outcome: take(run, outcome),
            )
            driving, work = time.perf_counter() - start, time.process_time() - work
        start = time.perf_counter()
        again = running._Run(jobs, jobs.folder, strict=False, on_progress=None)  # noqa: SLF001 -- as above
        resuming = time.perf_counter() - start
        assert not again.waiting
    per_slide = [f"{1e3 * seconds / n_slides:.2f}" for seconds in (reading, planning, driving, work, resuming)]
    print_table(
        f"{n_slides} planned slides with a stub of the work",
        (
            "reading ms",
            "planning ms",
            "handing out ms",
            "of which work of the head ms",
            "taking up again ms",
            "MB after a fifth",
            "MB at the end",
        ),
        [(*per_slide, f"{memory[0]:.0f}", f"{memory[1]:.0f}")],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["efficiency", "head"])
    parser.add_argument("--slides", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stride-um", type=float, default=112.0)
    given = parser.parse_args()
    if given.what == "efficiency":
        efficiency(given.slides or 20, given.workers, given.stride_um)
    else:
        head(given.slides or 1000)
