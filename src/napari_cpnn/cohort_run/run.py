"""A run over a cohort: slides are handed to workers, a few at a time, and can be taken up again at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cpnn._version import __version__
from napari_cpnn.cohort import Cohort
from napari_cpnn.cohort_run.clusters import Cluster, open_client
from napari_cpnn.cohort_run.folder import PROGRESS_FILE, CohortStatus, RunFolder, cohort_status, write_json
from napari_cpnn.cohort_run.report import write_cohort_report
from napari_cpnn.cohort_run.slide_job import Outcome, SlideJob, job_key, map_facts, note_failure, run_slide
from napari_cpnn.counts import require_genes
from napari_cpnn.errors import CohortError
from napari_cpnn.settings import CohortSettings
from napari_cpnn.storage import key_of, remove
from napari_cpnn.untrusted import reason_of

if TYPE_CHECKING:
    from distributed import Client

    from napari_cpnn.models import CPNN

#: Slides at hand for each thread of a worker: work for some seconds, between a least and a most number of slides.
_AHEAD_SECONDS, _LEAST_AHEAD, _MOST_AHEAD = 2.0, 3, 50
#: Seconds between two looks at how many workers there are.
_LOOK_SECONDS = 5.0
_TELL_SECONDS = 1.0


@dataclass(frozen=True)
class CohortProgress:
    """How far a run is: numbers of slides, the last one, and an estimate of the seconds left (NaN: unknown)."""

    total: int
    done: int
    failed: int
    seconds_left: float
    last: Outcome | None = None


ProgressHook = Callable[[CohortProgress], None]


def run_cohort(
    cohort: Cohort,
    model: CPNN | str | Path,
    out: str | Path,
    settings: CohortSettings | None = None,
    *,
    cluster: Cluster | None = None,
    strict: bool = False,
    overwrite: bool = False,
    on_progress: ProgressHook | None = None,
) -> CohortStatus:
    """Map all slides of a cohort, with quality control, tables, pictures and a report.

    A slide that is complete is not done again, and the map of a slide that was interrupted goes on where it was, so the
    same call takes up a run that ended in any way. Results are the same to the last bit for any number of workers on
    processors of one kind. In a script, call it below ``if __name__ == "__main__":``, as processes are started.

    Parameters
    ----------
    cohort
        The slides.
    model
        File or name of the model, which all workers must be able to open, or the model itself.
    out
        Folder of the results, on a disk that all workers share.
    settings
        Workers, quality control, tables, and the settings of the maps.
    cluster
        Where it takes place; by default on this computer.
    strict
        Stop at the first slide that fails. Otherwise its reason is noted, and it is tried again by the next call.
    overwrite
        Go over the slides of a run with another model or other settings again.
    on_progress
        Called after each slide.

    Returns
    -------
    CohortStatus
        Numbers of slides, and why slides failed. The results are in ``out``: ``report.html`` is a place to begin.

    Raises
    ------
    CohortError
        If the folder is in use, or holds another run; if nothing can be written any more; with ``strict``, if a slide
        fails.

    Examples
    --------
    >>> import pandas as pd
    >>> pd.DataFrame({"slide": [folder / "slide.tiff"]}).to_csv("one.csv", index=False)
    >>> settings = nc.CohortSettings(workers=0, mapping=nc.MappingSettings(stride_um=448.0))
    >>> status = nc.run_cohort(nc.read_cohort("one.csv"), folder / "model.safetensors", "results", settings)
    >>> status.slides, status.done, status.failed
    (1, 1, {})
    """
    settings, folder = settings or CohortSettings(), RunFolder(out)
    with folder.held():
        loaded = _loaded(model)
        require_genes(loaded.genes, settings.gene_list, "the model")
        facts = _run_facts(loaded, settings) | {"model_file": _file_of(model)}
        folder.begin(cohort, facts, overwrite=overwrite)
        jobs = _Jobs(cohort, folder, facts["key"], settings)
        run = _Run(jobs, folder, strict, on_progress)
        if run.waiting:
            source = str(model) if isinstance(model, (str, Path)) else loaded
            _go(run, loaded, source, settings, cluster or Cluster())
        remove(folder.path / PROGRESS_FILE)
        write_cohort_report(folder.path)
    return cohort_status(out)


def _loaded(model: CPNN | str | Path) -> CPNN:
    if not isinstance(model, (str, Path)):
        return model
    from napari_cpnn.models import load_model

    return load_model(model)


def _file_of(model: CPNN | str | Path) -> str:
    """Return the file or the name of a model, by which a viewer can open it; empty for one in memory."""
    if not isinstance(model, (str, Path)):
        return ""
    return str(Path(model).expanduser().absolute()) if Path(model).expanduser().is_file() else str(model)


def _run_facts(model: CPNN, settings: CohortSettings) -> dict[str, Any]:
    """Return what the run is of; ``key`` is of everything that results depend on."""
    ours = {k: v for k, v in settings.to_dict().items() if k not in ("workers", "threads", "split_patches", "mapping")}
    facts: dict[str, Any] = {"fingerprint": model.fingerprint, "settings": ours, "map": map_facts(settings.mapping)}
    return {
        "format": 1,
        "key": key_of(facts),
        "software": f"napari-cpnn {__version__}",
        "model": model.title,
        "trained_on": model.trained_on,
        "cell_types": list(model.cell_types),
        "hierarchy": dict(model.hierarchy),
        **facts,
    }


@dataclass(frozen=True)
class _Jobs:
    """Makes the jobs of slides, one by one when they are needed."""

    cohort: Cohort
    folder: RunFolder
    run_key: str
    settings: CohortSettings

    def of(self, name: str) -> SlideJob:
        row: dict[Any, Any] = self.cohort.table.loc[name].to_dict()
        regions = self._regions(row)
        path, mpp = str(row["path"]), float(row["mpp"])
        key = job_key(self.run_key, path, mpp, regions)
        return SlideJob(name, path, mpp, regions, str(self.folder.slide(name).path.absolute()), key, self.settings)

    def _regions(self, row: dict[Any, Any]) -> str:
        """Return the path of the regions of a slide; relative to the manifest."""
        column = self.settings.regions
        value = row.get(column)
        if not isinstance(value, str) or not value.strip():
            return ""
        base = self.cohort.source.parent if self.cohort.source is not None else Path()
        return str((base / Path(value).expanduser()).absolute())


@dataclass
class _Run:
    """Slides that are to be done, and what became of them so far."""

    jobs: _Jobs
    folder: RunFolder
    strict: bool
    on_progress: ProgressHook | None
    waiting: list[str] = field(default_factory=list)
    done: int = 0
    failed: int = 0
    started: float = field(default_factory=time.monotonic)
    told: float = -math.inf

    def __post_init__(self) -> None:
        for name in self.jobs.cohort.names:
            job = self.jobs.of(name)
            if job.folder.is_done(job.key):
                self.done += 1
            else:
                self.waiting.append(name)
        self.before = self.done

    @property
    def total(self) -> int:
        return len(self.jobs.cohort)

    def take(self, outcome: Outcome) -> None:
        """Note what became of a slide; :class:`CohortError` where the run ends with it."""
        if outcome.kind == "stop":
            raise CohortError(f"{outcome.sentence} Make room, and give the same command again: it goes on from here.")
        self.done += outcome.kind == "done"
        self.failed += outcome.kind == "failed"
        now = time.monotonic()
        n_now = self.done - self.before + self.failed
        left = self.total - self.done - self.failed
        seconds = (now - self.started) / n_now * left if n_now else math.nan
        if now - self.told >= _TELL_SECONDS:
            self.told = now
            facts = {"total": self.total, "done": self.done, "failed": self.failed, "seconds_left": round(seconds, 1)}
            write_json(self.folder.path / PROGRESS_FILE, facts)
        if self.on_progress:
            self.on_progress(CohortProgress(self.total, self.done, self.failed, seconds, outcome))
        if self.strict and outcome.kind == "failed":
            raise CohortError(outcome.sentence)


def _go(run: _Run, model: CPNN, source: CPNN | str, settings: CohortSettings, cluster: Cluster) -> None:
    if settings.workers == 0:
        with _torch_threads(settings.threads):
            for name in run.waiting:
                run.take(run_slide(run.jobs.of(name), model))
        return
    with open_client(cluster, settings, len(run.waiting)) as client:
        from napari_cpnn.cohort_run.plugin import ModelPlugin, run_on_worker

        alone = cluster.kind == "local" and not cluster.scheduler and settings.workers == 1
        fingerprint = model.fingerprint
        client.register_plugin(ModelPlugin(source, fingerprint, settings.threads))

        def submit(job: SlideJob) -> Any:
            return client.submit(run_on_worker, job, fingerprint, not alone, pure=False)

        drive(client, map(run.jobs.of, run.waiting), submit, run.take)


def drive(
    client: Client, jobs: Iterator[SlideJob], submit: Callable[[SlideJob], Any], take: Callable[[Outcome], None]
) -> None:
    """Hand jobs to the workers of a cluster, so that each has the next one at hand and the head holds only these.

    Raises
    ------
    CohortError
        If workers cannot work at all, or ``take`` ends the run.
    """
    from distributed import KilledWorker, as_completed

    under_way: dict[str, SlideJob] = {}
    started, looked, n_threads, n_done = time.monotonic(), -math.inf, 1, 0
    futures: Any = as_completed(loop=client.loop, with_results=True, raise_errors=False)  # type: ignore[no-untyped-call]

    def refill() -> None:
        nonlocal looked, n_threads
        now = time.monotonic()
        if now - looked > _LOOK_SECONDS:
            looked, n_threads = now, max(1, sum(client.nthreads().values()))  # type: ignore[no-untyped-call]
        pace = n_done / max(now - started, 1e-3) / n_threads
        ahead = min(max(math.ceil(_AHEAD_SECONDS * pace), _LEAST_AHEAD), _MOST_AHEAD)
        for job in islice(jobs, max(0, ahead * n_threads - len(under_way))):
            future = submit(job)
            under_way[future.key] = job
            futures.add(future)

    refill()
    for future, result in futures:
        job, status = under_way.pop(future.key), future.status
        error = future.exception() if status == "error" else None
        del future
        if isinstance(error, KilledWorker):
            result = note_failure(
                job, f"{job.path}: the process that worked on it ended {_times(error)}; is there too little memory?"
            )
        elif error is not None:
            raise CohortError(f"The workers cannot work on {job.name}: {reason_of(error)}.") from error
        elif status != "finished":
            raise CohortError("The cluster was lost; give the same command again: it goes on from here.")
        take(result)
        n_done += 1
        refill()


def _times(error: Any) -> str:
    failures = getattr(error, "allowed_failures", None)
    return "several times" if failures is None else f"{failures + 1} times"


@contextmanager
def _torch_threads(n: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
