"""Draw maps as publication figures: panels over the tissue with scale bar, colour bar or legend, and provenance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Picture
from napari_cpnn.counts import require_genes
from napari_cpnn.errors import ExportError, GenesError, NoTissueError
from napari_cpnn.export.cells import pixel_size
from napari_cpnn.export.figure_lines import lines_of
from napari_cpnn.export.figure_page import Bar, Legend, Page, Panel, Warned
from napari_cpnn.export.files import replacing
from napari_cpnn.export.marks import Marks
from napari_cpnn.export.part import Area, cells_seen, contains, extent_of, outline_um, rect_of, require_area
from napari_cpnn.export.progress import reporter
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import DONE, FAILED, DomainReport, MarkedPlaces, Signature, domain_report, members_of
from napari_cpnn.models import model_words
from napari_cpnn.painting import (
    COLORMAPS,
    FAILED_COLOR,
    PALE,
    WARNING_COLORS,
    Look,
    Painter,
    Shown,
    auto_range,
    catch_up,
    color_table,
    colors_of,
    dominant_types,
    hatch,
    hex_colors,
    lay_over,
    on_patches,
    on_tissue,
    paint,
    paintable,
    require_interval,
    scale_of,
    scale_text,
    spread_notes,
    tissue_picture,
    unit_of,
    unlike_patches,
)
from napari_cpnn.palette import Level
from napari_cpnn.settings import FigureSettings
from napari_cpnn.slides import TissueMask, find_tissue
from napari_cpnn.texts import shown as one_line

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide

ENDINGS = (".png", ".svg", ".pdf")
MAX_PANELS = 24
#: Margin around the outline of a region, as a share of its size.
_MARGIN = 0.06
_WHITE = (1.0, 1.0, 1.0)


def to_figure(
    cmap: CompositionMap,
    path: str | Path,
    shown: Sequence[str | Shown | Signature] | str | Shown | Signature = "dominant",
    slide: Slide | None = None,
    settings: FigureSettings | None = None,
    *,
    overwrite: bool = False,
    area: Area | None = None,
    marks: Marks | None = None,
) -> Path:
    """Draw a map over its tissue, as on screen, with scale bar, legends and notes.

    Parameters
    ----------
    cmap
        The map.
    path
        ``.png``, ``.svg`` or ``.pdf``; text and bars are vectors in the last two. The file appears when it is complete.
    shown
        One panel each: the name of a gene or cell type, ``"ERBB2 from B-cells"`` (the contribution of a type to a
        gene), ``"interval of ERBB2"`` (the width of the 90 % interval of a gene or type), ``"out of domain"`` (the
        out-of-domain score), or ``"dominant"`` (the type with the largest share). Major types, as in
        ``Shown("dominant", level="major")``, need a map with a hierarchy. Also a set of genes that
        :func:`napari_cpnn.signature` has scored. Places that
        :meth:`CompositionMap.mark` marked are outlined on the panel of their gene.
    slide
        The slide of the map; without it, the background is white.
    settings
        Colours, range, opacity and size.
    overwrite
        Whether to replace an existing file.
    area
        The part of the slide to draw, in slide micrometres: a rectangle, or the outline of a region, which is drawn and
        to which the map is clipped. By default all mapped tissue.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ExportError
        If nothing is computed there, the slide is not the map's, or the file exists or cannot be written.
    GenesError
        If the model has no gene or cell type of a given name.
    PixelSizeError
        If a slide is given, and neither it nor the map has a pixel size.

    Examples
    --------
    >>> nc.to_figure(cmap, "figure.png", ["dominant", "ERBB2"], slide=slide).name
    'figure.png'
    """
    settings, path = settings or FigureSettings(), Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise ExportError(f"{path} is not the name of a figure; its extension must be {', '.join(ENDINGS)}.")
    if settings.colormap not in COLORMAPS:
        raise ExportError(f"Unknown colour map {settings.colormap!r}; use {', '.join(COLORMAPS)}.")
    wanted = [shown] if isinstance(shown, (str, Shown, Signature)) else list(shown)
    with replacing(path, overwrite=overwrite) as temporary:
        scene = Scene(cmap, slide, area)
        quantities = [as_shown(cmap, one) for one in wanted]
        if not 1 <= len(quantities) <= MAX_PANELS:
            raise ExportError(f"A figure has 1 to {MAX_PANELS} panels, not {len(quantities):,}; choose fewer.")
        page = Page(settings, scene.rect, len(quantities))
        report = reporter()
        report(f"Drawing {path.name}", 0.0)
        tissue = scene.tissue(page.shape_px)
        panels = []
        for number, one in enumerate(quantities):
            panels.append(dataclasses.replace(scene.panel(one, tissue, settings), marks=marks))
            report(f"Drawing {path.name}", (number + 0.5) / len(quantities))
        title = settings.title or scene.title()
        notes = [scene.notes(settings, quantities), "" if marks is None else marks.note]
        page.draw(panels, title, " ".join(note for note in notes if note), scene.outline, scene.warned())
        page.save(temporary, path.suffix.lower()[1:], title)
    return path


def as_shown(cmap: CompositionMap, name: str | Shown | Signature, level: Level = "minor") -> Shown:
    """Resolve a name to a quantity of a map; see :func:`to_figure`. ``level`` is that of names of cell types.

    Raises
    ------
    GenesError
        If the model has no quantity of that name.
    """
    if isinstance(name, Signature):
        name = Shown("signature", (name.name, *name.used))
    shown = name if isinstance(name, Shown) else dataclasses.replace(_meaning(cmap, name, level), level=level)
    if shown.kind == "signature":
        require_genes(cmap.genes, shown.names[1:], "The model of this map")
        return shown
    types = shown.names[1:] if shown.kind == "contribution" else () if shown.gene else shown.names
    unknown = [n for n in types if not members_of(cmap, n, shown.level)]
    if shown.gene and shown.gene not in cmap.genes:
        unknown = [shown.gene]
    if unknown or (not shown.gene and not cmap.cell_types and shown.measure != "domain"):
        missing = f"{unknown[0]!r}" if unknown else "cell types"
        raise GenesError(
            f"The model of this map has no {missing}: it has {len(cmap.genes):,} genes, such as "
            f"{', '.join(cmap.genes[:3])}, and these cell types: {', '.join(cmap.types_at(shown.level)) or 'none'}."
        )
    if shown.measure == "interval":
        require_interval(cmap, shown)
    return shown


def _meaning(cmap: CompositionMap, name: str, level: Level) -> Shown:
    if name in cmap.genes:
        return Shown("gene", (name,))
    if members_of(cmap, name, level):
        return Shown("type", (name,))
    if name == "out of domain":
        return Shown("dominant", measure="domain")
    of, _, quantity = name.partition("interval of ")
    if quantity and not of:
        return Shown("type" if members_of(cmap, quantity, level) else "gene", (quantity,), "interval")
    gene, _, cell_type = name.partition(" from ")
    if cell_type:
        return Shown("contribution", (gene, cell_type))
    return Shown("dominant") if name == "dominant" else Shown("gene", (name,))


class Scene:
    """A part of a map over its tissue, from which each panel of a figure is drawn.

    Parameters
    ----------
    cmap, slide, area
        As for :func:`to_figure`.

    Attributes
    ----------
    rect
        Visible rectangle, slide micrometres.
    outline
        Outline of the region, ``None`` if there is none.
    """

    def __init__(self, cmap: CompositionMap, slide: Slide | None, area: Area | None) -> None:
        self.cmap, self.slide = cmap, slide
        self.mpp = None if slide is None else pixel_size(cmap, slide)
        if slide is not None:
            slide.with_mpp(self.mpp).require_mappable()
        if area is not None:
            require_area(area)
        self.outline = None if area is None or isinstance(area, Rect) else area
        self.rect = extent_of(cmap, slide, self.mpp) if area is None else rect_of(area)
        self._seen = cells_seen(cmap.grid, self.rect if self.outline is None else self.outline)
        if not (cmap.donors()[self._seen] >= 0).any():
            where = "this area" if area is not None else "the map"
            raise ExportError(f"No patch of {where} has been computed yet, so there is nothing to draw.")
        if self.outline is not None:
            self.rect = self.rect.grown(_MARGIN * max(self.rect.height, self.rect.width))
        self._ground: tuple[float, ...] = _WHITE
        self._painter = Painter(cmap.tissue)
        catch_up(self._painter, cmap)

    def tissue(self, shape: tuple[int, int]) -> Picture:
        """Return the tissue without the map as a picture of ``shape`` ``(rows, cols)`` in px."""
        if self.slide is None or self.mpp is None:
            return np.full((*shape, 3), 255, dtype=np.uint8)
        picture = tissue_picture(self.slide, self.mpp, self.rect, shape)
        self._ground = self._mean_color(picture)
        return picture

    def _mean_color(self, picture: Picture) -> tuple[float, ...]:
        """Return the mean colour of the tissue under the map, 0 to 1."""
        cells = np.argwhere(self._seen & (self.cmap.donors() >= 0))
        um = self.cmap.grid.centers_um(cells) - (self.rect.y0, self.rect.x0)
        place = (um / (self.rect.height, self.rect.width) * picture.shape[:2]).astype(np.intp)
        row, col = place[((place >= 0) & (place < picture.shape[:2])).all(axis=1)].T
        return tuple(picture[row, col].mean(axis=0) / 255) if row.size else _WHITE

    def panel(self, shown: Shown, tissue: Picture, settings: FigureSettings) -> Panel:
        """Return a panel with one quantity over the tissue, and its key."""
        look = Look(
            settings.colormap,
            settings.value_range,
            opacity=settings.opacity,
            smooth=settings.smooth,
            unlike=settings.unlike,
            scale_um=settings.scale_um,
        )
        limits = paint(self._painter, self.cmap, shown, look, auto_range(shown))
        one_range = shown.has_range and shown.measure == "value"
        if one_range and (settings.low is not None or settings.high is not None):
            low = limits[0] if settings.low is None else settings.low
            high = limits[1] if settings.high is None else settings.high
            look = dataclasses.replace(look, range_mode="manual", manual=(low, high), manual_for="")
            limits = paint(self._painter, self.cmap, shown, look, auto_range(shown))
        # The painter also colours patches outside the limits, as needed on screen.
        smooth = look.is_smooth(shown)
        rgba = self._painter.extended() if smooth else self._painter.rgba.copy()
        rgba[..., :3] = (rgba[..., :3] - limits[0]) / (limits[1] - limits[0])
        picture = tissue.copy()
        mask = self._mask(picture.shape[:2])
        lines = None
        if settings.style == "contours":
            lines = lines_of(self.cmap, shown, look, limits, rgba.clip(0, 1), self._seen)
        if lines is None:
            lay_over(picture, rgba, self.cmap.grid, self.rect, look.opacity, smooth=smooth, mask=mask)
        unlike = unlike_patches(self.cmap)
        if settings.unlike == "hatched" and unlike.any():
            hatch(picture, unlike, self.cmap.grid, self.rect, settings.dpi, mask)
        key = self._bar(shown, look, limits) if shown.has_range else self._legend(shown, look)
        title = _panel_title(shown)
        italic = shown.kind == "gene" and title == shown.name
        if text := scale_text(self.cmap, shown, look.scale_um):
            title = f"{title}, {text}"
        if marked := self._marked(shown):
            scales = " and ".join(dict.fromkeys(places.scale_text for places in marked))
            title = f"{title}; outline: mean over {scales}"
        outlines = {places.side: outline_um(self.cmap.grid, places.mask) for places in self._marked(shown)}
        if lines is not None and lines.note:
            title = f"{title}, {lines.note}"
        return Panel(title, picture, key, italic=italic, lines=lines, **outlines)

    def _marked(self, shown: Shown) -> list[MarkedPlaces]:
        return [p for p in self.cmap.marked.values() if shown.kind == "gene" and shown.gene == p.gene]

    def _marked_note(self, quantities: Sequence[Shown]) -> list[str]:
        """Return what the outlines of high and low places mean, in one sentence, if there are any."""
        marked = list(dict.fromkeys(places for one in quantities for places in self._marked(one)))
        if not marked:
            return []
        named = [f"{p.name} (mean over {p.scale_text}, {p.fdr:.0%})" for p in marked]
        meaning = (
            "Outlined (low: dashed): predicted above or below the median of the section, at a scale and a false "
            "discovery rate measured on held-out sections"
        )
        return [f"{meaning}: {', '.join(named)}."]

    def _mask(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Return where the map may be drawn: in the region, on the slide and, where it is known, on its tissue."""
        y = self.rect.y0 + (np.arange(shape[0]) + 0.5) * self.rect.height / shape[0]
        x = self.rect.x0 + (np.arange(shape[1]) + 0.5) * self.rect.width / shape[1]
        grid = self.cmap.grid
        mask = paintable(grid, y, x, self.slide, self.mpp, self._tissue)
        mask &= on_patches(self._painter.covered, grid, y, x)
        if self.outline is not None:
            points = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)
            mask &= contains(self.outline, points).reshape(shape[:2])
        return mask

    @cached_property
    def _tissue(self) -> TissueMask | None:
        """Tissue of the slide, found again for a map from a file; None without a slide."""
        if self.cmap.tissue_mask is not None or self.slide is None:
            return self.cmap.tissue_mask
        try:
            return find_tissue(self.slide.with_mpp(self.mpp))
        except NoTissueError:  # other settings did find some
            return None

    def _bar(self, shown: Shown, look: Look, limits: tuple[float, float]) -> Bar:
        return Bar(on_tissue(color_table(look.colormap), look.opacity, self._ground), limits, unit_of(shown, self.cmap))

    def _legend(self, shown: Shown, look: Look) -> Legend:
        """Return the legend of the cell types in the picture, and of unreadable patches."""
        names = list(shown.names) if shown.kind == "blend" else dominant_types(self.cmap, self._seen, shown.level)
        colors = colors_of(self.cmap)
        rgba = np.concatenate([hex_colors([colors[n] for n in names]), np.ones((len(names), 1), np.float32)], axis=1)
        if (self.cmap.state[self._seen] == FAILED).any():
            names = [*names, "could not be read"]
            rgba = np.concatenate([rgba, np.array([FAILED_COLOR], np.float32)])
        return Legend(tuple(names), on_tissue(rgba, look.opacity, self._ground))

    def _domain_report(self) -> DomainReport:
        """Return how much of the visible part of the map is unlike the training tissue."""
        donors = self.cmap.donors()[self._seen]
        scores = self.cmap.out_of_domain.ravel()[donors[donors >= 0]]
        return domain_report(scores, str(self.cmap.provenance.get("trained_on") or ""))

    def warned(self) -> Warned | None:
        """Return the warning at the top, if what is shown is unlike the training tissue."""
        report = self._domain_report()
        return Warned(report.warning, *WARNING_COLORS[report.level]) if report.warning else None

    def title(self) -> str:
        """Return the title, with slide and model."""
        provenance = self.cmap.provenance
        name = self.slide.name if self.slide is not None else provenance.get("slide")
        parts = [one_line(name)] if name else []
        return " · ".join([*parts, model_words(provenance.get("model"), provenance.get("model_fingerprint"))])

    def notes(self, settings: FigureSettings, quantities: Sequence[Shown]) -> str:
        """Return the notes printed below the panels."""
        notes = [
            "Predicted from the H&E image by CPNN; research use only.",
            f"One value per {self.cmap.grid.stride_um:g} µm.",
        ]
        if any(scale_of(self.cmap, one, settings.scale_um) for one in quantities):
            notes.append("Averaged: mean of the patches in a disc of that diameter.")
        notes += [
            f"{one.name}: mean z-score over the mapped tissue of {len(one.names) - 1} genes."
            for one in quantities
            if one.kind == "signature"
        ]
        if any(one.measure == "interval" for one in quantities):
            notes.append("Interval: where nine of ten measured spots lie.")
        if any(one.kind == "dominant" and one.measure == "value" for one in quantities):
            notes.append(f"Dominant type, {PALE}.")
        tissue, state = self.cmap.tissue[self._seen], self.cmap.state[self._seen]
        done = (state == DONE)[tissue].mean()
        if done < 1:
            notes.append(f"{np.floor(1000 * done) / 10:g} % of the tissue shown is computed; the rest is coarser.")
        notes += self._marked_note(quantities)
        notes += spread_notes(self.cmap, quantities)
        report = self._domain_report()
        if report.n_patches and report.unlike > 0 and settings.unlike != "shown":
            drawn = "Hatched" if settings.unlike == "hatched" else "Left out"
            notes.append(f"{drawn}: tissue unlike that of the training.")
        fixed = settings.low is not None and settings.high is not None
        if settings.value_range == "auto" and not fixed and any(one.has_range for one in quantities):
            notes.append("Values outside the colour range have the first or last colour.")
        return " ".join(notes)


def _panel_title(shown: Shown) -> str:
    if shown.measure != "value":
        return shown.label
    if shown.kind == "blend":
        return "Shares of cell types, mixed"
    return shown.title if shown.kind == "dominant" else shown.name
