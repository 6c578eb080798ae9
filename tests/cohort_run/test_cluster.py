"""Runs on workers: the same bits for any number of them, killed workers, split slides, a flat head."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from cohort_world import make_cohort, results_of, run_settings
from napari_cpnn.cohort_run import Cluster, cluster_options
from napari_cpnn.cohort_run.clusters import gpus_of, n_local_workers, open_client, visible_devices
from napari_cpnn.cohort_run.run import drive
from napari_cpnn.cohort_run.slide_job import Outcome, SlideJob
from napari_cpnn.errors import CohortError
from napari_cpnn.settings import CohortSettings, MappingSettings

distributed = pytest.importorskip("distributed")


@contextmanager
def in_process() -> Iterator[Any]:
    """A scheduler and a worker in this process."""
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.slow  # and dask gives a worker seconds to start, which a busy machine may not have
def test_two_workers_one_of_them_killed_give_the_same_bits(tmp_path):
    world = make_cohort(tmp_path, n=6, damaged=[4])
    world.run("alone")
    killed: list[int] = []

    def kill() -> None:
        """End the worker that has begun a slide."""
        deadline = time.monotonic() + 200
        while not killed and time.monotonic() < deadline:
            if any((world.folder / "two" / "slides").glob("*/.work")):
                workers = [
                    p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())
                ]
                if workers:
                    killed.append(workers[0].pid)
                    workers[0].kill()
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    status = world.run("two", settings=run_settings(workers=2))
    thread.join()
    assert len(killed) == 1
    assert status.done == 5
    assert list(status.failed) == ["s4"]
    for out in ("alone", "two"):
        (world.folder / out / "slides" / "s4" / "failed.json").unlink()
        (world.folder / out / "slides" / "s4").rmdir()
    alone, two = results_of(world.folder / "alone"), results_of(world.folder / "two")
    assert alone == two


def test_a_scheduler_that_runs_and_a_slide_that_is_split(tmp_path, monkeypatch):
    world = make_cohort(tmp_path, n=2)
    world.run("alone")
    monkeypatch.setattr("napari_cpnn.mapping.whole_slide._TASK_PATCHES", 16)
    with in_process() as client:
        there = Cluster(scheduler=client.scheduler.address)
        status = world.run("there", settings=run_settings(workers=None, split_patches=1), cluster=there)
    assert status.done == 2
    assert results_of(world.folder / "alone") == results_of(world.folder / "there")


@pytest.mark.parametrize(("seconds", "limit"), [(0.0, 3), (1e6, 50)])
def test_few_slides_are_under_way_and_the_head_keeps_none(monkeypatch, seconds, limit):
    monkeypatch.setattr("napari_cpnn.cohort_run.run._AHEAD_SECONDS", seconds)  # however long the stubs take here
    under_way, most, done = set(), 0, []

    def submit(job: SlideJob) -> Any:
        nonlocal most
        under_way.add(job.name)
        most = max(most, len(under_way))
        return client.submit(Outcome, job.name, "done", pure=False)

    def take(outcome: Outcome) -> None:
        under_way.discard(outcome.name)
        done.append(outcome.name)

    jobs = (SlideJob(f"s{i}", "", 1.0, "", "", "", CohortSettings()) for i in range(80))
    with in_process() as client:
        drive(client, jobs, submit, take)
        deadline = time.monotonic() + 60
        while client.futures and time.monotonic() < deadline:  # they are released in the client's own thread
            time.sleep(0.01)
        assert not client.futures
    assert sorted(done, key=lambda name: int(name[1:])) == [f"s{i}" for i in range(80)]
    assert most == limit


def test_a_slide_that_ends_its_workers_is_a_failure(tmp_path):
    job = SlideJob("s0", "s0.svs", 1.0, "", str(tmp_path / "s0"), "", CohortSettings())
    taken = []

    def dies(_: object) -> Outcome:
        raise distributed.KilledWorker("s0", SimpleNamespace(address="tcp://there"), 2)

    with in_process() as client:
        drive(client, iter([job]), lambda one: client.submit(dies, one, pure=False), taken.append)
    assert taken[0].kind == "failed"
    assert "ended 3 times; is there too little memory?" in taken[0].sentence
    assert job.folder.why_failed()["sentence"] == taken[0].sentence


def test_workers_that_cannot_work_at_all_end_the_run():
    job = SlideJob("s0", "s0.svs", 1.0, "", "", "", CohortSettings())

    def cannot(_: object) -> Outcome:
        raise ModuleNotFoundError("No module named 'napari_cpnn'")

    with in_process() as client, pytest.raises(CohortError, match="cannot work on s0: No module"):
        drive(client, iter([job]), lambda one: client.submit(cannot, one, pure=False), lambda _: None)


def test_options_of_clusters_are_passed_on(monkeypatch):
    given: dict[str, Any] = {}

    class Made:
        def __init__(self, **options: Any) -> None:
            given.update(options)

        def scale(self, *args: int, **keywords: int) -> None:
            given["scaled"] = (*args, *keywords.items())
            raise OSError("sbatch is not there")

    monkeypatch.setattr("napari_cpnn.cohort_run.clusters._class_of", lambda *_: Made)
    words = cluster_options(["queue=gpu", "cores=4", "job_extra_directives=['--gres=gpu:1']", "memory=16GB"])
    cluster = Cluster("slurm", words)
    with (
        pytest.raises(CohortError, match="kind slurm cannot be used: sbatch is not there"),
        open_client(cluster, CohortSettings(workers=7), 100),
    ):
        pass
    assert given == {**words, "scaled": (("jobs", 7),)}
    assert words["job_extra_directives"] == ["--gres=gpu:1"]


@pytest.mark.parametrize(
    ("cluster", "said"),
    [(Cluster("slurm"), "dask-jobqueue"), (Cluster("kubernetes"), "dask-kubernetes"), (Cluster("ssh"), "asyncssh")],
    ids=["slurm", "kubernetes", "ssh"],
)
def test_missing_packages_are_named(cluster, said, monkeypatch):
    import importlib

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(CohortError, match=f"pip install {said}"), open_client(cluster, CohortSettings(), 1):
        pass


def test_clusters_that_make_no_sense():
    with pytest.raises(CohortError, match="no cluster 'sge'"):
        Cluster("sge")  # type: ignore[arg-type]
    with pytest.raises(CohortError, match="give one of both"):
        Cluster("slurm", scheduler="tcp://10.0.0.1:8786")
    with pytest.raises(CohortError, match="key=value"):
        cluster_options(["cores"])


def test_workers_of_this_computer(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert n_local_workers(CohortSettings(), 100, 0) == 8
    assert n_local_workers(CohortSettings(threads=4), 100, 0) == 2
    assert n_local_workers(CohortSettings(), 3, 0) == 3
    assert n_local_workers(CohortSettings(), 100, 2) == 2
    assert n_local_workers(CohortSettings(workers=5), 100, 2) == 5
    assert [visible_devices(i, ["0", "1", "4"]) for i in range(4)] == ["0,1,4", "1,4,0", "4,0,1", "0,1,4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert gpus_of(CohortSettings()) == ("2", "3")
    assert gpus_of(CohortSettings(mapping=MappingSettings(device="cpu"))) == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus_of(CohortSettings()) == ()
