"""Colours of cells: what is known of them, what they are coloured by, and their mean per patch. No Qt here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array, IntArray, Picture
from napari_cpnn.cells import CellMap, CellsOfPatches
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.mapping import marker_sets
from napari_cpnn.nuclei import Nuclei
from napari_cpnn.painting import PALE, Painter, color_table, format_value, hex_colors
from napari_cpnn.palette import type_colors

if TYPE_CHECKING:
    from napari_cpnn.counts import GeneSet
    from napari_cpnn.slides import Slide

CellKind = Literal["type", "class", "gene", "signature", "share", "area", "plain"]

#: Side of the patches over which cells are averaged where they are too many to be drawn, in um.
PATCH_UM = 50.0
_MOST_PATCHES = 4_000_000
#: Colour of cells of which a quantity is not known, and of all where none is shown.
_UNKNOWN, _PLAIN = (150, 150, 150, 255), (40, 200, 90, 255)
#: Quantiles of the values that the ends of a colour range are.
_ENDS = (0.02, 0.99)
#: Nuclei of which the mean size is taken.
_SAMPLE = 2000
#: Names in a legend at most, and steps of its colour range.
_MOST_NAMES, _STEPS, _WHITE = 10, 5, "#FFFFFF"
_LEAST_WIDTH = {"gene": 0.1, "signature": 0.1, "share": 0.05, "area": 1.0}


@dataclass(frozen=True)
class CellShown:
    """What cells are coloured by: type, class, a gene, a signature of genes, the share of a type, area, or nothing."""

    kind: CellKind = "plain"
    name: str = ""
    genes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        titles = {
            "type": "Cell type",
            "class": "Class",
            "area": "Nuclear area",
            "plain": "Cells",
            "gene": f"Gene: {self.name}",
            "signature": f"Signature: {self.name}",
            "share": f"Cell type: {self.name}",
        }
        return titles[self.kind]

    @property
    def unit(self) -> str:
        """Unit of the colour bar; empty for categories."""
        units = {"gene": "log1p CP10k", "signature": "mean z-score", "share": "share of cell type", "area": "µm²"}
        return "per mm²" if self.kind == "plain" else units.get(self.kind, "")

    @property
    def is_category(self) -> bool:
        return self.kind in ("type", "class")


@dataclass(frozen=True, eq=False)
class CellContent:
    """Cells of a slide, and what is predicted of them.

    Parameters
    ----------
    nuclei
        The cells.
    cells
        Predictions; ``None`` if there are none.
    """

    nuclei: Nuclei
    cells: CellMap | None = None

    def __len__(self) -> int:
        return len(self.nuclei)

    @property
    def kinds(self) -> list[CellKind]:
        """What these cells can be coloured by, the most telling first."""
        kinds: list[CellKind] = []
        if self.cells is not None:
            kinds += ["type", "gene", "signature", "share"] if self.cells.cell_types else ["gene", "signature"]
        if self.nuclei.classes is not None:
            kinds.append("class")
        if self.nuclei.outlines is not None:
            kinds.append("area")
        return [*kinds, "plain"]

    @property
    def category(self) -> str:
        """What tells these cells apart: ``"type"``, else ``"class"``; empty if neither is known."""
        return next((kind for kind in self.kinds if kind in ("type", "class")), "")

    @cached_property
    def areas(self) -> Float32Array | None:
        """Areas of the outlines ``(N,)`` in um2, where there are some."""
        return None if self.nuclei.outlines is None else self.nuclei.areas_um2().astype(np.float32)

    @cached_property
    def diameter_um(self) -> float:
        """Diameter of a mean nucleus in um."""
        n = len(self.nuclei)
        if self.nuclei.outlines is None or not n:
            return 8.0
        some = self.nuclei.outlines.subset(np.arange(0, n, max(1, n // _SAMPLE)))
        return max(float(2 * np.sqrt(some.areas_um2().mean() / np.pi)), 1.0)

    def codes(self, kind: str) -> tuple[IntArray, tuple[str, ...]]:
        """Return the type or class of each cell ``(N,)``, -1 for none, and the names of all."""
        if kind == "type" and self.cells is not None:
            return self.cells.dominant().astype(np.intp), self.cells.cell_types
        if kind == "class" and self.nuclei.classes is not None:
            return self.nuclei.classes.astype(np.intp), self.nuclei.class_names
        return np.full(len(self), -1, dtype=np.intp), ()

    def colors_of(self, kind: str) -> dict[str, str]:
        """Return ``#RRGGBB`` of each type or class, the same for one name everywhere."""
        hierarchy = self.cells.hierarchy if kind == "type" and self.cells is not None else {}
        return type_colors(self.codes(kind)[1], hierarchy)

    def values(self, shown: CellShown) -> Float32Array | None:
        """Return a quantity of each cell ``(N,)``, NaN where unknown; ``None`` for categories.

        Raises
        ------
        CpnnError
            If the model does not know a gene or type.
        """
        if shown.kind == "area":
            return self.areas
        if self.cells is not None and shown.kind == "gene":
            return self.cells.expression(shown.name)
        if self.cells is not None and shown.kind == "signature":
            return self.cells.signature(shown.genes)
        if self.cells is not None and shown.kind == "share":
            return self.cells.weight(shown.name)
        return None

    @cached_property
    def markers(self) -> tuple[GeneSet, ...]:
        """Markers of the model's cell types, as sets of genes."""
        return () if self.cells is None else marker_sets(self.cells.decoder)


