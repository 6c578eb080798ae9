"""Displayed quantities of a map, their appearance, and painting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array
from napari_cpnn.mapping import DONE, FAILED, is_unlike
from napari_cpnn.painting.painter import AutoRange, Painter, Range, color_table, hex_colors
from napari_cpnn.palette import type_colors

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap

Kind = Literal["type", "dominant", "blend", "gene", "contribution"]
RangeMode = Literal["auto", "full", "manual"]
Unlike = Literal["hatched", "hidden", "shown"]
"""Treatment of patches that are unlike the training tissue of the model."""


@dataclass(frozen=True)
class Shown:
    """Displayed quantity of a map, on screen or in a panel of a figure.

    Parameters
    ----------
    kind
        One cell type, the dominant type, a blend of types, a gene, or the contribution of a cell type to a gene.
    names
        The cell type, the blended types, the gene, or gene and cell type; empty for the dominant type.
    """

    kind: Kind
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of a ``type`` or ``gene``; for a contribution, text such as ``ERBB2 from B-cells``."""
        if self.kind == "contribution":
            return " from ".join(self.names)
        return self.names[0] if self.names else ""

    @property
    def gene(self) -> str:
        """Gene that is displayed, entirely or as a contribution."""
        return self.names[0] if self.kind in ("gene", "contribution") else ""

    @property
    def title(self) -> str:
        """Title for layer and legend."""
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
    """Appearance of overlays, and whether the canvas has a legend."""

    colormap: str = "viridis"  # H&E is pink and purple, on which magma spends half of its colours
    range_mode: RangeMode = "auto"
    manual: tuple[float, float] = (0.0, 1.0)
    opacity: float = 0.65
    smooth: bool = True
    legend: bool = True
    unlike: Unlike = "hatched"

    def is_smooth(self, shown: Shown) -> bool:
        """Return whether values are interpolated between patches; categories cannot be."""
        return self.smooth and shown.kind != "dominant"


def values_of(cmap: CompositionMap, shown: Shown) -> Float32Array:
    """Values ``(rows, cols)`` of a scalar quantity of a map."""
    if shown.kind == "type":
        return cmap.weight(shown.name)
    return cmap.expression(shown.gene) if shown.kind == "gene" else cmap.contribution(*shown.names)


def auto_range(shown: Shown) -> AutoRange:
    """Create the automatic colour range of a quantity, with its minimum width."""
    # 5 % of a patch is a handful of nuclei; 0.1 in log1p CP10k is a tenth of the expression.
    # A contribution is part of a total, so its range starts at 0.
    return AutoRange(from_zero=shown.kind != "gene", least=0.05 if shown.kind == "type" else 0.1)


def catch_up(painter: Painter, cmap: CompositionMap) -> None:
    """Update a painter to the current state of its map."""
    state = cmap.state.copy()
    painter.update(cmap.donors(), state == DONE, state == FAILED)


def paint(
    painter: Painter, cmap: CompositionMap, shown: Shown, look: Look, auto: AutoRange, *, at_rest: bool = True
) -> Range:
    """Paint one quantity of a map.

    Parameters
    ----------
    painter
        Painter of the map, after :func:`catch_up`.
    cmap, shown, look
        Map, quantity and appearance.
    auto
        Automatic range from :func:`auto_range`, which keeps the last range.
    at_rest
        Whether the computation has finished.

    Returns
    -------
    Range
        Values of the first and the last colour; (0, 1) for categories.
    """
    if shown.has_range:
        values = painter.shown(values_of(cmap, shown))
        limits = _limits(shown, look, values) or auto.update(values, painter.n_done, at_rest)
        painter.paint_values(values, color_table(look.colormap), limits)
        _hide(painter, cmap, look)
        return limits
    colors = type_colors(cmap.cell_types)
    if shown.kind == "dominant":
        painter.paint_dominant(painter.shown(cmap.dominant()), hex_colors(list(colors.values())))
    else:
        shares = [painter.shown(cmap.weight(name)) for name in shown.names]
        empty = np.zeros((painter.n_visible, 0), dtype=np.float32)
        chosen = hex_colors([colors[name] for name in shown.names])
        painter.paint_blend(np.stack(shares, axis=1) if shares else empty, chosen)
    _hide(painter, cmap, look)
    return 0.0, 1.0


def _hide(painter: Painter, cmap: CompositionMap, look: Look) -> None:
    """Leave patches unlike the training tissue out, if the appearance says so."""
    if look.unlike == "hidden":
        painter.rgba[unlike_patches(cmap)] = 0


def unlike_patches(cmap: CompositionMap) -> npt.NDArray[np.bool_]:
    """Return which patches ``(rows, cols)`` show a value of tissue unlike that of the training."""
    donors = cmap.donors()
    scores = cmap.out_of_domain.reshape(-1)
    return (donors >= 0) & is_unlike(scores)[np.maximum(donors, 0)]


def _limits(shown: Shown, look: Look, values: Float32Array) -> Range | None:
    """Colour range fixed by the appearance; ``None`` for an automatic one."""
    if look.range_mode == "manual":
        low, high = look.manual
        return low, max(high, low + 1e-6)
    if look.range_mode == "full":
        return (0.0, 1.0) if shown.kind == "type" else (0.0, max(float(values.max(initial=0.0)), 1e-3))
    return None


def dominant_types(cmap: CompositionMap, where: tuple[slice, slice] | npt.NDArray[np.bool_]) -> list[str]:
    """Cell types that are dominant somewhere in part of the grid, most frequent first."""
    donors = cmap.donors()[where]
    counts = np.bincount(cmap.dominant().reshape(-1)[donors[donors >= 0]], minlength=len(cmap.cell_types))
    return [cmap.cell_types[k] for k in np.argsort(-counts, kind="stable") if counts[k]]


def format_value(value: float, unit: str) -> str:
    """Format shares in per cent and expression with two decimals."""
    return f"{100 * value:.0f} %" if unit.startswith("share") else f"{value:.2f}"
