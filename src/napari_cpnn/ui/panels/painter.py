"""Paints the maps and spots of panels, in a background thread. No Qt here."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn import painting
from napari_cpnn.arrays import BoolArray, Float32Array
from napari_cpnn.errors import CpnnError, GenesError
from napari_cpnn.geometry import Mpp, Rect, spatial_to_um
from napari_cpnn.mapping import members_of
from napari_cpnn.painting import AutoRange, Look, Painter, Range, Shown
from napari_cpnn.ui.canvas import LINE_PX, kind_of_lines, lines_of, opacity_of_lines
from napari_cpnn.ui.canvas import Painted as PaintedMap
from napari_cpnn.ui.layers import DEFAULT_UM, diameter_um
from napari_cpnn.ui.panels.panel import Key, Lines, Painted, PanelSpec

if TYPE_CHECKING:
    import numpy.typing as npt
    from anndata import AnnData

    from napari_cpnn.geometry import Grid
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.slides import Slide
    from napari_cpnn.spots import Bins
    from napari_cpnn.ui.canvas import Drawn

_KEY_COLORS = 256
#: Quantiles of measured values between which the colours lie.
_RANGE = (0.02, 0.98)
#: Pixels of all overlays together: nine overlays of the size that Explore paints would take a second.
_MOST_PX = 1_200_000
_HATCH = np.array((0.27, 0.27, 0.27, 0.75), np.float32)
_MOST_NAMES = 8


@dataclass(frozen=True, eq=False)
class Job:
    """What is needed to paint one panel: ``view`` is the visible rectangle in slide micrometres, at a zoom."""

    spec: PanelSpec
    slide: Slide | None
    cmap: CompositionMap | None
    spots: AnnData | None
    view: Rect | None
    at_rest: bool = True
    missing: str = ""
    px_per_um: float = 0.0


class MapPainter:
    """Painter of one map, shared by its panels, with the places that may be coloured."""

    def __init__(self, cmap: CompositionMap, slide: Slide, most_px: int) -> None:
        self.cmap, self._revision = cmap, -1
        self.painter = Painter(cmap.tissue)
        n = painting.pixels_per_patch(cmap.grid)
        while n > 1 and cmap.grid.n_cells * n * n > most_px:
            n //= 2
        self.n = n
        self.allowed: BoolArray = painting.paintable_pixels(cmap, n, slide)
        self._covered: BoolArray | None = None

    def catch_up(self) -> None:
        revision = self.cmap.revision
        if revision != self._revision:
            painting.catch_up(self.painter, self.cmap)
            self._revision = revision

    def picture(self, shown: Shown, look: Look, limits: Range, *, wash: bool = True) -> npt.NDArray[np.uint8]:
        """Return what was painted last, or its hatching alone: ``(rows, cols, 4)`` uint8, alpha premultiplied."""
        smooth = look.is_smooth(shown)
        covered = self.painter.covered.repeat(self.n, axis=0).repeat(self.n, axis=1)
        rgba = (self.painter.extended() if smooth else self.painter.rgba).copy()
        rgba[..., :3] = (rgba[..., :3] - np.float32(limits[0])) / np.float32(max(limits[1] - limits[0], 1e-12))
        large = painting.magnified(rgba, self.n, self.allowed & covered, smooth=smooth).clip(0, 1)
        if not wash:
            large[:] = 0
        if look.unlike == "hatched" and (unlike := painting.unlike_patches(self.cmap)).any():
            self._hatch(large, unlike)
        large[..., :3] *= large[..., 3:]
        return np.asarray(np.rint(large * 255), dtype=np.uint8)

    def _hatch(self, rgba: Float32Array, unlike: BoolArray) -> None:
        """Draw diagonal lines over the patches that are unlike the training tissue."""
        row, col = np.ogrid[: rgba.shape[0], : rgba.shape[1]]
        period = max(4, self.n // 2)
        at = unlike.repeat(self.n, axis=0).repeat(self.n, axis=1) & self.allowed & ((row + col) % period == 0)
        rgba[at] = _HATCH


class PanelPainter:
    """Paints panels; keeps the painters of their maps, and their automatic ranges, between calls of one thread."""

    def __init__(self) -> None:
        self._maps: dict[int, MapPainter] = {}
        self._ranges: dict[Hashable, AutoRange] = {}
        self._measured: dict[tuple[int, str], Float32Array] = {}
        self._bins: dict[tuple[int, Mpp], Bins | None] = {}

    def paint(self, jobs: Sequence[Job], look: Look) -> tuple[list[Painted], list[Range | None]]:
        """Paint all panels, those of one group in one range; return the pictures and the ranges."""
        self._forget(jobs)
        own: list[Range | None] = [None] * len(jobs)
        problems = [job.missing for job in jobs]
        for i, job in enumerate(jobs):
            try:
                own[i] = self._range(job, look)
            except CpnnError as error:
                problems[i] = str(error)
        limits = shared(jobs, own)
        most = _MOST_PX // max(sum(job.cmap is not None for job in jobs), 1)
        painted = []
        for job, problem, at in zip(jobs, problems, limits, strict=True):
            if problem:
                painted.append(Painted(note=problem))
            elif job.spec.kind == "map":
                painted.append(self._map(job, look, at, most))
            elif job.spec.kind == "spots" and at is not None:
                painted.append(self._spots(job, look, at))
            else:
                painted.append(Painted())
        return painted, limits

    def _forget(self, jobs: Sequence[Job]) -> None:
        """Drop what belongs to maps and tables that no panel shows any more."""
        maps, tables = {id(job.cmap) for job in jobs}, {id(job.spots) for job in jobs}
        self._maps = {key: one for key, one in self._maps.items() if key in maps}
        self._measured = {key: one for key, one in self._measured.items() if key[0] in tables}
        self._bins = {key: one for key, one in self._bins.items() if key[0] in tables}
        wanted = {_range_key(job) for job in jobs}
        self._ranges = {key: one for key, one in self._ranges.items() if key in wanted}

    def _painter_of(self, job: Job, most_px: int = _MOST_PX) -> MapPainter | None:
        cmap, slide = job.cmap, job.slide
        if cmap is None or slide is None:
            return None
        found = self._maps.get(id(cmap))
        if found is None or found.cmap is not cmap:
            found = self._maps[id(cmap)] = MapPainter(cmap, slide, most_px)
        found.catch_up()
        return found

    def _range(self, job: Job, look: Look) -> Range | None:
        """Return the range that a panel would have alone."""
        shown = job.spec.shown
        _require(job)
        if job.missing or shown is None or not shown.has_range:
            return None
        if job.spec.kind == "spots":
            if (fixed := look.fixed(shown)) is not None:
                return fixed
            values = self.measured(job)
            low, high = (float(v) for v in np.quantile(values, _RANGE)) if len(values) else (0.0, 1.0)
            return low, max(high, low + 0.1)
        found = self._painter_of(job)
        if found is None:
            return None
        auto = self._ranges.setdefault(_range_key(job), painting.auto_range(shown))
        return painting.paint(found.painter, found.cmap, shown, look, auto, at_rest=job.at_rest)

    def _map(self, job: Job, look: Look, limits: Range | None, most_px: int) -> Painted:
        shown, found = job.spec.shown, self._painter_of(job, most_px)
        if shown is None or found is None:
            return Painted(note=job.missing)
        if limits is not None and shown.measure == "value":
            fixed = dataclasses.replace(look, range_mode="manual", manual=limits, manual_for="")
        else:
            fixed = look
        auto = self._ranges.setdefault(_range_key(job), painting.auto_range(shown))
        at = painting.paint(found.painter, found.cmap, shown, fixed, auto, at_rest=job.at_rest)
        grid = found.cmap.grid
        values = painting.values_of(found.cmap, shown) if shown.has_range else None
        kind = kind_of_lines(shown, look, job.px_per_um * grid.stride_um)
        levels: list[float] = []
        lines = None
        if kind:
            on_screen = PaintedMap(found.cmap, shown, look, at, found.painter.rgba)
            lines, levels = _lines(on_screen, kind, job.px_per_um * grid.stride_um)
        per_unit, percent = shown.per_unit, " %" if shown.per_unit != 1 else ""
        contours = f"contours at {', '.join(f'{v * per_unit:g}' for v in levels)}{percent}" if levels else ""
        return Painted(
            found.picture(shown, look, at, wash=not kind),
            _rect_of(grid),
            look.is_smooth(shown) and not kind,
            lines,
            self._key(job, look, at),
            note=" · ".join(filter(None, (painting.scale_text(found.cmap, shown, look.scale_um), contours))),
            numbers=values,
        )

    def _key(self, job: Job, look: Look, limits: Range) -> Key | None:
        shown, cmap = job.spec.shown, job.cmap
        if shown is None or cmap is None:
            return None
        if shown.has_range:
            colors = painting.on_tissue(painting.color_table(look.colormap), look.opacity)
            return Key(colors, limits, painting.unit_of(shown, cmap))
        if shown.kind == "blend":
            names = list(shown.names)
        else:
            where = (slice(None), slice(None)) if job.view is None else cmap.grid.window(job.view)
            names = painting.dominant_types(cmap, where, shown.level)
        names, table = names[:_MOST_NAMES], painting.colors_of(cmap)
        return Key(painting.hex_colors([table[name] for name in names]), names=tuple(names))

    def measured(self, job: Job) -> Float32Array:
        """Return the values ``(N,)`` of the gene of a panel at its spots."""
        from napari_cpnn.spots import expression

        shown, spots = job.spec.shown, job.spots
        if shown is None or spots is None:
            raise GenesError("No measured spots are open: open some in the Compare dock.")
        key = (id(spots), shown.name)
        if key not in self._measured:
            if shown.name not in spots.var_names:
                raise GenesError(f"{shown.name} was not measured in these spots.")
            self._measured[key] = np.asarray(expression(spots, [shown.name]), dtype=np.float32)[:, 0]
        return self._measured[key]

    def _spots(self, job: Job, look: Look, limits: Range) -> Painted:
        from napari_cpnn.spots import bins_of

        slide, spots = job.slide, job.spots
        if slide is None or slide.mpp is None or spots is None:
            return Painted(note=job.missing)
        values = self.measured(job)
        table = painting.spot_colors(np.linspace(0, 1, _KEY_COLORS), (0, 1), look.colormap)
        key = Key(painting.on_tissue(table, look.opacity), limits, "log1p CP10k")
        known = diameter_um(spots, slide.mpp)
        diameter, colors = known or DEFAULT_UM, painting.spot_colors(values, limits, look.colormap)
        lattice = id(spots), slide.mpp
        if lattice not in self._bins:
            self._bins[lattice] = bins_of(spots, slide.mpp, known)
        bins, rgba = self._bins[lattice], None
        if bins is not None:
            opaque = colors * np.concatenate([colors[:, 3:].repeat(3, axis=1), np.ones_like(colors[:, 3:])], axis=1)
            rgba = bins.picture(np.rint(opaque * 255).astype(np.uint8))
        return Painted(
            rgba=rgba,
            bins=bins,
            key=key,
            centers_um=spatial_to_um(spots.obsm["spatial"], slide.mpp),
            diameter_um=diameter,
            colors=colors,
            note=f"{spots.n_obs:,} spots of {diameter:.0f} µm",
            numbers=values,
        )


def _lines(painted: PaintedMap, kind: Drawn, patch_px: float) -> tuple[Lines, list[float]]:
    """Return the lines of a whole map, and the values of contours."""
    grid = painted.cmap.grid
    whole = (slice(None), slice(None))
    lines, colors, levels = lines_of(painted, kind, whole, LINE_PX / max(patch_px, LINE_PX))
    starts = (lines[:, 0] + 0.5) * grid.stride_um + np.asarray(grid.origin_um)
    colors = colors * np.array([1.0, 1.0, 1.0, opacity_of_lines(painted.look)])
    return Lines(starts, starts + lines[:, 1] * grid.stride_um, colors, kind != "patches"), levels


def shared(jobs: Sequence[Job], own: Sequence[Range | None]) -> list[Range | None]:
    """Return the range of each panel: within a group, from the lowest to the highest value of its ranges."""
    groups: dict[str, Range] = {}
    for job, limits in zip(jobs, own, strict=True):
        group = job.spec.scale_group
        if group and limits is not None:
            low, high = groups.get(group, limits)
            groups[group] = min(low, limits[0]), max(high, limits[1])
    return [limits and groups.get(job.spec.scale_group, limits) for job, limits in zip(jobs, own, strict=True)]


def _require(job: Job) -> None:
    """Raise a :class:`GenesError` if the model of a panel does not have its quantity."""
    shown, cmap = job.spec.shown, job.cmap
    if job.spec.kind != "map" or shown is None or cmap is None:
        return
    genes: tuple[str, ...] = (shown.gene,) if shown.gene else ()
    types = shown.names[1:] if shown.kind == "contribution" else () if shown.gene else shown.names
    if shown.kind == "signature":
        genes, types = shown.names[1:], ()
    missing = [gene for gene in genes if gene not in cmap.genes]
    missing += [name for name in types if not members_of(cmap, name, shown.level)]
    if missing:
        raise GenesError(f"This model does not predict {missing[0]}.")
    if shown.kind == "dominant" and shown.measure != "domain" and not cmap.cell_types:
        raise GenesError("This model predicts genes only, no cell types.")


def _range_key(job: Job) -> Hashable:
    return job.spec, id(job.cmap)


def _rect_of(grid: Grid) -> Rect:
    y, x = grid.origin_um
    return Rect(y, x, y + grid.shape[0] * grid.stride_um, x + grid.shape[1] * grid.stride_um)