def _hex(color: Sequence[int]) -> str:
    return "#" + "".join(f"{v:02X}" for v in color[:3])


def still_shown(shown: CellShown, content: CellContent) -> CellShown:
    """Return what is shown if these cells have it, else the most telling that they have."""
    known = shown.kind in content.kinds
    if known and content.cells is not None and shown.kind == "gene":
        known = shown.name in content.cells.genes
    if known and content.cells is not None and shown.kind == "signature":
        known = bool(shown.genes) and set(shown.genes) <= set(content.cells.genes)
    if known and content.cells is not None and shown.kind == "share":
        known = shown.name in content.cells.cell_types
    return shown if known else best_shown(content)


def best_shown(content: CellContent) -> CellShown:
    """Return what tells most of these cells: their types, else their classes."""
    return CellShown(next((kind for kind in content.kinds if kind in ("type", "class")), "plain"))


@dataclass(frozen=True, eq=False)
class ColoredCells:
    """Cells in the colours of a quantity.

    Attributes
    ----------
    colors
        ``(N, 4)`` uint8 RGBA of each cell.
    limits
        Values of the first and the last colour of single cells; ``None`` for categories.
    mean
        ``(rows, cols, 4)`` float32 RGBA in 0 to 1: the mean, the most common category, or the density of each patch.
    mean_limits
        As ``limits``, of the patches.
    counts
        Cells in each patch, summed up from the first: ``(rows + 1, cols + 1)``.
    """

    content: CellContent
    shown: CellShown
    colormap: str
    colors: Picture
    limits: tuple[float, float] | None
    grid: Grid
    mean: Float32Array
    mean_limits: tuple[float, float] | None
    counts: IntArray

    def legend(self, *, means: bool) -> tuple[tuple[str, str], ...]:
        """Return texts and their background colours: what single cells or the patches show, and what colour means what.

        Categories come by frequency; a colour range has its values from the highest to the lowest.
        """
        shown, limits = self.shown, self.mean_limits if means else self.limits
        of = f"in each {self.grid.stride_um:g} µm" if means else "single cells"
        if shown.is_category:
            codes, names = self.content.codes(shown.kind)
            counts, colors = np.bincount(codes + 1, minlength=len(names) + 1), self.content.colors_of(shown.kind)
            order = [code for code in np.argsort(-counts[1:], kind="stable").tolist() if counts[code + 1]]
            named = [(names[code], colors[names[code]]) for code in order]
            lines = [(f"most common {shown.title.lower()} {of}" if means else f"{shown.title}, {of}", _WHITE)]
            more = [(f"and {len(named) - _MOST_NAMES:,} more", _WHITE)] if len(named) > _MOST_NAMES else []
            lines += [*named[:_MOST_NAMES], *more, *([(PALE, _WHITE)] if means else [])]
            has_unknown = bool(counts[0]) and not means
        elif limits is None:
            return (("cells", _hex(_PLAIN)),)
        else:
            what = "cells" if shown.kind == "plain" else f"{shown.title}, mean of cells" if means else shown.title
            lines = [(f"{what} {of}, {shown.unit}" if means else f"{what}, {of}, {shown.unit}", _WHITE)]
            table = np.rint(255 * color_table(self.colormap)[:, :3]).astype(int)
            for share in np.linspace(1.0, 0.0, _STEPS).tolist():
                value = limits[0] + share * (limits[1] - limits[0])
                text = f"{value:,.0f}" if shown.unit in ("µm²", "per mm²") else format_value(value, shown.unit)
                lines.append((text, _hex(table[round(share * (len(table) - 1))].tolist())))
            values = None if means else self.content.values(shown)
            has_unknown = values is not None and not bool(np.isfinite(values).all())
        return (*lines, *([("not known", _hex(_UNKNOWN))] if has_unknown else []))

    def n_within(self, rect: Rect) -> int:
        """Return about how many cells lie in a rectangle, without looking at them."""
        rows, cols = self.grid.window(rect)
        c = self.counts
        return int(
            c[rows.stop, cols.stop] - c[rows.start, cols.stop] - c[rows.stop, cols.start] + c[rows.start, cols.start]
        )


