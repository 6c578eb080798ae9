"""What a map shows of itself, how that is coloured, and how it is painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array
from napari_cpnn.mapping import DONE, FAILED
from napari_cpnn.painting.painter import AutoRange, Painter, Range, color_table, hex_colors
from napari_cpnn.palette import type_colors

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap

Kind = Literal["type", "dominant", "blend", "gene", "contribution"]
RangeMode = Literal["auto", "full", "manual"]


@dataclass(frozen=True)
class Shown:
    """The quantity on screen, or in a panel of a figure.

    Parameters
    ----------
    kind
        One cell type, the dominant type, a blend of types, a gene, or what one cell type contributes to a gene.
    names
        The cell type, the types that are blended, the gene, or gene and cell type; empty for the dominant type.
    """

    kind: Kind
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The one name of a ``type`` or a ``gene``; for a contribution such as ``ERBB2 from B-cells``."""
        if self.kind == "contribution":
            return " from ".join(self.names)
        return self.names[0] if self.names else ""

    @property
    def gene(self) -> str:
        """The gene that is on screen, whole or in part."""
        return self.names[0] if self.kind in ("gene", "contribution") else ""

    @property
    def title(self) -> str:
        """What the layer and the legend say."""
        if self.kind == "type":
            return f"Cell type: {self.name}"
        if self.kind == "gene":
            return f"Gene: {self.name}"
        if self.kind == "contribution":
            return self.name
        return "Dominant cell type" if self.kind == "dominant" else "Blend of cell types"

    @property
    def unit(self) -> str:
        """Unit of the colour bar; empty for categories."""
        return {"type": "share of cell type"}.get(self.kind, "log1p CP10k" if self.gene else "")

    @property
    def has_range(self) -> bool:
        return self.kind in ("type", "gene", "contribution")


@dataclass(frozen=True)
class Look:
    """How overlays are coloured, and whether the canvas carries a legend."""

    colormap: str = "viridis"  # H&E is pink and purple, on which magma spends half of its colours
    range_mode: RangeMode = "auto"
    manual: tuple[float, float] = (0.0, 1.0)
    opacity: float = 0.65
    smooth: bool = True
    legend: bool = True

    def is_smooth(self, shown: Shown) -> bool:
        """Whether values are interpolated between patches; between two categories there is no colour in the middle."""
        return self.smooth and shown.kind != "dominant"


def values_of(cmap: CompositionMap, shown: Shown) -> Float32Array:
    """What is shown in each cell, ``(rows, cols)``; for what has a range of values."""
    if shown.kind == "type":
        return cmap.weight(shown.name)
    return cmap.expression(shown.gene) if shown.kind == "gene" else cmap.contribution(*shown.names)


def auto_range(shown: Shown) -> AutoRange:
    """The colour range that follows the values, with its least width."""
    # 5 % of a patch is a handful of nuclei; 0.1 in log1p CP10k is a tenth of the expression.
    # A contribution is a part of the whole, so it starts from nothing.
    return AutoRange(from_zero=shown.kind != "gene", least=0.05 if shown.kind == "type" else 0.1)


def catch_up(painter: Painter, cmap: CompositionMap) -> None:
    """Give a painter the present state of its map."""
    state = cmap.state.copy()
    painter.update(cmap.donors(), state == DONE, state == FAILED)


def paint(
    painter: Painter, cmap: CompositionMap, shown: Shown, look: Look, auto: AutoRange, *, at_rest: bool = True
) -> Range:
    """Paint one quantity of a map.

    Parameters
    ----------
    painter
        Of the map, after :func:`catch_up`.
    cmap, shown, look
        What is painted, and how.
    auto
        Of :func:`auto_range`; it remembers the range of the last picture.
    at_rest
        Whether nothing more is being computed.

    Returns
    -------
    Range
        Values of the first and the last colour; (0, 1) for categories.
    """
    if shown.has_range:
        values = painter.shown(values_of(cmap, shown))
        limits = _limits(shown, look, values) or auto.update(values, painter.n_done, at_rest)
        painter.paint_values(values, color_table(look.colormap), limits)
        return limits
    colors = type_colors(cmap.cell_types)
    if shown.kind == "dominant":
        painter.paint_dominant(painter.shown(cmap.dominant()), hex_colors(list(colors.values())))
    else:
        shares = [painter.shown(cmap.weight(name)) for name in shown.names]
        empty = np.zeros((painter.n_visible, 0), dtype=np.float32)
        chosen = hex_colors([colors[name] for name in shown.names])
        painter.paint_blend(np.stack(shares, axis=1) if shares else empty, chosen)
    return 0.0, 1.0


def _limits(shown: Shown, look: Look, values: Float32Array) -> Range | None:
    """The range that is fixed by the look; ``None`` for one that follows the values."""
    if look.range_mode == "manual":
        low, high = look.manual
        return low, max(high, low + 1e-6)
    if look.range_mode == "full":
        return (0.0, 1.0) if shown.kind == "type" else (0.0, max(float(values.max(initial=0.0)), 1e-3))
    return None


def dominant_types(cmap: CompositionMap, where: tuple[slice, slice] | npt.NDArray[np.bool_]) -> list[str]:
    """The cell types that dominate somewhere in a part of the grid, the most frequent first."""
    donors = cmap.donors()[where]
    counts = np.bincount(cmap.dominant().reshape(-1)[donors[donors >= 0]], minlength=len(cmap.cell_types))
    return [cmap.cell_types[k] for k in np.argsort(-counts, kind="stable") if counts[k]]


def format_value(value: float, unit: str) -> str:
    """Shares in per cent, expression with two decimals."""
    return f"{100 * value:.0f} %" if unit.startswith("share") else f"{value:.2f}"
