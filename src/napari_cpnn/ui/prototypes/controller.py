"""What the Prototypes dock does, without Qt: read single cells, estimate prototypes, and give them away."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cpnn.errors import CellsError, CpnnError, PrototypesError, SettingsError
from napari_cpnn.progress import CancelledError
from napari_cpnn.settings import PrototypeSettings
from napari_cpnn.storage import write_csv, write_figure
from napari_cpnn.ui.frame import DPI, Paper, Tasks
from napari_cpnn.ui.prototypes.marker_chart import HeatMap, heat_map, marker_figure
from napari_cpnn.ui.prototypes.words import Result, TypeLine, lines_of_labels, lines_of_prototypes
from napari_cpnn.ui.viewer import LabelColumn, Reference, read_reference

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.ui.frame import Background
    from napari_cpnn.ui.viewer import ExploreState

#: Markers of each type that are kept, listed and exported.
N_MARKERS = 50
_TABLES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
#: What the user chooses, and can take back.
_CHOICES = ("reference", "annotations", "cell_type", "batch", "settings", "result", "gene", "selected", "n_shown")
#: A reference with fewer cells than this many times ``min_cells`` loses many genes by it.
_FEW = 75


class PrototypesController:
    """The tasks of the Prototypes dock.

    Parameters
    ----------
    state
        Of the viewer: the Fine-tune dock that listens to it takes the prototypes.
    background
        How slow work is run.
    notify
        Called with a :class:`CpnnError` that the user must see.

    Attributes
    ----------
    reference, annotations
        Single cells, and the table that labels them when they do not do so themselves.
    cell_type, batch
        Columns of the single cells.
    settings
        Of the next estimate.
    result
        The prototypes that are shown.
    gene, selected, n_shown
        The gene that was asked for, the cell type whose markers are listed, and how many of each type are in the heat
        map.
    """

    source_changed = Signal()
    settings_changed = Signal()
    run_changed = Signal()
    result_changed = Signal()
    shown_changed = Signal()
    message_changed = Signal(str)

    def __init__(self, state: ExploreState, background: Background, notify: Callable[[CpnnError], None]) -> None:
        self.state = state
        self.reference: Reference | None = None
        self.annotations: Path | None = None
        self.cell_type: str | None = None
        self.batch: str | None = None
        self.settings = PrototypeSettings()
        self.result: Result | None = None
        self.gene, self.selected, self.n_shown = "", "", 3
        self.message = ""
        self._opened: tuple[Reference, AnnData] | None = None
        self._stop, self._started = Event(), 0.0
        self._progress = ("", 0.0)
        self._tasks = Tasks(background, notify, self._say)
        self._say()

    # -- single cells --------------------------------------------------------------------------------------

    def open(self, *paths: str | Path) -> None:
        """Take single cells, with a table of their labels or without; show prototypes; or take labels for the cells."""
        tables = [path for path in map(Path, paths) if path.name.lower().endswith(_TABLES)]
        others = [path for path in map(Path, paths) if path not in tables]
        if len(tables) > 1 or len(others) > 1:
            self._tasks.fail(CellsError("Open one file of single cells at a time, alone or with one table of labels."))
        elif others:
            self._read(others[0], *tables)
        elif self.reference is None:
            self._tasks.fail(CellsError(f"Choose the single cells first that {tables[0].name} has the labels of."))
        else:
            self._read(self.reference.path, tables[0])

    def choose_columns(self, cell_type: str, batch: str | None = None) -> None:
        """Columns of the cell type and of the batch."""
        self._can_undo("columns of the single cells")
        self.cell_type, self.batch = cell_type, batch
        self.source_changed.emit()
        self._tasks.set_problem(None)

    def column(self, name: str | None) -> LabelColumn | None:
        """A column of the single cells with its labels."""
        columns = () if self.reference is None else self.reference.columns
        return next((column for column in columns if column.name == name), None)

    def preview(self) -> list[TypeLine]:
        """The labels of the chosen column; none when the prototypes that are shown were made from it."""
        column = self.column(self.cell_type)
        made = None if self.result is None else self.result.made_from
        if column is None or self.reference is None:
            return []
        if made is not None and made[:2] == (self.reference.path, column.name):
            return []
        return lines_of_labels(column.counts, self.settings.min_cells_per_type)

    # -- settings ------------------------------------------------------------------------------------------

    def change(self, name: str, value: Any) -> bool:
        """Change one setting; one that makes no sense is a problem of its own, and changes nothing."""
        try:
            changed = self.settings.replace(**{name: value})
        except (SettingsError, TypeError) as error:
            self.refuse(error if isinstance(error, SettingsError) else SettingsError(f"{name} cannot be {value!r}."))
            return False
        self._can_undo(f"setting {name}", f"setting {name}")
        self.settings = changed
        self.settings_changed.emit()
        self._tasks.set_problem(None)
        return True

    def refuse(self, error: SettingsError) -> None:
        """A text that is no value: say so, and show the old value again."""
        self._tasks.fail(error)
        self.settings_changed.emit()

    def better_min_cells(self) -> int | None:
        """What suits so few cells, when the least number of cells with a gene is so large that most genes go."""
        from napari_cpnn.prototypes import suggested_min_cells

        if self.reference is None or self.reference.n_cells >= _FEW * self.settings.min_cells:
            return None
        better = suggested_min_cells(self.reference.n_cells)
        return better if better < self.settings.min_cells else None

    # -- the estimate --------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._tasks.is_busy("estimate")

    def why_not(self) -> str:
        """What is missing for an estimate, and what to do; empty when it can start."""
        if self.reference is None:
            return "Choose single cells that are labelled with their types, or open prototypes."
        column = self.column(self.cell_type)
        if column is None:
            return f"{self.reference.path.name} has no labels: choose a table (.csv, .tsv) of them, the barcode first."
        if len(column.counts) < 2:
            only = ", ".join(column.counts)
            return f"All cells of {column.name} are {only}: choose a column with at least two cell types."
        return ""

    def run(self) -> None:
        """Estimate prototypes; :meth:`progress` says how it goes."""
        reason, reference = self.why_not(), self.reference
        if reason or reference is None or self.cell_type is None:
            self._tasks.fail(PrototypesError(reason))
            return
        stop, started = Event(), time.monotonic()
        self._stop.set()
        self._stop, self._started, self._progress = stop, started, (f"Reading {reference.path.name}", 0.0)
        opened = self._opened[1] if self._opened is not None and self._opened[0] is reference else None
        column, batch, settings, annotations = self.cell_type, self.batch, self.settings, self.annotations

        def report(text: str, done: float) -> None:
            if stop.is_set():
                raise CancelledError
            self._progress = (text, done)

        def work() -> Result:
            from napari_cpnn.prototypes import estimate_all

            try:
                cells = opened if opened is not None else read_reference(reference.path, annotations)[1]
                report(f"Reading {reference.path.name}", 0.0)
                found = estimate_all(cells, [column], batch, settings, report)[column]
            except OSError as error:
                raise CellsError(f"{reference.path} could not be read: {error.strerror or error}.") from error
            except MemoryError as error:
                raise PrototypesError(
                    f"Memory ran out over {reference.path.name}; write it as .h5ad by cells (CSR), which stays on disk."
                ) from error
            made_from = (reference.path, column, batch)
            return Result(found, found.markers(N_MARKERS), None, made_from, time.monotonic() - started)

        def ready(result: Result) -> None:
            self._can_undo("estimate of prototypes")
            self._show(result)

        self._tasks.run("estimate", "", work, ready)
        self.run_changed.emit()

    def cancel(self) -> None:
        """End the estimate; it lets go of the computer at its next chunk of cells or block of genes."""
        self._stop.set()
        self._tasks.forget("estimate")
        self._say()

    def progress(self) -> tuple[str, float, float]:
        """What is being done, the share that is done, and for how many seconds."""
        return (*self._progress, time.monotonic() - self._started)

    # -- what is shown -------------------------------------------------------------------------------------

    def types(self) -> list[TypeLine]:
        """The types of the prototypes."""
        return [] if self.result is None else lines_of_prototypes(self.result.prototypes)

    def select_type(self, name: str) -> None:
        """List the markers of another type."""
        if name != self.selected:
            self.selected = name
            self.shown_changed.emit()

    def show_gene(self, text: str) -> str:
        """Show the values of a gene, whatever the case of its name; an empty text: of none. Says what is wrong."""
        genes = () if self.result is None else self.result.prototypes.genes
        wanted = text.strip()
        found = wanted if wanted in genes else next((g for g in genes if g.upper() == wanted.upper()), "")
        if wanted and not found:
            return f"The prototypes have no gene {wanted}: the filters may have left it out, or it has another name."
        if found != self.gene:
            self._can_undo(f"gene {found}" if found else "no gene")
            self.gene = found
            self.shown_changed.emit()
        return ""

    def show_markers(self, n: int) -> None:
        """So many markers of each type in the heat map."""
        if n != self.n_shown:
            self._can_undo("number of markers", "number of markers")
            self.n_shown = n
            self.shown_changed.emit()

    def values(self) -> dict[str, float]:
        """Counts per 10,000 of the gene by cell type; empty when none was asked for."""
        if self.result is None or not self.gene:
            return {}
        protos = self.result.prototypes
        level = 1e4 * protos.profiles[:, protos.genes.index(self.gene)]
        return dict(zip(protos.cell_types, map(float, level), strict=True))

    def heat_map(self) -> HeatMap | None:
        """Markers by cell types."""
        if self.result is None:
            return None
        return heat_map(self.result.prototypes, self.result.markers, self.n_shown, self.gene)

    # -- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | Path, then: Callable[[], None] | None = None) -> None:
        """Write the prototypes to an ``.h5ad``, and do something afterwards."""
        result, path = self.result, Path(path).expanduser().absolute()
        if result is None:
            return
        target = path if path.suffix.lower() == ".h5ad" else path.with_name(f"{path.name}.h5ad")
        if self.reference is not None and target == self.reference.path.absolute():
            self._tasks.fail(PrototypesError(f"{target.name} holds the single cells; choose another name."))
            return

        def ready(_: None) -> None:
            if self.result is result:
                self.result = dataclasses.replace(result, path=target)
                self.result_changed.emit()
                if then is not None:
                    then()

        self._tasks.run("save", f"Writing {target.name} ...", lambda: result.prototypes.save(target), ready)

    def use_for_finetuning(self) -> None:
        """Hand the saved file to the Fine-tune dock."""
        if self.result is None or self.result.path is None:
            self._tasks.fail(PrototypesError("Save the prototypes first: a run needs their file."))
        else:
            self.state.want_reference(self.result.path)

    def write_markers(self, path: str | Path) -> None:
        """The table of markers as CSV."""
        if self.result is not None:
            markers, target = self.result.markers, Path(path)

            def write() -> None:
                write_csv(markers, target, PrototypesError, index=False)

            self._tasks.run("markers", f"Writing {target.name} ...", write, _nothing)

    def write_figure(self, path: str | Path) -> None:
        """The heat map as PNG or SVG, on white."""
        heat, result, target = self.heat_map(), self.result, Path(path)
        if heat is None or result is None:
            return
        if target.suffix.lower() not in (".png", ".svg"):
            target = target.with_name(f"{target.name}.png")

        def work() -> None:
            from napari_cpnn.export import replacing

            figure = marker_figure(heat, Paper(source=result.source))
            with replacing(target, overwrite=True) as temporary:
                write_figure(figure, temporary, target.suffix.lower().lstrip("."), dpi=3 * DPI)

        self._tasks.run("figure", f"Writing {target.name} ...", work, _nothing)

    def close(self) -> None:
        """Take no more answers; an estimate ends."""
        self._stop.set()
        self._tasks.close()
        self.state.history.forget(self)

    # -- inside --------------------------------------------------------------------------------------------

    def _read(self, path: Path, annotations: Path | None = None) -> None:
        def work() -> tuple[Reference, Any, Any]:
            reference, content = read_reference(path, annotations)
            return reference, content, content.markers(N_MARKERS) if reference.kind == "prototypes" else None

        def ready(found: tuple[Reference, Any, Any]) -> None:
            reference, content, markers = found
            self._can_undo(f"open {path.name}")
            if reference.kind == "prototypes":
                self._show(Result(content, markers, path.absolute()))
                return
            self.reference, self.annotations, self._opened = reference, annotations, (reference, content)
            self.cell_type, self.batch = reference.likely_column(), None
            self.source_changed.emit()

        name = path.name if annotations is None else annotations.name
        self._tasks.run("source", f"Reading {name} ...", work, ready)

    def _show(self, result: Result) -> None:
        self.result = result
        protos = result.prototypes
        if self.gene not in protos.genes:
            self.gene = ""
        if self.selected not in protos.cell_types:
            self.selected = protos.cell_types[0]
        self.result_changed.emit()
        self.source_changed.emit()

    def _can_undo(self, text: str, merge: str = "") -> None:
        """What is about to be chosen can be taken back."""
        before = {name: getattr(self, name) for name in _CHOICES}

        def undo() -> None:
            now = self.result
            for name, value in before.items():
                setattr(self, name, value)
            if now is not None and self.result is not None and now.prototypes is self.result.prototypes:
                self.result = now  # it may have been saved since
            for signal in (self.source_changed, self.settings_changed, self.result_changed):
                signal.emit()
            self._tasks.set_problem(None)

        self.state.history.add(text, undo, merge, self)

    def _say(self) -> None:
        content = self.result is not None and self.reference is None
        hint = "" if self.running or content else self.why_not()
        message = self._tasks.message or hint
        self.run_changed.emit()
        if message != self.message:
            self.message = message
            self.message_changed.emit(message)


def _nothing(_: Any) -> None:
    """A file is written: nothing follows."""
