"""Train a CPNN on (slide, spots) pairs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from anndata import AnnData
from lightning.pytorch import Trainer

from napari_cpnn.arrays import IntArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import pearson, spearman, summarise_values
from napari_cpnn.models import (
    CPNN,
    build_model,
    choose_device,
    choose_precision,
    is_out_of_memory,
    load_model,
    start_backbone,
)
from napari_cpnn.progress import CancelledError, Progress, Reporting, counting, no_progress, reporter
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.slides import Slide
from napari_cpnn.training.data import Inputs, SpotData, SpotDataModule, check_samples, inputs_for, prepare
from napari_cpnn.training.fit.calibration import LineFit
from napari_cpnn.training.fit.domain import fit_domain
from napari_cpnn.training.fit.memory import kept_memory
from napari_cpnn.training.fit.module import CpnnTraining
from napari_cpnn.training.fit.processes import is_first_process, trainer_options, wait_for_all
from napari_cpnn.training.fit.recorder import EpochRow, Recorder, scores_for_card
from napari_cpnn.training.fit.run_folder import RunFolder
from napari_cpnn.training.fit.trust import fit_run_trust


def train(
    samples: Sequence[tuple[Slide, AnnData]],
    prototypes: Prototypes,
    settings: TrainingSettings | None = None,
    out: str | Path = "runs/cpnn",
    progress: Reporting = True,
    on_epoch: Callable[[EpochRow], None] | None = None,
    resume: bool = False,
) -> CPNN:
    """Train a model and return the epoch that predicts held-out spots best.

    Parameters
    ----------
    samples
        Slides with their spots, as from :func:`~napari_cpnn.open_slide` and :func:`~napari_cpnn.read_spots`. Genes
        shared by the prototypes and all spots are learned.
    prototypes
        As from :func:`~napari_cpnn.estimate_prototypes`. The linear head uses only their genes.
    settings
        ``settings.validation`` selects what is held out: a slide, or a contiguous quarter of a single one. The default
        is :class:`~napari_cpnn.TrainingSettings`.
    out
        Folder of the run, which is created; for its content see :mod:`napari_cpnn.training.fit.run_folder`. It must not
        contain a trained model. ``model.safetensors`` is replaced whenever the held-out PCC improves, so that a killed
        run leaves its best model (if nothing is held out, that of its last state); Ctrl-C ends the run after the
        current batch and returns it. Both can be resumed.
    progress
        Show a progress bar per epoch on stderr; or a function that is called with what is being done and its share.
    on_epoch
        Called after each epoch with its row of ``metrics.csv``.
    resume
        Resume the run in ``out`` after its last complete epoch (if it was killed, after its last state: one is written
        every five seconds, or seldomer where writing takes long);
        samples, prototypes and settings must be those that it was started with. A run without a complete epoch is
        restarted.

    Returns
    -------
    CPNN
        The best model, calibrated (see :mod:`napari_cpnn.training.fit.calibration`), in eval mode on the CPU.

    Raises
    ------
    TrainingError
        If data or settings do not allow training, the folder cannot be written, the run to be resumed is finished or
        was started with other inputs, or the loss is not finite; in the last case the best model so far is kept.
    GenesError, PixelSizeError, SlideError
        If samples cannot be used; for TRIPLEX also if a slide has no tissue.
    WeightsError, SettingsError
        If networks are unknown or weights unavailable; raised before any patch is read.

    Notes
    -----
    With ``settings.devices`` other than 1, each process runs this function; all return the same model, and only the
    first writes files. Correlations are computed over the batch of one process.

    On the CPU of one machine, with the same seed and number of threads, runs are bit-identical, whether or not they
    were killed and resumed.

    Examples
    --------
    >>> settings = nc.TrainingSettings(
    ...     backbone="squeezenet", weights="none", patch=nc.PatchSpec(32, 2.0), max_epochs=1, validation="none"
    ... )
    >>> trained = nc.train([(slide, spots[::4].copy())], protos, settings, out="runs/first", progress=False)
    >>> trained.cell_types == protos.cell_types
    True
    """
    settings = settings or TrainingSettings()
    device = choose_device(settings.device)
    # Report invalid names, weights or devices before minutes of reading patches.
    trainer_options(settings, device)
    folder = RunFolder(out, resume, writes=is_first_process(settings))
    state = folder.read_state() if resume else None
    if state is not None:
        state.require_same(settings, folder.path)
    checked = check_samples(samples, settings)
    inputs = inputs_for(settings)
    complete = inputs.complete(checked[0])
    backbone = start_backbone(complete)
    with folder.scratch() as scratch, _own_random_state(settings.seed), _quiet_lightning():
        shown = progress if folder.writes else False
        known = inputs.cache(backbone.network, scratch)
        data = prepare(checked, prototypes, settings, scratch, shown, known)
        if state is not None:
            state.require_same_data(data.key, folder.path)
        folder.write_settings(settings)
        chosen = prototypes.select(data.genes)
        model = build_model(
            # Models must not contain paths of the user's computer.
            complete.replace(patch_cache="auto", genes=Path(settings.genes).name),
            data.genes,
            chosen.cell_types,
            chosen.profiles,
            data.mean_expression(),
            backbone,
        )
        model.provenance.update(_provenance(data, prototypes))
        inputs.prepare(data, model, scratch, shown)
        inputs.standardise(model, data.train)
        module = CpnnTraining(model, inputs, settings, choose_precision(device, settings.precision), data.gene_weights)
        recorder = Recorder(module, folder, data.held_out_name, progress, on_epoch, data.key)
        if state is not None:
            module.restore(state.tensors)
            recorder.restore(state)
            recorder.print_line(f"Resuming after epoch {state.epoch} of the run in {folder.path}.")
        if state is not None and state.is_finished(settings, len(data.held_out) > 0):
            is_complete = True  # except for the steps after the last epoch
            recorder.close()
        else:
            is_complete = _run(module, SpotDataModule(data, inputs, settings), recorder, device)
        if folder.writes:
            _finish(folder, data, inputs, settings, reporter(progress))
            if is_complete:
                folder.drop_state()
        wait_for_all()
        return load_model(folder.model_path)


def _finish(
    folder: RunFolder, data: SpotData, inputs: Inputs, settings: TrainingSettings, progress: Progress = no_progress
) -> None:
    """Calibrate the best model and store its scores and domain with it."""
    best = load_model(folder.model_path)
    if settings.calibrate:
        _calibrate(best, data, inputs, progress)
    progress("learning the look of the tissue", 0.0)
    fit_domain(best, data, inputs, settings)
    if len(data.held_out):
        progress("testing on the held-out spots", 0.0)
    fit_run_trust(best, data, inputs)
    if len(data.held_out):
        best.provenance["metrics"] = {"held_out": _held_out_scores(best, data, inputs)}
    folder.write_model(best)


def _run(module: CpnnTraining, batches: SpotDataModule, recorder: Recorder, device: torch.device) -> bool:
    """Train; return whether the run is complete (not interrupted)."""
    trainer = Trainer(
        max_epochs=module.settings.max_epochs,
        **trainer_options(module.settings, device),
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if batches.has_held_out else 0,
    )
    done = dict.fromkeys(("ready", "started", "processed", "completed"), recorder.n_epochs)
    trainer.fit_loop.epoch_progress.current.load_state_dict(done)
    try:
        with recorder.listening_to_ctrl_c(), kept_memory() if device.type == "cpu" else nullcontext():
            trainer.fit(module, datamodule=batches)
    except CancelledError:
        if not recorder.has_model:
            raise TrainingError("Training was interrupted before the end of its first epoch: no model.") from None
        recorder.print_line(
            f"Interrupted: the best model so far, of epoch {recorder.best_epoch}, is kept; the run can be resumed."
        )
        return False
    except SystemExit as error:  # a second Ctrl-C, which Lightning converts to SystemExit
        raise KeyboardInterrupt from error
    except (TrainingError, RuntimeError, MemoryError) as error:
        kept = f" The best model so far is in {recorder.folder.model_path}." if recorder.has_model else ""
        if isinstance(error, TrainingError):
            raise TrainingError(f"{error}{kept}") from error
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"A batch of {module.settings.batch_size} patches does not fit into memory; lower batch_size.{kept}"
        ) from error
    finally:
        recorder.close()
    return True


def _provenance(data: SpotData, prototypes: Prototypes) -> dict[str, Any]:
    n_spots = np.bincount(data.slide_of[data.train], minlength=len(data.slides))
    # Numbers for patients: their names are not passed on with a model.
    known = [name for name in dict.fromkeys(data.patients) if name]
    patients = [{"patient": f"patient {known.index(name) + 1}"} if name else {} for name in data.patients]
    return {
        "training_data": [
            {"slide": slide, **patient, "n_spots": int(n)}
            for slide, patient, n in zip(data.slides, patients, n_spots, strict=True)
            if n
        ],
        "held_out": data.held_out_name,
        "prototypes": prototypes.provenance,
        **({"hierarchy": prototypes.hierarchy} if prototypes.hierarchy else {}),
    }


def _decoded(model: CPNN, inputs: Inputs, rows: IntArray) -> Iterator[tuple[IntArray, npt.NDArray[np.float32]]]:
    """Yield predicted expression of spots in parts, computed as in use of the model."""
    decoder = model.decoder()
    for part, weights, programs in inputs.predict(model, rows):
        yield part, decoder.expression(weights, programs, model.genes)


def _calibrate(model: CPNN, data: SpotData, inputs: Inputs, progress: Progress = no_progress) -> None:
    # An interrupted run was already calibrated; start from the identity, so that resuming changes nothing.
    model.scale.fill_(1.0)
    model.shift.zero_()
    lines = LineFit()
    with counting(progress, "calibrating the model", len(data.train), "spot") as count:
        for rows, predicted in _decoded(model, inputs, data.train):
            lines.add(predicted, data.targets[rows])
            count(len(rows))
    slope, intercept = (torch.from_numpy(values).to(model.scale) for values in lines.solve())
    model.scale.mul_(slope)
    model.shift.mul_(slope).add_(intercept)


def _held_out_scores(model: CPNN, data: SpotData, inputs: Inputs) -> dict[str, Any]:
    predicted = np.concatenate([values for _, values in _decoded(model, inputs, data.held_out)])
    measured = np.asarray(data.targets[data.held_out])
    pcc, scc = pearson(predicted, measured), spearman(predicted, measured)
    per_gene = {gene: round(float(r), 3) for gene, r in zip(data.genes, pcc, strict=True) if np.isfinite(r)}
    return {**scores_for_card(data.held_out_name, summarise_values(pcc, scc)), "per_gene_pcc": per_gene}


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed torch for the run and restore the caller's random state afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Suppress Lightning's messages about devices, workers and tips."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            warnings.filterwarnings(
                "ignore", message="Grad strides do not match"
            )  # warnings of torch with several processes
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
