"""Lines of a map: contours, borders of cell types, or outlines of its patches, with their colours. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_cpnn import painting
from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.painting import Look, Range, Shown

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap

Drawn = Literal["", "contours", "borders", "patches"]

LINE_PX = 2.0
"""Width of lines in pixels of the screen."""

#: Pixels of patches that are too small for an outline of their own.
_SMALL_PX = 10.0
#: Alpha below which a patch has no outline.
_FAINT = 0.05


@dataclass(frozen=True, eq=False)
class Painted:
    """What is on screen: ``rgba (rows, cols, 4)`` of a painter, written between ``limits``, the ends of its range."""

    cmap: CompositionMap
    shown: Shown
    look: Look
    limits: Range
    rgba: Float32Array

    def colors(self, part: tuple[slice, slice]) -> Float32Array:
        """Return the colours of some patches ``(rows, cols, 4)`` in 0 to 1."""
        low, high = self.limits
        colors = self.rgba[part].copy()
        colors[..., :3] = (colors[..., :3] - low) / max(high - low, 1e-12)
        return np.asarray(colors.clip(0, 1))


def kind_of_lines(shown: Shown | None, look: Look, patch_px: float) -> Drawn:
    """Return the lines in which a quantity is drawn; empty: it is a wash, as are patches too small for outlines.

    Parameters
    ----------
    shown, look
        Quantity and look.
    patch_px
        Pixels of the screen from one patch to the next; 0 while they are not known.
    """
    if shown is None or look.style == "wash":
        return ""
    if look.style == "contours" and shown.has_range:
        return "contours"
    if look.style == "contours" and shown.kind == "dominant":
        return "borders"
    return "" if patch_px < _SMALL_PX else "patches"


def opacity_of_lines(look: Look) -> float:
    """Return the opacity of lines, which are thin and hide little."""
    return min(1.0, look.opacity + 0.25)


def lines_of(
    painted: Painted, kind: Drawn, part: tuple[slice, slice], width: float
) -> tuple[FloatArray, FloatArray, list[float]]:
    """Return the lines of a part of a map.

    Parameters
    ----------
    painted
        What is on screen.
    kind
        As of :func:`kind_of_lines`, not empty.
    part
        Rows and columns of the grid.
    width
        Width of the lines in patches.

    Returns
    -------
    lines, colors, levels
        ``(N, 2, 2)``, start and vector (row, col), where the centres of the patches of the part are integers;
        ``(N, 4)`` RGBA; and the values of contours.
    """
    if kind == "contours":
        return _contours(painted, part)
    lines, colors = _borders(painted, part, width, every=kind == "patches")
    return lines, colors, []


def _contours(painted: Painted, part: tuple[slice, slice]) -> tuple[FloatArray, FloatArray, list[float]]:
    field = painting.field_of(painted.cmap, painted.shown, painted.look.scale_um)[part]
    low, high = painted.limits
    levels = painting.contour_levels(painted.limits)
    table = painting.color_table(painted.look.colormap)
    lines, colors = [np.zeros((0, 2, 2))], [np.zeros((0, 4))]
    for level in levels:
        found = painting.contour_lines(field, level)
        color = np.array([*table[round(255 * (level - low) / (high - low)), :3], 1.0])
        lines.append(found)
        colors.append(np.tile(color, (len(found), 1)))
    return np.concatenate(lines), np.concatenate(colors), levels


def _borders(
    painted: Painted, part: tuple[slice, slice], width: float, *, every: bool
) -> tuple[FloatArray, FloatArray]:
    """Return the borders of patches, or of areas of one dominant type, in the colours of the map."""
    cmap, rgba = painted.cmap, painted.colors(part)
    donors = cmap.donors()[part]
    groups = donors if every else cmap.dominant(painted.shown.level).reshape(-1)[np.maximum(donors, 0)]
    groups = np.where((donors >= 0) & (rgba[..., 3] > _FAINT), groups, -1)
    inset = 0.75 if every else 1.5  # with room for the margin
    lines, owners = painting.border_lines(groups, min(width * inset, 0.4), every=every)
    colors = rgba.reshape(-1, 4)[owners].astype(np.float64)
    colors[:, 3] = 0.5 + 0.5 * colors[:, 3]  # a thin line needs more than a wash
    return lines, colors
