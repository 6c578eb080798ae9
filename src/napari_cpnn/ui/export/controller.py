"""What the export dialog does, without Qt: what is written of the map on screen, where to, and how far it is."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cpnn.errors import CpnnError, ExportError
from napari_cpnn.export import FORMATS, ExportCancelledError, export_map, part_of, reporting, save_map
from napari_cpnn.settings import ExportSettings, FigureSettings
from napari_cpnn.texts import file_name
from napari_cpnn.texts import shown as one_line
from napari_cpnn.ui.frame import Tasks, model_label
from napari_cpnn.ui.viewer import ExploreState, Shown
from napari_cpnn.untrusted import to_path

if TYPE_CHECKING:
    from napari_cpnn.export import Area
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Background


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Parameters
    ----------
    key
        As in ``napari_cpnn.export.FORMATS``, or ``map``.
    name
        To choose by.
    suffix
        What the default name of a file has after that of the slide.
    genes
        Which choices of genes make sense: ``shown``, ``all``, ``some``, ``none``; the first is the default.
    """

    key: str
    name: str
    suffix: str
    genes: tuple[str, ...]

    @property
    def endings(self) -> tuple[str, ...]:
        """Of its files; the first is the default."""
        return FORMATS.get(self.key, (".zarr",))


KINDS = (
    Format("figure", "Figure (PNG, SVG, PDF)", "_figure", ("shown", "some")),
    Format("anndata", "AnnData for squidpy, scanpy (.h5ad)", "_map", ("all", "shown", "some")),
    Format("spatialdata", "SpatialData (.zarr)", "_spatialdata", ("all", "shown", "some")),
    Format("geojson", "Outlines for QuPath (.geojson)", "_map", ("shown", "some", "all")),
    Format("ome-zarr", "OME-Zarr image (.ome.zarr)", "_map", ("shown", "some", "all")),
    Format("csv", "Table (.csv)", "_map", ("shown", "some", "all")),
    Format("map", "Map, to go on with later (.zarr)", "_map", ("none",)),
)

GENES = {
    "shown": "what is on screen",
    "all": "all genes",
    "some": "these:",
    "none": "all, as computed",
}


@dataclass(frozen=True)
class Request:
    """What the user wants.

    Parameters
    ----------
    kind
        One of `KINDS`.
    path
        Where to; its ending fits the kind.
    genes
        One of ``kind.genes``.
    typed
        Names for ``genes="some"``, apart by commas, spaces or lines.
    area
        Only this part, slide micrometres.
    overwrite
        Whether a file that is there may be replaced.
    width_mm, dpi
        Of a figure, as in :class:`FigureSettings`.
    """

    kind: Format
    path: Path
    genes: str
    typed: str = ""
    area: Area | None = None
    overwrite: bool = False
    width_mm: float | None = None
    dpi: int = 300


