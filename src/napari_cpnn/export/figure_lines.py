"""Contours and borders of cell types in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import LineCollection

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray
from napari_cpnn.painting import Look, Shown, border_lines, color_table, contour_levels, contour_lines, field_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from napari_cpnn.mapping import CompositionMap

#: Widths in points of lines and of the light margin under them.
_LINE_PT, _MARGIN_PT = 0.8, 1.8
#: Distance of borders from the edge of their patches, in patches.
_INSET = 0.06
#: Alpha below which a patch has no border.
_FAINT = 0.05


class MapLines:
    """Lines in slide um: ``xy (n, 2, 2)``, both ends of each, and ``colors (n, 4)``; ``note`` for the title."""

    def __init__(self, xy: FloatArray, colors: FloatArray, note: str = "") -> None:
        self.xy, self.colors, self.note = xy, colors, note

    def moved(self, dy: float, dx: float) -> MapLines:
        """Return the same lines in another place, by slide um."""
        return MapLines(self.xy + np.array([dx, dy]), self.colors, self.note)

    def draw(self, axes: Axes) -> None:
        """Draw the lines on axes in slide um."""
        margin = LineCollection(list(self.xy), colors="white", alpha=0.8, linewidths=_MARGIN_PT, capstyle="round")
        axes.add_collection(margin, autolim=False)
        lines = LineCollection(list(self.xy), colors=self.colors.tolist(), linewidths=_LINE_PT, capstyle="round")
        axes.add_collection(lines, autolim=False)


def lines_of(
    cmap: CompositionMap, shown: Shown, look: Look, limits: tuple[float, float], rgba: Float32Array, seen: BoolArray
) -> MapLines | None:
    """Lines in which a quantity is drawn, or ``None`` if it has none, as a blend.

    Parameters
    ----------
    cmap, shown, look
        Map, quantity and appearance.
    limits
        Colour range; contours are at round numbers inside.
    rgba
        ``(rows, cols, 4)``, colours of the patches in 0 to 1.
    seen
        ``(rows, cols)``, the patches to draw.
    """
    if shown.has_range:
        field = np.where(seen, field_of(cmap, shown, look.scale_um), np.float32(np.nan))
        levels = contour_levels(limits)
        table = color_table(look.colormap)
        found = [contour_lines(field, level) for level in levels]
        share = [(level - limits[0]) / (limits[1] - limits[0]) for level in levels]
        of_level = [np.append(table[round(255 * at), :3], 1.0) for at in share]
        lines = np.concatenate([np.zeros((0, 2, 2)), *found])
        colors = np.repeat(np.reshape(of_level, (-1, 4)), [len(one) for one in found], axis=0)
        note = f"contours at {', '.join(f'{level:g}' for level in levels)}" if levels else ""
    elif shown.kind == "dominant":
        donors = cmap.donors()
        groups = np.where(donors >= 0, cmap.dominant(shown.level).reshape(-1)[np.maximum(donors, 0)], -1)
        lines, owners = border_lines(np.where(seen & (rgba[..., 3] > _FAINT), groups, -1), _INSET)
        colors, note = rgba.reshape(-1, 4)[owners].astype(np.float64), ""
        colors[:, 3] = 0.5 + 0.5 * colors[:, 3]  # a thin line needs more than a wash
    else:
        return None
    ends = np.stack([lines[:, 0], lines.sum(axis=1)], axis=1)
    um = cmap.grid.centers_um(ends.reshape(-1, 2)).reshape(-1, 2, 2)
    return MapLines(um[..., ::-1], colors, note)
