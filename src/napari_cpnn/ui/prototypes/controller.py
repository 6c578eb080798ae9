"""Controller of the Prototypes dock: single cells, the estimate of prototypes, and their files. No Qt here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cpnn.errors import CellsError, CpnnError, PrototypesError
from napari_cpnn.progress import CancelledError
from napari_cpnn.settings import PrototypeSettings
from napari_cpnn.storage import write_csv, write_figure
from napari_cpnn.ui.frame import DPI, Choices, Paper, SettingsEditor, Tasks, find_gene
from napari_cpnn.ui.prototypes.marker_chart import HeatMap, heat_map, marker_figure
from napari_cpnn.ui.prototypes.words import Result, TypeLine, lines_of_labels, lines_of_prototypes
from napari_cpnn.ui.viewer import LabelColumn, Reference, better_min_cells, read_reference

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.ui.frame import Background
    from napari_cpnn.ui.viewer import ExploreState

#: Number of markers of each type that are listed and exported.
N_MARKERS = 50
_TABLES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
#: What the user chooses, and can undo.
_CHOICES = ("reference", "annotations", "cell_type", "batch", "settings", "result", "gene", "selected", "n_shown")


class PrototypesController:
    """Reads single cells, estimates prototypes and writes them.

    Parameters
    ----------
    state
        State of the viewer, through which the Fine-tune dock receives the prototypes.
    background, notify
        As for :class:`~napari_cpnn.ui.frame.tasks.Tasks`.

    Attributes
    ----------
    reference, annotations
        Single cells, and the table of their labels if they have none themselves.
    cell_type, batch
        Columns of the single cells.
    settings
        Settings of the next estimate.
    editor
        Changes single settings.
    result
        The prototypes that are shown.
    gene, selected, n_shown
        The gene whose values are shown, the cell type whose markers are listed, and the number of markers per type in
        the heat map.
    """

    source_changed = Signal()
    result_changed = Signal()
    shown_changed = Signal()

    def __init__(self, state: ExploreState, background: Background, notify: Callable[[CpnnError], None]) -> None:
        self.state = state
        self.reference: Reference | None = None
        self.annotations: Path | None = None
        self.cell_type: str | None = None
        self.batch: str | None = None
        self.settings = PrototypeSettings()
        self.result: Result | None = None
        self.gene, self.selected, self.n_shown = "", "", 3
        self._extra = ""  # the last chosen gene that is no marker
        self._opened: tuple[Reference, AnnData] | None = None
        self._stop, self._started = Event(), 0.0
        self._progress = ("", 0.0)
        self._tasks = Tasks(background, notify, self._hint)
        self._choices = Choices(self, _CHOICES, state.history, self._restored)
        self.editor = SettingsEditor(
            self._tasks, self._choices, lambda: self.settings, lambda _, changed: setattr(self, "settings", changed)
        )
        self.settings_changed, self.message_changed = self.editor.changed, self._tasks.message_changed
        self.run_changed = self._tasks.changed
        self._tasks.update()

    @property
    def message(self) -> str:
        """The last problem, what is running, or what to do next."""
        return self._tasks.message

    # -- single cells --------------------------------------------------------------------------------------

    def open(self, *paths: str | Path) -> None:
        """Open single cells, with or without a table of their labels, or such a table alone, or prototypes."""
        tables = [path for path in map(Path, paths) if path.name.lower().endswith(_TABLES)]
        others = [path for path in map(Path, paths) if path not in tables]
        if len(tables) > 1 or len(others) > 1:
            self._tasks.fail(CellsError("Open one file of single cells at a time, alone or with one table of labels."))
        elif others:
            self._read(others[0], *tables)
        elif self.reference is None:
            self._tasks.fail(CellsError(f"Open the single cells first: {tables[0].name} has only their labels."))
        else:
            self._read(self.reference.path, tables[0])

    def choose_columns(self, cell_type: str, batch: str | None = None) -> None:
        """Choose the columns of the cell type and of the batch."""
        self._choices.record("columns of the single cells")
        self.cell_type, self.batch = cell_type, batch
        self.source_changed.emit()
        self._tasks.set_problem(None)

    def column(self, name: str | None) -> LabelColumn | None:
        """Return a column of the single cells with its labels."""
        columns = () if self.reference is None else self.reference.columns
        return next((column for column in columns if column.name == name), None)

    def preview(self) -> list[TypeLine]:
        """Return the labels of the chosen column, unless the prototypes on screen were made from it."""
        column = self.column(self.cell_type)
        made = None if self.result is None else self.result.made_from
        if column is None or self.reference is None:
            return []
        if made is not None and made[:2] == (self.reference.path, column.name):
            return []
        return lines_of_labels(column.counts, self.settings.min_cells_per_type)

    # -- settings ------------------------------------------------------------------------------------------

    def change(self, name: str, value: Any) -> bool:
        """Change one setting; return whether its value was accepted."""
        return self.editor.change(name, value)

    def choose_defaults(self) -> None:
        """Use the defaults for all settings."""
        self._choices.record("defaults")
        self.settings = PrototypeSettings()
        self.settings_changed.emit()
        self._tasks.set_problem(None)

    def better_min_cells(self) -> int | None:
        """Suggest a smaller ``min_cells`` if the present one would leave out many genes of so few cells."""
        return better_min_cells(self.reference, self.settings.min_cells)

    # -- the estimate --------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._tasks.is_running("estimate")

    def why_not(self) -> str:
        """Tell what is missing for an estimate; empty when it can start."""
        if self.reference is None:
            return "Choose single cells that are labelled with their types, or open prototypes."
        column = self.column(self.cell_type)
        if column is None:
            name = self.reference.path.name
            return f"{name} has no labels: open a table of them (.csv, .tsv) with barcodes in its first column."
        if len(column.counts) < 2:
            only = ", ".join(column.counts)
            return f"All cells of {column.name} are {only}: choose a column with at least two cell types."
        return ""

    def run(self) -> None:
        """Estimate prototypes; :meth:`progress` reports on it."""
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
            self._choices.record("estimate of prototypes")
            self._show(result)

        self._tasks.run("estimate", "", work, ready)
        self.run_changed.emit()

    def cancel(self) -> None:
        """Cancel the estimate, which ends at its next chunk of cells or block of genes."""
        self._stop.set()
        self._tasks.forget("estimate")
        self._tasks.update()

    def progress(self) -> tuple[str, float, float]:
        """Return the current step, the share that is done, and the seconds since the start."""
        return (*self._progress, time.monotonic() - self._started)

    # -- what is shown -------------------------------------------------------------------------------------

    def types(self) -> list[TypeLine]:
        """Return the cell types of the prototypes."""
        return [] if self.result is None else lines_of_prototypes(self.result.prototypes)

    def select_type(self, name: str) -> None:
        """List the markers of another type."""
        if name != self.selected:
            self.selected = name
            self.shown_changed.emit()

    def show_gene(self, text: str) -> str:
        """Show the values of a gene, ignoring the case of its name, or of none; return a message if it is unknown."""
        genes = () if self.result is None else self.result.prototypes.genes
        found = (find_gene(text, genes) or "") if text.strip() else ""
        if text.strip() and not found:
            return f"The prototypes have no gene {text.strip()}: it may have another name, or the filters left it out."
        if found != self.gene:
            self._choices.record(f"gene {found}" if found else "no gene")
            self.gene = found
            self.shown_changed.emit()
        return ""

    def show_markers(self, n: int) -> None:
        """Show this number of markers of each type in the heat map."""
        if n != self.n_shown:
            self._choices.record("number of markers", "number of markers")
            self.n_shown = n
            self.shown_changed.emit()

    def values(self) -> dict[str, float]:
        """Return the counts per 10,000 of the gene by cell type; empty without a gene."""
        if self.result is None or not self.gene:
            return {}
        protos = self.result.prototypes
        level = 1e4 * protos.profiles[:, protos.genes.index(self.gene)]
        return dict(zip(protos.cell_types, map(float, level), strict=True))

    def heat_map(self) -> HeatMap | None:
        """Return the heat map of markers by cell types.

        The row of a chosen gene that is no marker stays when a marker is chosen next: no row moves under the pointer.
        """
        if self.result is None:
            return None
        markers = self.result.markers
        if self.gene not in set(markers.loc[markers["rank"] <= self.n_shown, "gene"]):
            self._extra = self.gene
        extra = self._extra if self._extra in self.result.prototypes.genes else self.gene
        return heat_map(self.result.prototypes, markers, self.n_shown, extra)

    # -- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | Path, then: Callable[[], None] | None = None) -> None:
        """Write the prototypes to an ``.h5ad`` file, and call ``then`` afterwards."""
        result, path = self.result, Path(path).expanduser().absolute()
        if result is None:
            return
        target = path if path.suffix.lower() == ".h5ad" else path.with_name(f"{path.name}.h5ad")
        if self.reference is not None and target == self.reference.path.absolute():
            self._tasks.fail(PrototypesError(f"{target.name} is the file of the single cells; choose another name."))
            return

        def ready(_: None) -> None:
            if self.result is result:
                self.result = dataclasses.replace(result, path=target)
                self.result_changed.emit()
                if then is not None:
                    then()

        self._tasks.run("save", f"Writing {target.name} ...", lambda: result.prototypes.save(target), ready)

    def use_for_finetuning(self) -> None:
        """Pass the saved file to the Fine-tune dock."""
        if self.result is None or self.result.path is None:
            self._tasks.fail(PrototypesError("Save the prototypes first: training needs their file."))
        else:
            self.state.want_reference(self.result.path)

    def write_markers(self, path: str | Path) -> None:
        """Write the table of markers as CSV."""
        if self.result is not None:
            markers, target = self.result.markers, Path(path)

            def write() -> None:
                write_csv(markers, target, PrototypesError, index=False)

            self._tasks.run("markers", f"Writing {target.name} ...", write, lambda _: None)

    def write_figure(self, path: str | Path) -> None:
        """Write the heat map as PNG or SVG, on white."""
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

        self._tasks.run("figure", f"Writing {target.name} ...", work, lambda _: None)

    def close(self) -> None:
        """Cancel the estimate and ignore results from now on."""
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
            self._choices.record(f"open {path.name}")
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

    def _restored(self, replaced: dict[str, Any]) -> None:
        last: Result | None = replaced["result"]
        if last is not None and self.result is not None and last.prototypes is self.result.prototypes:
            self.result = last  # it may have been saved since
        for signal in (self.source_changed, self.settings_changed, self.result_changed):
            signal.emit()
        self._tasks.set_problem(None)

    def _hint(self) -> str:
        only_result = self.result is not None and self.reference is None
        return "" if self.running or only_result else self.why_not()