def grid_of(slide: Slide) -> Grid:
    """Return the grid over a slide whose patches show the mean of their cells."""
    mpp = slide.require_mappable()
    side = [n * m for n, m in zip(slide.shape[:2], mpp, strict=True)]
    stride = max(PATCH_UM, float(np.sqrt(side[0] * side[1] / _MOST_PATCHES)))
    return Grid.over((slide.shape[0], slide.shape[1]), mpp, stride)


def color_cells(content: CellContent, shown: CellShown, colormap: str, grid: Grid) -> ColoredCells:
    """Colour cells, and the patches of a grid by their mean; raises as :meth:`CellContent.values`."""
    patches = CellsOfPatches.of(content.nuclei.centers_um, grid)
    table = color_table(colormap)
    values = content.values(shown)
    limits = None if values is None else _limits(values, shown)
    painter = Painter(patches.counts > 0)
    if values is not None and limits is not None:
        colors = _scaled(values, limits, table)
        means = patches.means(values)
        there = np.isfinite(means)
        _update(painter, there)
        painter.paint_values(painter.shown(means), table, limits)
        mean, mean_limits = _plain(painter.rgba, limits), limits
    elif shown.is_category:
        codes, names = content.codes(shown.kind)
        rgb = hex_colors(list(content.colors_of(shown.kind).values()))
        colors = np.vstack([np.c_[np.rint(255 * rgb), np.full(len(rgb), 255)], _UNKNOWN]).astype(np.uint8)[codes]
        mean, mean_limits = _most_common(painter, patches, codes, len(names), rgb), None
    else:
        colors = np.tile(np.array(_PLAIN, dtype=np.uint8), (len(content), 1))
        density = (patches.counts / (grid.stride_um / 1000) ** 2).astype(np.float32)
        there = patches.counts > 0
        _update(painter, there)
        mean_limits = 0.0, max(float(np.quantile(density[there], _ENDS[1])) if there.any() else 0.0, 1.0)
        painter.paint_values(painter.shown(density), table, mean_limits)
        mean = _plain(painter.rgba, mean_limits)
    counts = np.zeros((grid.shape[0] + 1, grid.shape[1] + 1), dtype=np.intp)
    counts[1:, 1:] = patches.counts.cumsum(axis=0).cumsum(axis=1)
    return ColoredCells(content, shown, colormap, colors, limits, grid, mean, mean_limits, counts)


def _limits(values: Float32Array, shown: CellShown) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    known = known[:: max(1, len(known) // 200_000)]
    low, high = (float(v) for v in np.quantile(known, _ENDS)) if len(known) else (0.0, 0.0)
    low = 0.0 if shown.kind == "share" else low
    least = _LEAST_WIDTH[shown.kind]
    return (low, high) if high - low >= least else (low, low + least)


def _scaled(values: Float32Array, limits: tuple[float, float], table: Float32Array) -> Picture:
    """Opaque colours of single values; those of a map fade where values are low, but a cell is there."""
    low, high = limits
    opaque = np.vstack([np.rint(255 * table[:, :3]), np.array(_UNKNOWN[:3])])
    lut = np.c_[opaque, np.full(len(opaque), 255)].astype(np.uint8)
    known = np.isfinite(values)
    steps = np.where(known, (values - low) * (255 / max(high - low, 1e-12)), 0)
    colors: Picture = lut[np.where(known, np.clip(np.rint(steps), 0, 255).astype(np.intp), len(lut) - 1)]
    return colors


def _most_common(painter: Painter, patches: CellsOfPatches, codes: IntArray, n: int, rgb: Float32Array) -> Float32Array:
    """Colour each patch as the most common category of its cells, the paler the less common."""
    shape = (*patches.grid.shape, max(n, 1))
    used = (codes >= 0) & (patches.patches >= 0)
    flat = np.bincount(patches.patches[used] * max(n, 1) + codes[used], minlength=int(np.prod(shape)))
    counts = flat.reshape(shape)
    total = counts.sum(axis=-1)
    most = counts.argmax(axis=-1)
    ordered = np.sort(counts, axis=-1)
    second = ordered[..., -2] if n > 1 else np.zeros_like(total)
    margin = (ordered[..., -1] - second) / np.maximum(total, 1)
    _update(painter, total > 0)
    if n:
        painter.paint_dominant(painter.shown(most), painter.shown(margin.astype(np.float32)), rgb)
    return painter.rgba


def _update(painter: Painter, there: npt.NDArray[np.bool_]) -> None:
    flat = np.arange(there.size, dtype=np.intp).reshape(there.shape)
    painter.update(np.where(there, flat, -1), there, np.zeros_like(there))


def _plain(rgba: Float32Array, limits: tuple[float, float]) -> Float32Array:
    """Colours of a painter in 0 to 1, whatever range it wrote them in."""
    low, high = limits
    colors: npt.NDArray[Any] = rgba.copy()
    colors[..., :3] = (colors[..., :3] - low) / max(high - low, 1e-12)
    return np.asarray(colors.clip(0, 1), dtype=np.float32)