class ExportController:
    """Writes the map of a viewer, in the background.

    Parameters
    ----------
    state
        Slide, map and what is shown.
    background
        How slow work is run.

    Attributes
    ----------
    share
        How much is done, 0 to 1, while something is written.
    written
        What was written last.
    """

    changed = Signal()

    def __init__(self, state: ExploreState, background: Background) -> None:
        self.state = state
        self.share = 0.0
        self.written: Path | None = None
        self._said = ""
        self._tasks = Tasks(background, _nothing, self.changed.emit)
        self._end = threading.Event()

    @property
    def running(self) -> bool:
        """Whether a file is being written."""
        return self._tasks.is_busy("export")

    @property
    def message(self) -> str:
        """What went wrong, what goes on, or what was done."""
        if self.state.map is None and not self._tasks.message:
            return "There is no map yet: choose a slide and a model in Explore."
        return self._tasks.message or self._said

    def names(self, kind: Format) -> list[str]:
        """What may be typed for a kind: genes, and for the panels of a figure cell types."""
        cmap = self.state.map
        if cmap is None:
            return []
        return [*(cmap.cell_types if kind.key == "figure" else ()), *sorted(cmap.genes, key=str.upper)]

    def default_path(self, kind: Format) -> Path:
        """Beside the slide, or else at home, by the name of the slide."""
        slide = self.state.slide
        folder = slide.path.parent if slide is not None and slide.path is not None else Path.home()
        name = "map" if slide is None else file_name(re.sub(r"[^\w.() -]+", "_", slide.name), "slide")
        return folder / f"{name}{kind.suffix}{kind.endings[0]}"

    @staticmethod
    def path_of(text: str, kind: Format) -> Path:
        """A path as typed, with the ending of its kind."""
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
        """Whether there is something at a path already; ``None``, and said, when nothing can be there."""
        try:
            return bool(path.name) and to_path(path, ExportError).exists()
        except ExportError as error:
            self._tasks.set_problem(error)
            return None

    def export(self, request: Request) -> None:
        """Begin to write; nothing happens while something else is being written."""
        if self.running:
            return
        self.written, self._said, self.share = None, "", 0.0
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

        def ready(text: str) -> None:
            self.written, self._said = request.path, text

        self._tasks.run("export", f"Writing {request.path.name} ...", work, ready)

    def cancel(self) -> None:
        """End what is being written; nothing of it stays."""
        self._end.set()

    def forget(self) -> None:
        """Say no more about the last file."""
        self._said, self.written = "", None
        self._tasks.set_problem(None)

    def close(self) -> None:
        """End, and take no more answers."""
        self.cancel()
        self._tasks.close()

    def _job(self, request: Request) -> Callable[[], str]:
        """What is to be done, with all that the user may change meanwhile taken from the state."""
        cmap, slide = self.state.map, self.state.slide
        kind, path, area, overwrite = request.kind, request.path, request.area, request.overwrite
        if cmap is None:
            raise ExportError("There is no map to export yet.")
        if not path.name:
            raise ExportError("Say where to write: a folder and a name.")
        if kind.key == "map":
            return lambda: _write_map(cmap, request)
        names = self._names_of(request, cmap)
        settings = ExportSettings(figure=self._figure_settings(request))
        if kind.key == "figure":
            return lambda: _draw(cmap, slide, request, names or ["dominant"], settings.figure)
        genes = [str(name) for name in names]

        def write() -> str:
            export_map(cmap, path, genes, slide, kind.key, settings, overwrite=overwrite, area=area)
            return _done(path, f"{len(genes):,} genes")

        return write

    def _names_of(self, request: Request, cmap: CompositionMap) -> list[str | Shown]:
        if request.genes == "all":
            return list(cmap.genes)
        if request.genes == "some":
            names = split_names(request.typed, self.names(request.kind))
            if not names:
                raise ExportError("Type the names that you want, apart by commas.")
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
        """As on screen: its range for what is on screen, a fixed one for everything."""
        look, shown, slide, model = self.state.look, self.state.shown, self.state.slide, self.state.model
        fixed = None
        if look.range_mode == "manual":
            fixed = look.manual
        elif request.genes == "shown" and shown is not None and shown.has_range:
            fixed = self.state.limits
        memory = self.state.memory
        path = Path(memory.model) if memory is not None and memory.model else None
        title = "" if slide is None or model is None else f"{one_line(slide.name)} · {model_label(model, path)}"
        return FigureSettings(
            colormap=look.colormap,
            value_range="full" if look.range_mode == "full" else "auto",
            low=None if fixed is None else fixed[0],
            high=None if fixed is None else max(fixed[1], fixed[0] + 1e-6),
            opacity=look.opacity,
            smooth=look.smooth,
            width_mm=request.width_mm,
            dpi=request.dpi,
            title=title,
        )


def split_names(typed: str, known: Sequence[str]) -> tuple[str, ...]:
    """Names as typed or pasted; names that have spaces themselves, such as those of cell types, stay whole.

    A name counts in any case of its letters; one that is not known stays as it is.
    """
    spelling = {name.upper(): name for name in reversed(known)}
    found: list[str] = []
    for part in re.split(r"[,;\n\t]+", typed):
        words = part.split()
        whole = " ".join(words)
        pieces = [whole] if whole.upper() in spelling or " from " in whole else words
        found += [spelling.get(piece.upper(), piece) for piece in pieces]
    return tuple(dict.fromkeys(piece for piece in found if piece))


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

    to_figure(cmap, request.path, names, slide, settings, overwrite=request.overwrite, area=request.area)
    return _done(request.path, "1 panel" if len(names) == 1 else f"{len(names)} panels")


def _done(path: Path, what: str) -> str:
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    size = sum(f.stat().st_size for f in files)
    text = f"{size / 2**20:,.1f} MB" if size >= 2**20 else f"{size / 2**10:,.0f} kB"
    return f"Written: {path} ({what}, {text})."


def _nothing(_error: Any) -> None:
    """The dialog says it itself."""
