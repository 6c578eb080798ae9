"""Lightning callback of a run: saves the best model and metrics, shows progress, stops early or on Ctrl-C."""

from __future__ import annotations

import dataclasses
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from tqdm import tqdm

from napari_cpnn.evaluation import Summary
from napari_cpnn.progress import CancelledError, Reporting, no_progress, reporter
from napari_cpnn.training.fit.module import VIEWS, CpnnTraining
from napari_cpnn.training.fit.resume import RunState
from napari_cpnn.training.fit.run_folder import RunFolder

EpochRow = dict[str, float]

#: Interval in seconds of updating the loss on the progress bar.
_SHOWN_SECONDS = 0.2

#: States of epochs (and their models, if nothing is held out) are written at least this many seconds apart, and as far
#: apart that writing takes at most this share of the time; also when the run ends or is interrupted. With a frozen
#: network, writing takes as long as an epoch. A run that is killed repeats what came after the last of them.
_STATE_SECONDS, _STATE_SHARE = 5.0, 0.01


class Recorder(Callback):
    """Callback that records a run; if nothing is held out (an empty name), the last model is the best."""

    def __init__(
        self,
        module: CpnnTraining,
        folder: RunFolder,
        held_out_name: str,
        progress: Reporting,
        on_epoch: Callable[[EpochRow], None] | None,
        data_key: str,
    ) -> None:
        self.best_epoch = 0
        self._module = module
        self.folder = folder
        self._held_out_name = held_out_name
        self._progress = progress is True and folder.writes
        self._report = no_progress if self._progress or not folder.writes else reporter(progress)
        self._on_epoch = on_epoch
        self._data_key = data_key
        self._history: list[EpochRow] = []
        self._best = -np.inf
        self._interrupted = threading.Event()
        self._bar: tqdm[Any] | None = None
        self._started = self._shown = 0.0
        self._held: RunState | None = None
        self._model_is_held = False
        self._copies: dict[str, Tensor] = {}
        self._constant: frozenset[str] = frozenset()
        self._due = -math.inf

    def restore(self, state: RunState) -> None:
        """Resume after the epochs of ``state``."""
        self._history, self._best, self.best_epoch = list(state.history), state.best, state.best_epoch

    @property
    def n_epochs(self) -> int:
        """Number of complete epochs, including those before the run was resumed."""
        return len(self._history)

    @property
    def has_model(self) -> bool:
        """True once a model has been written."""
        return self.best_epoch > 0

    def print_line(self, message: str) -> None:
        """Print a line in the terminal without disturbing the progress bar."""
        if self._progress:
            tqdm.write(message, file=sys.stderr)

    @contextmanager
    def listening_to_ctrl_c(self) -> Iterator[None]:
        """Handle Ctrl-C: the first one ends the run after the current batch, a second one immediately.

        The former is raised as :class:`CancelledError`, since Lightning would end the process on a
        :class:`KeyboardInterrupt`. Only Python's main thread can handle signals; in other threads, and if the process
        ignores Ctrl-C, nothing changes.
        """

        def handle(number: int, frame: FrameType | None) -> None:
            if self._interrupted.is_set():
                signal.default_int_handler(number, frame)
            self._interrupted.set()

        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGINT) in (None, signal.SIG_IGN):
            yield
            return
        previous = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Open the progress bar."""
        self._started = time.perf_counter()
        self._bar = tqdm(
            total=int(trainer.num_training_batches),
            desc=self._title(),
            disable=not self._progress,
            bar_format="{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]",
            unit=" batch",
        )

    def on_train_batch_end(self, trainer: Trainer, _module: Any, _outputs: Any, _batch: Any, index: int) -> None:
        """Advance the progress bar."""
        self._report(self._title(), (index + 1) / max(int(trainer.num_training_batches), 1))
        if self._bar is not None:
            self._bar.update()
            # Reading the loss synchronises with the device, so it is not done at each step.
            if self._progress and time.perf_counter() - self._shown > _SHOWN_SECONDS:
                self._shown = time.perf_counter()
                self._bar.set_description_str(f"{self._title()}, loss {self._module.losses['loss']:.3f}")
        self._check_interrupt()

    def on_validation_start(self, *_: Any) -> None:
        """Report the step."""
        self._report(f"{self._title()}, held-out spots", 0.0)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Check for Ctrl-C."""
        self._check_interrupt()

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Write the results of the epoch; Lightning has already run the validation."""
        epoch = self._module.current_epoch + 1
        row = self._row(epoch)
        self._history.append(row)
        started = time.monotonic()
        is_due = started >= self._due
        self._keep_if_best(epoch, is_due)
        self.folder.write_metrics(self._history)
        # The state is written last: if killed before, the epoch is repeated with the same result.
        state = self._state(epoch)
        if is_due:
            self.folder.write_state(state)
            self._held, now = None, time.monotonic()
            self._due = now + max(_STATE_SECONDS, (now - started) / _STATE_SHARE)
        else:
            self._hold(state)
        if self._bar is not None:
            self._bar.set_description_str(f"{self._title()}, {_in_words(row)}", refresh=False)
            self._bar.close()
        if state.is_finished(self._module.settings, bool(self._held_out_name)):
            trainer.should_stop = True
        if self._on_epoch is not None and self.folder.writes:
            try:
                self._on_epoch(dict(row))
            except KeyboardInterrupt:
                self._interrupted.set()
        self._check_interrupt()

    def _hold(self, state: RunState) -> None:
        """Hold a copy of the state of an epoch, in the memory of the last copy; what is constant is not copied."""
        self._held = None  # if this is interrupted, the copies belong together no longer
        if not self._copies:
            self._constant = self._module.constant_tensors
        for name, tensor in state.tensors.items():
            values = tensor.detach()
            if name in self._constant:
                self._copies[name] = values
            elif name in self._copies:
                self._copies[name].copy_(values)
            else:
                self._copies[name] = values.to("cpu", copy=True)
        self._held = dataclasses.replace(state, history=list(state.history), tensors=self._copies)

    def close(self) -> None:
        """Write what was held of the last complete epoch, and plot the curves of all."""
        if self._bar is not None:
            self._bar.close()
        if self._held is not None:
            if self._model_is_held:  # it may be some steps further by now
                self._module.restore(self._held.tensors)
                self.folder.write_model(self._module.chosen_model)
            self.folder.write_state(self._held)
            self._held = None
        if self._history:
            settings = self._module.settings
            held_out = f", held out: {self._held_out_name}" if self._held_out_name else ""
            self.folder.write_curves(self._history, f"{settings.backbone}, {settings.head} head{held_out}")

    def _title(self) -> str:
        return f"epoch {self._module.current_epoch + 1}/{self._module.settings.max_epochs}"

    def _state(self, epoch: int) -> RunState:
        return RunState(
            epoch=epoch,
            best=float(self._best),
            best_epoch=self.best_epoch,
            history=self._history,
            settings=self._module.settings.to_dict(),
            data_key=self._data_key,
            tensors=self._module.run_tensors(),
        )

    def _row(self, epoch: int) -> EpochRow:
        losses, held_out = self._module.losses_of_all(), self._module.held_out
        return {
            "epoch": epoch,
            "loss": losses["loss"],
            "expression_loss": losses["expression"],
            "prototype_loss": losses.get("prototypes", 0.0),
            "composition_loss": losses.get("composition", 0.0),
            **{f"{view}_loss": losses[view] for view in VIEWS if view in losses},
            "held_out_pcc": held_out["pcc"],
            "held_out_scc": held_out["scc"],
            "seconds": time.perf_counter() - self._started,
        }

    def _keep_if_best(self, epoch: int, is_due: bool) -> None:
        held_out = self._module.held_out
        score = held_out["pcc"] if self._held_out_name else float(epoch)
        # Constant predictions have no correlation; the first model is kept nevertheless.
        if self.has_model and not score > self._best:
            return
        model = self._module.chosen_model
        model.provenance["epoch"] = epoch
        if self._held_out_name:
            model.provenance["metrics"] = {"held_out": scores_for_card(self._held_out_name, held_out)}
        # If nothing is held out, each epoch is better than the one before, and its model is written with its state.
        self._model_is_held = not self._held_out_name and not is_due
        if not self._model_is_held:
            self.folder.write_model(model)
        self._best, self.best_epoch = (score if np.isfinite(score) else -np.inf), epoch

    def _check_interrupt(self) -> None:
        if self._interrupted.is_set():
            raise CancelledError


def _in_words(row: EpochRow) -> str:
    held_out = f", held-out PCC {row['held_out_pcc']:.3f}" if np.isfinite(row["held_out_pcc"]) else ""
    return f"loss {row['loss']:.3f}{held_out}, {row['seconds']:.1f} s"


def scores_for_card(slide: str, summary: Summary) -> dict[str, Any]:
    """Held-out scores in the format stored with a model."""
    return {
        "slide": slide,
        "pcc_mean": round(summary["pcc"], 4),
        "scc_mean": round(summary["scc"], 4),
        "n_genes": summary["n_genes"],
    }
