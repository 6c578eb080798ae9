"""Controller of the export dialog: writes the map on screen in the background. No Qt here."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cpnn.errors import CpnnError, ExportError
from napari_cpnn.export import FORMATS, ExportCancelledError, export_map, part_of, reporting, save_map
from napari_cpnn.models import genes_above
from napari_cpnn.settings import ExportSettings, FigureSettings
from napari_cpnn.texts import file_name
from napari_cpnn.ui.export.file_size import mb_text, patches_in, size_mb
from napari_cpnn.ui.export.name_lists import read_name_list, split_names
from napari_cpnn.ui.export.on_screen import Exported, settings_on_screen
from napari_cpnn.ui.frame import Tasks
from napari_cpnn.ui.viewer import ExploreState, Shown
from napari_cpnn.untrusted import to_path

if TYPE_CHECKING:
    from napari_cpnn.export import Area, Marks
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Background


@dataclass(frozen=True)
class Format:
    """File format that can be chosen.

    Parameters
    ----------
    key
        Key of ``napari_cpnn.export.FORMATS``, or ``map``.
    name
        Name in the dialog.
    suffix
        Part of the default file name after the name of the slide.
    genes
        Available choices of genes: ``shown``, ``all``, ``above``, ``some``, ``none``; the first is the default.
    """

    key: str
    name: str
    suffix: str
    genes: tuple[str, ...]

    @property
    def endings(self) -> tuple[str, ...]:
        """Suffixes of its files; the first is the default."""
        return FORMATS.get(self.key, (".zarr",))


KINDS = (
    Format("figure", "Figure (PNG, SVG, PDF)", "_figure", ("shown", "some")),
    Format("anndata", "AnnData for squidpy, scanpy (.h5ad)", "_map", ("all", "above", "some", "shown")),
    Format("spatialdata", "SpatialData (.zarr)", "_spatialdata", ("all", "above", "some", "shown")),
    Format("geojson", "Outlines for QuPath (.geojson)", "_map", ("shown", "above", "some", "all")),
    Format("ome-zarr", "OME-Zarr image (.ome.zarr)", "_map", ("shown", "above", "some", "all")),
    Format("csv", "Table (.csv)", "_map", ("shown", "above", "some", "all")),
    Format("map", "Map, to continue later (.zarr)", "_map", ("none",)),
)

GENES = {
    "shown": "what is on screen",
    "all": "all genes",
    "above": "genes with a held-out PCC of at least",
    "some": "these:",
    "none": "all, as computed",
}


LEAST_PCC = 0.3
"""Held-out PCC that the dialog offers first."""


@dataclass(frozen=True)
class Request:
    """Export that the user asks for.

    Parameters
    ----------
    kind
        One of `KINDS`.
    path
        Target, with a suffix of the format.
    genes
        One of ``kind.genes``.
    typed
        Names for ``genes="some"``, separated by commas, spaces or lines.
    area
        Part of the map, slide um; None: all of it.
    overwrite
        Replace an existing file.
    width_mm, dpi
        Size of a figure, as in :class:`FigureSettings`.
    marks
        Spots and outlines of regions for a figure, which are on screen.
    least_pcc
        Held-out PCC for ``genes="above"``.
    """

    kind: Format
    path: Path
    genes: str
    typed: str = ""
    area: Area | None = None
    overwrite: bool = False
    width_mm: float | None = None
    dpi: int = 300
    marks: Marks | None = None
    least_pcc: float = LEAST_PCC


class ExportController:
    """Writes the map of a viewer in the background.

    Attributes
    ----------
    share
        Share that is done, 0 to 1, while a file is written.
    written
        The last file that was written.
    """

    changed = Signal()

    def __init__(self, state: ExploreState, background: Background) -> None:
        self.state = state
        self.share = 0.0
        self.written: Path | None = None
        self._result = ""
        self._tasks = Tasks(background, lambda _: None, self._hint)
        self._tasks.changed.connect(self.changed.emit)
        self._end = threading.Event()

    @property
    def running(self) -> bool:
        """True while a file is being written."""
        return self._tasks.is_running("export")

    @property
    def message(self) -> str:
        """The last problem, what is being written, or the last result."""
        return self._tasks.message

    def _hint(self) -> str:
        no_map = "There is no map yet: choose a slide and a model in Explore."
        return no_map if self.state.map is None else self._result

    def names(self, kind: Format) -> list[str]:
        """Return the names that can be typed for a format: genes, and cell types for the panels of a figure."""
        cmap = self.state.map
        if cmap is None:
            return []
        types = dict.fromkeys([*cmap.types_at("major"), *cmap.cell_types]) if kind.key == "figure" else ()
        return [*types, *sorted(cmap.genes, key=str.upper)]

    def describe(self, request: Request) -> str:
        """Return how many genes and patches will be written, and the size of the file; empty for figures and maps.

        A choice that cannot be written is described by its problem.
        """
        cmap = self.state.map
        if cmap is None or request.kind.key in ("figure", "map"):
            return ""
        try:
            n_genes = len(self._names_of(request, cmap))
        except CpnnError as error:
            return "" if request.genes == "some" and not request.typed.strip() else str(error)
        of = f" of {len(cmap.genes):,}" if request.genes == "above" else ""
        genes = f"{n_genes:,}{of} gene{'' if n_genes == 1 and not of else 's'}"
        n_patches = patches_in(cmap, request.area)
        mb = size_mb(request.kind.key, n_patches, n_genes, len(cmap.types_at(self.state.level)))
        return f"{genes}, {n_patches:,} patches{'' if mb is None else f': about {mb_text(mb)}'}"

    def read_names(self, path: str | Path) -> str:
        """Return the names in a text file, with commas between them; a problem is shown, and nothing returned."""
        try:
            return ", ".join(read_name_list(path))
        except CpnnError as error:
            self._tasks.set_problem(error)
            return ""

    def default_path(self, kind: Format) -> Path:
        """Return a path with the name of the slide, in its folder or else the home folder."""
        slide = self.state.slide
        folder = slide.path.parent if slide is not None and slide.path is not None else Path.home()
        name = "map" if slide is None else file_name(re.sub(r"[^\w.() -]+", "_", slide.name), "slide")
        return folder / f"{name}{kind.suffix}{kind.endings[0]}"

    @staticmethod
    def path_of(text: str, kind: Format) -> Path:
        """Return a typed path with a suffix of the format."""
        try:
            path = Path(text.strip()).expanduser()
        except RuntimeError:  # such as ~nobody
            path = Path(text.strip())
        if path.name.lower().endswith(kind.endings):
            return path
        known = sorted((e for of_kind in FORMATS.values() for e in of_kind), key=len, reverse=True)
        found = next((ending for ending in known if path.name.lower().endswith(ending)), "")
        return path.with_name(path.name[: len(path.name) - len(found)] + kind.endings[0]) if path.name else path

    def is_there(self, path: Path) -> bool | None:
        """Return whether a path exists; ``None``, with a message, if it is not valid."""
        try:
            return bool(path.name) and to_path(path, ExportError).exists()
        except ExportError as error:
            self._tasks.set_problem(error)
            return None

    def export(self, request: Request) -> None:
        """Start writing, unless another file is being written."""
        if self.running:
            return
        self.written, self._result, self.share = None, "", 0.0
        try:
            job = self._job(request)
        except CpnnError as error:
            self._tasks.set_problem(error)
            return
        self._end = end = threading.Event()

        def report(_text: str, done: float) -> None:
            self.share = done
            if end.is_set():
                raise ExportCancelledError("Cancelled; nothing was written.")

        def work() -> str:
            report("", 0.0)
            with reporting(report):
                return job()

        record = self._record(request)

        def ready(text: str) -> None:
            self.written, self._result = request.path, text
            if record is not None:
                self.state.exports.append(record)

        self._tasks.run("export", f"Writing {request.path.name} ...", work, ready)

    def cancel(self) -> None:
        """Cancel the export; no file is left."""
        self._end.set()

    def forget(self) -> None:
        """Clear the message about the last file."""
        self._result, self.written = "", None
        self._tasks.set_problem(None)

    def close(self) -> None:
        """Cancel the export and ignore results from now on."""
        self.cancel()
        self._tasks.close()

    def _job(self, request: Request) -> Callable[[], str]:
        """Return the function that writes the file, with a copy of everything that the user may change meanwhile."""
        cmap, slide = self.state.map, self.state.slide
        kind, path, area, overwrite = request.kind, request.path, request.area, request.overwrite
        if cmap is None:
            raise ExportError("There is no map to export yet.")
        if not path.name:
            raise ExportError("Enter the folder and name of the file.")
        if kind.key == "map":
            return partial(_write_map, cmap, request)
        names, cmap = self._names_of(request, cmap), copy.copy(cmap)
        cmap.marked = dict(cmap.marked)  # the places that are outlined now
        settings = ExportSettings(figure=self._figure_settings(request), level=self.state.level)
        if kind.key == "figure":
            panels = names or [Shown("dominant", level=settings.level)]
            return lambda: _draw(cmap, slide, request, panels, settings.figure)
        shown = self.state.shown if request.genes == "shown" else None
        genes, least = [str(name) for name in names], None if cmap.trust is None else -1.0  # they are chosen already

        def write() -> str:
            if shown is not None and shown.kind == "signature":
                from napari_cpnn.mapping import signature  # torch

                one = signature(cmap, shown.names[1:], shown.name, least_pcc=least)
                cmap.signatures = {**cmap.signatures, one.name: one}
            export_map(cmap, path, genes, slide, kind.key, settings, overwrite=overwrite, area=area)
            return _done(path, f"{len(genes):,} genes")

        return write

    def _record(self, request: Request) -> Exported | None:
        """Return what a script needs to repeat an export."""
        cmap, kind = self.state.map, request.kind.key
        if cmap is None:
            return None
        settings = ExportSettings(figure=self._figure_settings(request), level=self.state.level)
        names = () if kind == "map" or request.genes in ("all", "above") else self._names_of(request, cmap)
        return Exported(
            kind,
            request.path.name,
            tuple(names),
            names_all=request.genes == "all",
            least_pcc=request.least_pcc if request.genes == "above" else None,
            area=request.area,
            settings=settings,
        )

    def _names_of(self, request: Request, cmap: CompositionMap) -> list[str | Shown]:
        if request.genes == "all":
            return list(cmap.genes)
        if request.genes == "above":
            known = cmap if cmap.trust is not None or self.state.model is None else self.state.model
            return list(genes_above(known, request.least_pcc))
        if request.genes == "some":
            names = split_names(request.typed, self.names(request.kind))
            if not names:
                raise ExportError("Enter the names, separated by commas.")
            return list(names)
        return self._shown_names(request.kind, self.state.shown)

    @staticmethod
    def _shown_names(kind: Format, shown: Shown | None) -> list[str | Shown]:
        if shown is None:
            return []
        if kind.key == "figure":
            return [shown]
        return [shown.gene] if shown.gene else []

    def _figure_settings(self, request: Request) -> FigureSettings:
        """Return the settings of the look on screen; a range that is fixed for genes applies to panels of genes."""
        look, cmap, shown, limits = self.state.look, self.state.map, self.state.shown, self.state.limits
        if request.genes == "shown" or cmap is None or request.kind.key != "figure":
            settings = settings_on_screen(look, shown, limits)
        else:
            genes, names = set(cmap.genes), self._names_of(request, cmap)
            takes = all(name in genes and look.fixed(Shown("gene", (str(name),))) for name in names)
            settings = settings_on_screen(look, None, look.manual if takes and names else None)
        return settings.replace(width_mm=request.width_mm, dpi=request.dpi)


def _write_map(cmap: CompositionMap, request: Request) -> str:
    part = cmap if request.area is None else part_of(cmap, request.area)
    save_map(part, request.path, overwrite=request.overwrite)
    return _done(request.path, f"{len(cmap.genes):,} genes")


def _draw(
    cmap: CompositionMap,
    slide: Slide | None,
    request: Request,
    names: Sequence[str | Shown],
    settings: FigureSettings,
) -> str:
    from napari_cpnn.export import to_figure  # matplotlib

    area, marks = request.area, request.marks
    to_figure(cmap, request.path, names, slide, settings, overwrite=request.overwrite, area=area, marks=marks)
    return _done(request.path, "1 panel" if len(names) == 1 else f"{len(names)} panels")


def _done(path: Path, what: str) -> str:
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    return f"Written: {path} ({what}, {mb_text(sum(f.stat().st_size for f in files) / 2**20)})."
