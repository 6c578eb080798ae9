"""What runs on the workers of a cluster: the model, loaded once per worker, and the work of a slide with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, worker_client

from napari_cpnn.cohort_run.slide_job import Outcome, SlideJob, run_slide
from napari_cpnn.errors import CohortError

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN

#: The model of this worker, by its fingerprint.
_MODELS: dict[str, Any] = {}


class ModelPlugin(WorkerPlugin):
    """Load the model when a worker starts, also when it takes the place of one that was killed.

    Parameters
    ----------
    model
        Path of the file, which workers must be able to open, or the model itself.
    fingerprint
        Of the model of the run.
    threads
        Threads of torch.
    """

    name = "napari-cpnn model"

    def __init__(self, model: CPNN | str | Path, fingerprint: str, threads: int) -> None:
        self.model, self.fingerprint, self.threads = model, fingerprint, threads

    def setup(self, worker: Any) -> None:  # noqa: ARG002 -- as distributed calls it
        import torch

        from napari_cpnn.models import load_model

        torch.set_num_threads(self.threads)
        if self.fingerprint in _MODELS:
            return
        model = load_model(self.model) if isinstance(self.model, (str, Path)) else self.model
        if model.fingerprint != self.fingerprint:
            raise CohortError(f"{self.model} is another file on a worker than where the run was started.")
        _MODELS.clear()
        _MODELS[self.fingerprint] = model


def run_on_worker(job: SlideJob, fingerprint: str, split: bool) -> Outcome:
    """Do the work of a slide on this worker; the blocks of a large one are mapped by all workers (``split``)."""
    return run_slide(job, _MODELS[fingerprint], worker_client if split else None)
