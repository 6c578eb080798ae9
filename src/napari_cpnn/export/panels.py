"""Figures of the same place in several panels: of one map or several, measured spots, and one or two slides."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.errors import ExportError
from napari_cpnn.export.figure import ENDINGS, Scene, as_shown
from napari_cpnn.export.figure_page import Bar, Legend, Page, Panel
from napari_cpnn.export.files import replacing
from napari_cpnn.export.marks import Marks, Spots
from napari_cpnn.export.progress import reporter
from napari_cpnn.geometry import Rect
from napari_cpnn.painting import Shown, color_table, on_tissue, tissue_picture
from napari_cpnn.settings import FigureSettings

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide

_NO_KEY = Legend((), np.zeros((0, 3), np.float32))


@dataclass(frozen=True, eq=False)
class FigurePanel:
    """A panel of :func:`panels_to_figure`.

    Parameters
    ----------
    slide
        The slide, with a pixel size.
    rect
        The place, in micrometres of this slide. All panels have the size of the first.
    cmap, shown
        The map and the quantity that is drawn over the tissue; None: tissue alone.
    limits
        Values of the first and the last colour; None: from the values.
    spots
        Measured spots, with ``limits`` and ``unit`` of their colours.
    title
        Title; empty: the quantity.
    """

    slide: Slide
    rect: Rect
    cmap: CompositionMap | None = None
    shown: Shown | None = None
    limits: tuple[float, float] | None = None
    spots: Spots | None = None
    unit: str = "log1p CP10k"
    outlines: Marks | None = None
    title: str = ""


def panels_to_figure(
    panels: Sequence[FigurePanel],
    path: str | Path,
    settings: FigureSettings | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Draw panels of the same place as one figure, each with scale bar, and colour bar or legend.

    Parameters
    ----------
    panels
        One to nine panels.
    path
        ``.png``, ``.svg`` or ``.pdf``.
    settings
        Colours, opacity and size; ``low`` and ``high`` are those of each panel.
    overwrite
        Whether to replace an existing file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ExportError
        If there is no panel, nothing of a map is computed there, or the file cannot be written.
    GenesError
        If a model has no gene or cell type of a given name.
    PixelSizeError
        If a slide has no pixel size.

    Examples
    --------
    >>> from napari_cpnn.export import FigurePanel, panels_to_figure
    >>> from napari_cpnn.geometry import Rect
    >>> from napari_cpnn.painting import Shown
    >>> place = Rect(1000, 1000, 1500, 1600)
    >>> panels = [FigurePanel(slide, place), FigurePanel(slide, place, cmap, Shown("gene", ("ERBB2",)))]
    >>> panels_to_figure(panels, "panels.png").name
    'panels.png'
    """
    settings, path = settings or FigureSettings(), Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise ExportError(f"{path} is not the name of a figure; its extension must be {', '.join(ENDINGS)}.")
    if not 1 <= len(panels) <= 9:
        raise ExportError(f"A figure of panels has 1 to 9 panels, not {len(panels):,}.")
    with replacing(path, overwrite=overwrite) as temporary:
        page = Page(settings, panels[0].rect, len(panels))
        report = reporter()
        drawn: list[Panel] = []
        sentences: dict[str, None] = {}
        for number, panel in enumerate(panels):
            report(f"Drawing {path.name}", number / len(panels))
            picture, notes = _drawn(panel, page.shape_px, settings)
            drawn.append(_moved(picture, panel.rect, panels[0].rect))
            sentences |= dict.fromkeys(note.removesuffix(".") for note in notes.split(". ") if note)
        title = settings.title or " · ".join(dict.fromkeys(panel.slide.name for panel in panels))
        page.draw(drawn, title, "".join(f"{sentence}. " for sentence in sentences).strip())
        page.save(temporary, path.suffix.lower()[1:], title)
    return path


def _drawn(panel: FigurePanel, shape: tuple[int, int], settings: FigureSettings) -> tuple[Panel, str]:
    """Return a panel of a page, and what is to be said about it."""
    marks = Marks(
        () if panel.spots is None else (panel.spots,), () if panel.outlines is None else panel.outlines.outlines
    )
    if panel.limits is not None:
        settings = settings.replace(low=panel.limits[0], high=max(panel.limits[1], panel.limits[0] + 1e-6))
    if panel.cmap is not None and panel.shown is not None:
        shown = as_shown(panel.cmap, panel.shown)
        scene = Scene(panel.cmap, panel.slide, panel.rect)
        found = scene.panel(shown, scene.tissue(shape), settings)
        notes = scene.notes(settings, [shown])
        contours = "" if found.lines is None else found.lines.note
        title = ", ".join(filter(None, (panel.title, contours))) if panel.title else found.title
        return dataclasses.replace(found, title=title, marks=marks), notes
    picture = tissue_picture(panel.slide, panel.slide.require_mappable(), panel.rect, shape)
    if panel.spots is None or panel.limits is None:
        return Panel(panel.title or "H&E", picture, _NO_KEY, marks=marks), ""
    bar = Bar(on_tissue(color_table(settings.colormap)), panel.limits, panel.unit)
    return Panel(panel.title or panel.spots.name, picture, bar, marks=marks), (
        "Circles: measured spots." if panel.spots.bins is None else "Squares: measured bins."
    )


def _moved(panel: Panel, rect: Rect, to: Rect) -> Panel:
    """Move the outlines and marks of a panel from its place to that of the first panel, which the page is drawn in."""
    dy, dx = to.y0 - rect.y0, to.x0 - rect.x0
    if (dy, dx) == (0.0, 0.0):
        return panel
    from shapely.affinity import translate

    marks = panel.marks or Marks()
    spots = tuple(one.moved(dy, dx) for one in marks.spots)
    outlines = tuple((name, translate(outline, dx, dy)) for name, outline in marks.outlines)
    high, low = (None if o is None else translate(o, dx, dy) for o in (panel.high, panel.low))
    lines = None if panel.lines is None else panel.lines.moved(dy, dx)
    return dataclasses.replace(panel, marks=Marks(spots, outlines), high=high, low=low, lines=lines)
