"""Controller of the Fine-tune dock: samples, settings, and training in a child process. No Qt here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cpnn.errors import CpnnError, TrainingError
from napari_cpnn.settings import TRAINING_PRESETS, TrainingSettings
from napari_cpnn.training.jobs import CellsFile, SampleFiles, TrainingJob
from napari_cpnn.ui.finetune.inputs import SampleRow, as_changes, inspect_sample, moved_by, start_from
from napari_cpnn.ui.finetune.run import FollowedRun
from napari_cpnn.ui.frame import Choices, SettingsEditor, Tasks, as_cpnn_error
from napari_cpnn.ui.layers import is_slide_path
from napari_cpnn.ui.viewer import Reference, inspect_reference

if TYPE_CHECKING:
    from napari_cpnn.ui.frame import Background
    from napari_cpnn.ui.viewer import ExploreState

#: What the user chooses, and can undo.
_CHOICES = (
    "samples",
    "waiting",
    "reference",
    "cell_type",
    "batch",
    "min_cells",
    "preset",
    "changes",
    "start_model",
    "out",
)


class FineTuneController:
    """Collects samples, reference and settings of a run, and trains.

    Parameters
    ----------
    state
        State of the viewer, through which the Explore dock shows the models.
    background, notify
        As for :class:`~napari_cpnn.ui.frame.tasks.Tasks`.

    Attributes
    ----------
    samples, reference
        The training data.
    waiting
        Spots that were chosen before their slide.
    cell_type, batch
        Columns of the single cells.
    min_cells
        Of single cells: number of cells in which a gene must be found; None: by the number of cells.
    preset, changes
        The settings: a preset, and the values that differ from it.
    editor
        Changes single settings.
    start_model
        Model that the run starts from.
    out
        The run folder; None: a new one beside the first spots.
    run
        The run that is shown.
    renew
        True to show each better model at once.
    """

    samples_changed = Signal()
    reference_changed = Signal()

    def __init__(self, state: ExploreState, background: Background, notify: Callable[[CpnnError], None]) -> None:
        self.state = state
        self.samples: list[SampleRow] = []
        self.waiting: list[Path] = []
        self.reference: Reference | None = None
        self.cell_type: str | None = None
        self.batch: str | None = None
        self.min_cells: int | None = None
        self.preset = "ours"
        self.changes: dict[str, Any] = {}
        self.start_model: Path | None = None
        self.out: Path | None = None
        self.renew = False
        self._background = background
        self._tasks = Tasks(background, notify, lambda: "" if self.run.running else self.why_not())
        self._choices = Choices(self, _CHOICES, state.history, self._restored)
        self.editor = SettingsEditor(self._tasks, self._choices, lambda: self.settings, self._set_setting)
        self.settings_changed, self.message_changed = self.editor.changed, self._tasks.message_changed
        self.run = FollowedRun(background, self._tasks)
        self.run.improved.connect(self._improved)
        state.reference_wanted.connect(self.choose_reference)
        self._tasks.update()

    @property
    def message(self) -> str:
        """The last problem, what is running, or what to do next."""
        return self._tasks.message

    # -- samples -------------------------------------------------------------------------------------------

    def add_sample(self, files: SampleFiles) -> None:
        """Add a slide with its spots; they are read in the background."""
        self._choices.record(f"add {files.spots.name}")
        self._add(files)

    def _add(self, files: SampleFiles) -> None:
        self.samples.append(SampleRow(files))
        self._inspect(len(self.samples) - 1)

    def add_spots(self, spots: Path, slide: SampleFiles | None) -> None:
        """Add spots with the files of their slide; without these, keep them until :meth:`pair` is called."""
        if slide is not None:
            self.add_sample(dataclasses.replace(slide, spots=spots))
            return
        self._choices.record(f"add {spots.name}")
        self.waiting.append(spots)
        self.samples_changed.emit()
        self._tasks.set_problem(None)

    def pair(self, slide: SampleFiles, number: int = 0) -> bool:
        """Add a slide with spots that wait for one; return False if none do."""
        if not self.waiting:
            return False
        self._choices.record(f"slide {slide.slide.name}")
        self._add(dataclasses.replace(slide, spots=self.waiting.pop(min(number, len(self.waiting) - 1))))
        return True

    def remove_waiting(self, number: int) -> None:
        self._choices.record(f"remove {self.waiting[number].name}")
        del self.waiting[number]
        self.samples_changed.emit()
        self._tasks.set_problem(None)

    def add_files(self, paths: Sequence[Path], slide: SampleFiles | None = None) -> None:
        """Add samples from dropped files: slides (see :func:`is_slide_path`) are paired with spots in order.

        Spots without a slide among the files belong to ``slide``, or wait for theirs; slides without spots are paired
        with spots that wait.
        """
        slides = [path for path in paths if is_slide_path(path)]
        spots = [path for path in paths if path not in slides]
        if not slides:
            for path in spots:
                self.add_spots(path, slide)
        elif not spots and len(slides) <= len(self.waiting):
            for one in slides:
                self.pair(SampleFiles(one, Path()))
        elif slides and len(slides) == len(spots):
            for one, its_spots in zip(slides, spots, strict=True):
                self.add_sample(SampleFiles(one, its_spots))
        else:
            self._tasks.fail(TrainingError("Drop one slide and its spots together, or spots when a slide is chosen."))

    def set_positions(self, number: int, path: Path) -> None:
        """Set the table of positions of a sample of legacy ST."""
        self._choices.record(f"positions {path.name}")
        self.samples[number] = SampleRow(dataclasses.replace(self.samples[number].files, positions=path))
        self._inspect(number)

    def remove_sample(self, number: int) -> None:
        self._choices.record(f"remove {self.samples[number].files.spots.name}")
        del self.samples[number]
        self.samples_changed.emit()
        self._tasks.set_problem(None)

    def apply_fix(self, number: int, fix: int = 0) -> None:
        """Move the positions of a sample by one of the proposed fixes."""
        row = self.samples[number]
        if row.fit is not None and fix < len(row.fit.fixes):
            self._choices.record("move the spots")
            self.samples[number] = SampleRow(moved_by(row.files, row.fit.fixes[fix].matrix))
            self._inspect(number)

    def undo_fix(self, number: int) -> None:
        """Use the positions of the file again."""
        self._choices.record("spots as in the file")
        self.samples[number] = SampleRow(dataclasses.replace(self.samples[number].files, moved=None))
        self._inspect(number)

    def _inspect(self, number: int) -> None:
        asked = self.samples[number]
        self.samples_changed.emit()
        self._tasks.set_problem(None)

        def put(row: SampleRow) -> None:
            if asked in self.samples:  # rows are compared by identity: it may have been removed or moved
                self.samples[self.samples.index(asked)] = row
                self.samples_changed.emit()
                self._tasks.update()

        def failed(error: Exception) -> None:
            put(dataclasses.replace(asked, busy=False, problem=str(as_cpnn_error(error))))

        self._background(lambda: inspect_sample(asked.files), put, failed)

    # -- prototypes ----------------------------------------------------------------------------------------

    def choose_reference(self, path: str | Path) -> None:
        """Choose a file of prototypes, or of single cells."""
        self._choices.record(f"cell types {Path(path).name}")
        self._read_reference(Path(path), None)

    def choose_columns(self, cell_type: str, batch: str | None = None) -> None:
        """Choose the columns of the cell type and of the batch."""
        self._choices.record("columns of the single cells")
        self.cell_type, self.batch = cell_type, batch
        self.reference_changed.emit()
        self._tasks.set_problem(None)

    def choose_min_cells(self, n: int | None) -> None:
        """Choose in how many of the single cells a gene must be found; None: by their number."""
        if n is not None and n < 0:
            self._tasks.fail(TrainingError("The number of cells cannot be negative."))
        elif n != self.min_cells:
            self._choices.record("min cells", "min cells")
            self.min_cells = n
            self._tasks.set_problem(None)
        self.reference_changed.emit()

    # -- settings ------------------------------------------------------------------------------------------

    @property
    def settings(self) -> TrainingSettings:
        """The settings of the run."""
        return TRAINING_PRESETS[self.preset](**self.changes)

    def choose_preset(self, name: str) -> None:
        """Choose a preset; settings that the user changed are kept."""
        self._choices.record(f"preset {name}")
        self.preset = name
        self.settings_changed.emit()
        self._tasks.set_problem(None)

    def change(self, name: str, value: Any) -> bool:
        """Change one setting; return whether its value was accepted."""
        return self.editor.change(name, value)

    def _set_setting(self, name: str, changed: TrainingSettings) -> None:
        self.changes[name] = getattr(changed, name)
        if self.changes[name] == getattr(TRAINING_PRESETS[self.preset](), name):
            del self.changes[name]  # a default again
        if name in ("weights", "backbone") and self.start_model is not None:
            self.start_model = None  # its weights do not fit another network
            if name == "backbone":
                self.changes.pop("weights", None)

    def choose_defaults(self) -> None:
        """Use the defaults of the preset for all settings."""
        self._choices.record("defaults")
        self.changes, self.start_model = {}, None
        self.settings_changed.emit()
        self._tasks.set_problem(None)

    def choose_start(self, path: str | Path | None) -> None:
        """Start from the image network of a trained model; None: from the weights in the settings."""
        self._choices.record("start from")
        if path is None:
            self.start_model = None
            for name in ("weights", "backbone", "patch"):
                self.changes.pop(name, None)
            self.settings_changed.emit()
            self._tasks.set_problem(None)
            return
        path = Path(path).absolute()

        def ready(changes: dict[str, Any]) -> None:
            self.changes.update(changes)
            self.start_model = path
            self.settings_changed.emit()

        self._tasks.run("start", f"Reading {path.name} ...", lambda: start_from(path), ready)

    def choose_out(self, path: str | Path | None) -> None:
        """Choose the folder of the next run."""
        self._choices.record("run folder")
        self.out = None if path is None else Path(path).expanduser().absolute()
        self.settings_changed.emit()
        self._tasks.set_problem(None)

    def run_folder(self) -> Path | None:
        """Return the folder of the next run: the chosen one, or the first free one beside the spots."""
        if self.out is not None or not self.samples:
            return self.out
        parent = self.samples[0].files.spots.absolute().parent / "cpnn-runs"
        number = 1
        while (parent / f"run-{number}").exists():
            number += 1
        return parent / f"run-{number}"

    # -- the run -------------------------------------------------------------------------------------------

    def why_not(self) -> str:
        """Tell what is missing for a run; empty when it can start."""
        if self.waiting:
            return f"Choose the slide of {self.waiting[0].name}."
        if not self.samples:
            return "Add a slide with its spots."
        if any(row.busy for row in self.samples):
            return "Reading slides and spots ..."
        bad = [row for row in self.samples if not row.usable]
        if bad:
            return bad[0].problem
        if self.reference is None:
            return "Choose prototypes, or single cells to make them from."
        if self.reference.kind == "cells" and self.cell_type is None:
            return "Choose the column of the cell type."
        return ""

    def job(self) -> TrainingJob:
        """Return the run that would be started now."""
        reason, out = self.why_not(), self.run_folder()
        if reason or self.reference is None or out is None:
            raise TrainingError(reason or "Choose a run folder.")
        prototypes: Path | CellsFile = self.reference.path
        if self.reference.kind == "cells":
            prototypes = CellsFile(self.reference.path, str(self.cell_type), self.batch, self.min_cells)
        return TrainingJob(tuple(row.files for row in self.samples), prototypes, self.settings, out)

    def train(self) -> None:
        """Start a new run."""
        try:
            job = self.job()
        except CpnnError as error:
            self._tasks.fail(error)
        else:
            self.run.start(job)

    def open_run(self, folder: str | Path) -> None:
        """Show the run of a folder, whoever started it, and take over its samples and settings."""
        self.run.open(Path(folder), self._take_over)

    # -- the models ----------------------------------------------------------------------------------------

    def show_after(self) -> None:
        """Map with the best model of the run."""
        if self.run.model is not None:
            self.state.want_model(self.run.model)

    def show_before(self) -> None:
        """Map with the model that the run started from."""
        if self.start_model is not None:
            self.state.want_model(self.start_model)

    def close(self) -> None:
        """Ignore results from now on; a run continues, and can be opened again by its folder."""
        self.state.reference_wanted.disconnect(self.choose_reference, missing_ok=True)
        self._tasks.close()
        self.run.close()
        self.samples, self.waiting = [], []  # results about them come too late
        self.state.history.forget(self)

    # -- inside --------------------------------------------------------------------------------------------

    def _restored(self, _replaced: dict[str, Any]) -> None:
        self.reference_changed.emit()
        self.settings_changed.emit()
        self.samples_changed.emit()
        self._tasks.set_problem(None)
        for number, row in enumerate(self.samples):
            if row.busy:  # its result arrived while it was not in the list
                self._inspect(number)

    def _improved(self, model: Path) -> None:
        if self.renew:
            self.state.want_model(model)

    def _take_over(self, job: TrainingJob) -> None:
        self._choices.record(f"settings of {job.out.name}")
        self.preset, self.changes = as_changes(job.settings)
        start = Path(job.settings.weights)
        self.start_model = start if start.suffix == ".safetensors" and start.exists() else None
        self.out = None
        self.samples, self.waiting = [], []
        for files in job.samples:
            self._add(files)
        self.settings_changed.emit()
        source = job.prototypes
        if isinstance(source, CellsFile):
            self.min_cells = source.min_cells
            self._read_reference(source.path, (source.cell_type, source.batch))
        else:
            self._read_reference(source, None)

    def _read_reference(self, path: Path, columns: tuple[str, str | None] | None) -> None:
        def ready(reference: Reference) -> None:
            self.reference = reference
            self.cell_type, self.batch = columns or (reference.likely_column(), None)
            self.reference_changed.emit()

        self._tasks.run("reference", f"Reading {path.name} ...", lambda: inspect_reference(path), ready)
