"""Clusters of dask.distributed: processes of this computer, a scheduler that runs, SLURM, SSH, Kubernetes."""

from __future__ import annotations

import ast
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_cpnn.errors import CohortError
from napari_cpnn.settings import CohortSettings

if TYPE_CHECKING:
    from distributed import Client

Kind = Literal["local", "slurm", "ssh", "kubernetes"]

#: How often a slide may end its worker before it counts as failed.
_DEATHS = 3


@dataclass(frozen=True)
class Cluster:
    """Where a run takes place.

    Attributes
    ----------
    kind
        ``"local"``: processes of this computer, one per GPU where there are some; ``"slurm"`` (dask-jobqueue),
        ``"ssh"`` (:class:`distributed.SSHCluster`), ``"kubernetes"`` (dask-kubernetes).
    options
        Passed on to the class of the kind: ``{"queue": "gpu", "walltime": "08:00:00"}``.
    scheduler
        Address of a scheduler that runs, such as ``"tcp://10.0.0.1:8786"``; instead of a kind.

    Examples
    --------
    >>> from napari_cpnn.cohort_run import Cluster
    >>> Cluster("slurm", {"queue": "gpu", "cores": 4, "memory": "16GB"}).kind
    'slurm'
    """

    kind: Kind = "local"
    options: dict[str, Any] = field(default_factory=dict)
    scheduler: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise CohortError(f"There is no cluster {self.kind!r}; choose one of {', '.join(get_args(Kind))}.")
        if self.scheduler and (self.kind != "local" or self.options):
            raise CohortError(
                "A scheduler that runs needs no kind of cluster and no options for one; give one of both."
            )


def cluster_options(words: Sequence[str]) -> dict[str, Any]:
    """Return options written as ``key=value``; values are Python literals, or else text.

    Examples
    --------
    >>> from napari_cpnn.cohort_run import cluster_options
    >>> cluster_options(["cores=4", "queue=gpu", "job_extra_directives=['--gres=gpu:1']"])
    {'cores': 4, 'queue': 'gpu', 'job_extra_directives': ['--gres=gpu:1']}
    """
    found: dict[str, Any] = {}
    for word in words:
        key, is_pair, text = word.partition("=")
        if not is_pair or not key.strip().isidentifier():
            raise CohortError(f"An option of a cluster is written as key=value, not as {word!r}.")
        try:
            found[key.strip()] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found[key.strip()] = text
    return found


def visible_devices(number: int, visible: Sequence[str]) -> str:
    """Return ``CUDA_VISIBLE_DEVICES`` of a worker: its own GPU comes first, as with dask-cuda.

    >>> visible_devices(1, ["0", "1", "2"])
    '1,2,0'
    """
    first = number % len(visible)
    return ",".join([*visible[first:], *visible[:first]])


def gpus_of(settings: CohortSettings) -> tuple[str, ...]:
    """Return the GPUs that local workers share; none where the device is not CUDA."""
    device = settings.mapping.device
    if device not in ("auto", "cuda"):
        return ()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(name.strip() for name in given.split(",") if name.strip() not in ("", "-1"))
    import torch

    return tuple(str(i) for i in range(torch.cuda.device_count()))


def n_local_workers(settings: CohortSettings, n_slides: int, n_gpus: int) -> int:
    """Return how many processes to start on this computer."""
    if settings.workers is not None:
        return min(settings.workers, max(1, n_slides))
    most = n_gpus or max(1, (os.cpu_count() or 1) // settings.threads)
    return min(most, max(1, n_slides))


@contextmanager
def open_client(cluster: Cluster, settings: CohortSettings, n_slides: int) -> Iterator[Client]:
    """Start or join a cluster; at the end, one that was started here ends.

    Raises
    ------
    CohortError
        If a package is missing, or the cluster cannot be started or reached.
    """
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise CohortError(
            "Workers need dask.distributed; pip install 'napari-cpnn[cluster]', or use this process with --workers 0."
        ) from error
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": _DEATHS}))
        try:
            there: Any = cluster.scheduler or stack.enter_context(_started(cluster, settings, n_slides))
            client = stack.enter_context(Client(there, set_as_default=False))  # type: ignore[no-untyped-call]
        except CohortError:
            raise
        except Exception as error:
            where = cluster.scheduler or f"a cluster of the kind {cluster.kind}"
            raise CohortError(f"{where} cannot be used: {str(error) or type(error).__name__}.") from error
        yield client


def _started(cluster: Cluster, settings: CohortSettings, n_slides: int) -> Any:
    options = dict(cluster.options)
    if cluster.kind == "local":
        return _local(settings, n_slides, options)
    n = max(1, settings.workers or 1)
    if cluster.kind == "ssh":
        return _ssh(options)
    if cluster.kind == "slurm":
        started = _class_of("dask_jobqueue", "SLURMCluster", "dask-jobqueue")(**options)
        started.scale(jobs=n)
        return started
    started = _class_of("dask_kubernetes.operator", "KubeCluster", "dask-kubernetes")(**options)
    started.scale(n)
    return started


def _class_of(module: str, name: str, package: str) -> Any:
    import importlib

    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise CohortError(f"This cluster needs {package}; pip install {package}.") from error


def _ssh(options: dict[str, Any]) -> Any:
    _class_of("asyncssh", "connect", "asyncssh")
    from distributed import SSHCluster

    hosts = options.pop("hosts", None)
    if isinstance(hosts, str):
        hosts = [name.strip() for name in hosts.split(",") if name.strip()]
    if not hosts:
        raise CohortError("A cluster over SSH needs its hosts, that of the scheduler first: hosts=a,b,c.")
    return SSHCluster(hosts, **options)


def _local(settings: CohortSettings, n_slides: int, options: dict[str, Any]) -> Any:
    """Return a cluster of processes of this computer, each with its own GPU where there are some."""
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = gpus_of(settings)
    threads = str(settings.threads)
    workers = {}
    for i in range(max(1, n_local_workers(settings, n_slides, len(gpus)))):
        env = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = visible_devices(i, gpus)
        # no limit of memory: a worker near a limit would be paused or ended in the middle of a slide
        given = {"nthreads": 1, "memory_limit": 0, "host": "127.0.0.1", "dashboard": False, "env": env}
        given |= {"silence_logs": logging.ERROR, **options}
        workers[i] = {"cls": Nanny, "options": given}
    options = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": options}
    return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)  # type: ignore[no-untyped-call]
