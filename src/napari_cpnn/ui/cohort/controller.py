"""Controller of the Cohort dock: the run, its tables as it goes on, and the pictures of its slides. No Qt here."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from psygnal import Signal

from napari_cpnn.cohort import Cohort, read_cohort
from napari_cpnn.cohort_run import COLUMNS, CohortStatus, CohortTables, RunFolder, cohort_status, slide_tables
from napari_cpnn.errors import CohortError, CpnnError
from napari_cpnn.painting import Shown
from napari_cpnn.texts import shown as as_line
from napari_cpnn.ui.cohort.thumbnails import Gallery, Painted, SmallMap, decoder_of, read_small, require_quantity
from napari_cpnn.ui.cohort.typed_maps import SlideFile
from napari_cpnn.ui.cohort.words import progress_line
from napari_cpnn.ui.frame import Tasks, find_gene

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.models import Decoder
    from napari_cpnn.ui.frame import Background

#: Slides that are read before they are shown, and threads that read them.
_AT_ONCE, _READERS = 25, 4
#: Largest number of slides in the gallery.
MOST_SLIDES = 1000
_RUN_FILES = ("run.json", "cohort.csv", "report.html", "slides.csv", "composition.csv", "groups.csv")


class Found(NamedTuple):
    """What a look into a folder has found."""

    tables: CohortTables
    status: CohortStatus


class CohortController:
    """Opens the folder of a run, follows it, and paints its gallery.

    Parameters
    ----------
    background, notify
        As for :class:`~napari_cpnn.ui.frame.tasks.Tasks`.
    colormap
        Returns the colour map of values.
    """

    opened = Signal()
    """Another run, or none, is open."""
    tables_changed = Signal()
    status_changed = Signal()
    painted = Signal()
    message_changed = Signal(str)

    def __init__(
        self,
        background: Background,
        notify: Callable[[CpnnError], None],
        colormap: Callable[[], str] = lambda: "viridis",
    ) -> None:
        self.tasks = Tasks(background, notify, self._hint)
        self.tasks.message_changed.connect(self.message_changed)
        self._colormap = colormap
        self.folder: RunFolder | None = None
        self.manifest: Cohort | None = None
        self.tables: CohortTables | None = None
        self.status: CohortStatus | None = None
        self.gallery = Gallery("")
        self.typed: Gallery | None = None  # of genes in a cell type, by another model than the run's
        self.picture: Painted | None = None
        self.shown: Shown | None = Shown("dominant")
        self._flags: dict[str, list[str]] = {}  # why a slide failed, and its quality control
        self._read: dict[str, Any] = {}  # key of the slides whose maps have been read

    @property
    def message(self) -> str:
        return self.tasks.message

    @property
    def slides(self) -> pd.DataFrame | None:
        """One row per slide: those of the run with further columns of the manifest, or the manifest alone."""
        if self.tables is None:
            return None if self.manifest is None else self.manifest.table.assign(status="no run")
        slides = self.tables.slides
        if self.manifest is None:
            return slides
        others = self.manifest.table.columns.difference(slides.columns, sort=False)
        return slides.join(self.manifest.table[others])

    @property
    def quality(self) -> tuple[str, ...]:
        """Columns of the quality control."""
        return tuple(COLUMNS)

    @property
    def text(self) -> str:
        """How far the run is."""
        return "" if self.status is None or self.tables is None else progress_line(self.tables, self.status)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is being read or painted."""
        return not any(self.tasks.is_running(kind) for kind in ("open", "look", "read", "paint"))

    # -- opening -------------------------------------------------------------------------------------------

    def open(self, path: str | Path) -> None:
        """Open the folder of a run, a file in it, or a manifest, whose columns are added to the run's."""
        path = Path(path)
        if path.is_file() and path.name not in _RUN_FILES:
            self.tasks.run("open", f"Reading {path.name} ...", lambda: read_cohort(path), self._manifest_ready)
            return
        folder = RunFolder(path.parent if path.is_file() else path)
        name = as_line(folder.path.name or folder.path, 60)
        self.tasks.run("open", f"Opening {name} ...", lambda: _look(folder), lambda f: self._run_ready(folder, f))

    def look(self) -> None:
        """Look whether the run has gone on; called a few times a minute."""
        folder, before, tables = self.folder, self.status, self.tables
        n_done = -1 if tables is None else int((tables.slides["status"] == "done").sum())
        if folder is None or self.tasks.is_running("look") or self.tasks.is_running("open"):
            return
        problem = self.tasks.problem

        def again() -> Found | CohortStatus | CpnnError:
            try:
                status = cohort_status(folder.path)
                if before is not None and (status.done, status.failed) == (n_done, before.failed):
                    return status
                return _look(folder)
            except CpnnError as error:
                return error  # shown, and not told anew by each look

        def ready(found: Found | CohortStatus | CpnnError) -> None:
            if self.folder is folder and isinstance(found, CpnnError):
                self.tasks.set_problem(found)
            elif self.folder is folder and not isinstance(found, CpnnError):
                self._take(found)

        self.tasks.run("look", "", again, ready)
        self.tasks.set_problem(problem)  # a look is no answer to what the user has asked for

    def close(self) -> None:
        self.tasks.close()

    def _manifest_ready(self, cohort: Cohort) -> None:
        own = None if self.tables is None else set(self.tables.slides.index)
        if own is not None and not own & set(cohort.names):
            text = f"{cohort.source} has none of the slides of the run that is open; open the folder of its run first."
            self.tasks.fail(CohortError(text))
            return
        self.manifest = cohort
        self.tables_changed.emit()
        self.tasks.update()

    def _run_ready(self, folder: RunFolder, found: Found) -> None:
        same = self.manifest is not None and set(self.manifest.names) & set(found.tables.slides.index)
        self.manifest = self.manifest if same else None
        self.folder, self._read, self.picture = folder, {}, None
        run = found.tables.run
        hierarchy = run.get("hierarchy")
        self.gallery = Gallery(str(run.get("fingerprint", "")), hierarchy if isinstance(hierarchy, dict) else None)
        self.tasks.forget("read", "paint", "look")
        self.opened.emit()
        self._take(found)

    def _take(self, found: Found | CohortStatus) -> None:
        if isinstance(found, Found):
            self.tables, self.status = found
            flags: dict[Any, list[str]] = self.tables.slides["flags"].to_dict()
            failures = self.tables.failures
            self._flags = {str(name): list(texts) for name, texts in flags.items()}
            for name, why in failures.items():
                self._flags[name] = [why, *self._flags.get(name, ())]
            self.tables_changed.emit()
            self._read_maps()
        else:
            self.status = found
        self.status_changed.emit()

    # -- the gallery ---------------------------------------------------------------------------------------

    def _read_maps(self) -> None:
        """Read the maps that are new, some at a time, so that the gallery fills."""
        folder, tables, gallery = self.folder, self.tables, self.gallery
        if folder is None or tables is None or self.tasks.is_running("read"):
            return
        done = tables.slides.index[tables.slides["status"] == "done"][:MOST_SLIDES]
        new = [str(name) for name in done if str(name) not in self._read][:_AT_ONCE]
        if not new:
            if self.picture is None:
                self.repaint()
            return
        needs_decoder = gallery.decoder is None

        def read() -> tuple[dict[str, SmallMap], Decoder | None]:
            with ThreadPoolExecutor(_READERS) as pool:
                found = dict(zip(new, pool.map(lambda name: read_small(folder.slide(name)), new), strict=True))
            known = {name: small for name, small in found.items() if small is not None}
            ours = [folder.slide(name) for name, small in known.items() if gallery.of_run(small)]
            return known, decoder_of(ours, gallery.fingerprint) if needs_decoder else None

        def ready(found: tuple[dict[str, SmallMap], Decoder | None]) -> None:
            self._read |= dict.fromkeys(new)
            gallery.add(*found)
            self.repaint()
            self._read_maps()

        problem = self.tasks.problem
        n, total = len(gallery.maps), len(done)
        self.tasks.run("read", f"Reading the maps of the slides: {n} of {total} ...", read, ready)
        self.tasks.set_problem(problem)

    def show(self, shown: Shown | None) -> None:
        """Show a quantity in the gallery; None: the tissue alone."""
        if shown is not None and self._gallery_of(shown).decoder is not None:
            try:
                require_quantity(self._gallery_of(shown), shown)
            except CohortError as error:
                self.tasks.fail(error)
                return
        self.shown = shown
        self.tasks.set_problem(None)
        self.repaint()

    def show_gene(self, text: str) -> None:
        """Show a gene, ignoring the case of its name."""
        gene = find_gene(text, self.gallery.genes)
        if gene is None:
            self.tasks.fail(CohortError(f"The model of this run does not predict {as_line(text, 40)}."))
        else:
            self.show(Shown("gene", (gene,)))

    def show_typed(self, shown: Shown) -> None:
        """Show a gene in a cell type, of the maps of :meth:`set_typed`; the tissue alone where there are none yet."""
        self.shown = shown
        self.repaint()

    def set_typed(self, gallery: Gallery | None) -> None:
        """Take small maps of a model of typed expression, or none."""
        if (
            gallery is None
            and self.typed is not None
            and self.shown is not None
            and self.shown.gene in self.typed.genes
        ):
            self.shown = Shown("dominant")
        self.typed = gallery
        self.repaint()

    def slide_files(self) -> list[SlideFile]:
        """Return the slides of the cohort, as many as the gallery shows."""
        names = [] if self.slides is None else [str(name) for name in self.slides.index[:MOST_SLIDES]]
        maps = self.gallery.maps
        pictures = {name: maps[name].picture if name in maps else None for name in names}
        return [SlideFile(name, *self.slide_of(name), pictures[name]) for name in names]

    def _gallery_of(self, shown: Shown) -> Gallery:
        typed = self.typed
        return typed if typed is not None and shown.kind == "gene" and shown.gene in typed.genes else self.gallery

    def repaint(self) -> None:
        """Paint the gallery anew."""
        shown, colormap, problem = self.shown, self._colormap(), self.tasks.problem
        gallery = self.gallery if shown is None else self._gallery_of(shown)
        if (
            shown is not None
            and shown.kind == "gene"
            and gallery.decoder is not None
            and shown.gene not in gallery.genes
        ):
            shown = None  # its maps are being made

        def ready(painted: Painted) -> None:
            self.picture = painted
            self.painted.emit()

        self.tasks.run("paint", "", lambda: gallery.paint(shown, colormap), ready)
        self.tasks.set_problem(problem)

    # -- texts ---------------------------------------------------------------------------------------------

    def remarks(self, name: str) -> list[str]:
        """Return what is to be said of a slide: why it failed, the flags of its quality control, what is missing."""
        small = self.gallery.maps.get(name)
        found = list(self._flags.get(name, ()))
        if small is not None and small.problem:
            found.append(small.problem)
        elif small is not None and not self.gallery.of_run(small):
            found.append("Its map is of another model than the run's; give the command of the run again.")
        return found

    def slide_of(self, name: str) -> tuple[Path, float | None]:
        """Return the file of a slide and its pixel size, where the manifest has one."""
        slides = self.slides
        if slides is None or name not in slides.index:
            raise CohortError(f"The cohort has no slide {as_line(name, 60)}.")
        row: dict[Any, Any] = slides.loc[name].to_dict()
        mpp = row.get("mpp")
        known = isinstance(mpp, (int, float)) and math.isfinite(mpp)
        return Path(str(row["path"])), float(mpp) if known and mpp is not None else None

    def _hint(self) -> str:
        if self.folder is None and self.manifest is None:
            return "No run yet: open the folder that napari-cpnn cohort run has written, or drop it here."
        if self.folder is None:
            return "These slides have no maps yet: open the folder of their run, made by napari-cpnn cohort run."
        if self.status is not None and not self.status.done:
            return "No slide is complete yet; the gallery fills as the run goes on."
        return ""


def _look(folder: RunFolder) -> Found:
    tables = slide_tables(folder.path)
    return Found(tables, cohort_status(folder.path))
