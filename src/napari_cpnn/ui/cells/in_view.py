"""The cells of a view as a picture: outlines, or dots where they are small. No Qt here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_cpnn.arrays import BoolArray, Picture
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.painting import dot_picture, outline_picture

if TYPE_CHECKING:
    from napari_cpnn.mapping import Viewport
    from napari_cpnn.ui.cells.colored import ColoredCells

#: Cells that are drawn one by one at most.
MOST_CELLS = 20_000
#: Share of the view that is drawn beyond each of its edges, so that it can be moved.
MARGIN = 0.25
#: Least size of a nucleus on the screen for an outline, and least radius of a dot, in pixels.
_OUTLINE_PX, _DOT_PX = 9.0, 1.5
#: Line width by size of a nucleus on the screen.
_WIDE_PX = 40.0
_MOST_PX, _STEP_PX = 4096 * 4096, 64

#: Alpha of cells that do not stand out.
_FAINT = 60

Style = Literal["outlines", "dots", "mean"]


@dataclass(frozen=True, eq=False)
class Drawing:
    """What is drawn of a view.

    Attributes
    ----------
    style
        Outlines or dots of single cells, or the mean of each patch (nothing is drawn here).
    rect
        The part of the slide that was drawn, in slide um.
    n_cells
        Cells in it.
    rgba
        ``(height, width, 4)`` uint8; empty for the mean.
    grid
        Its pixels on the slide.
    """

    style: Style
    rect: Rect
    px_per_um: float
    n_cells: int
    rgba: Picture
    grid: Grid

    def serves(self, view: Viewport, pixel_ratio: float) -> bool:
        """Return whether a view needs no other drawing: it lies inside, at nearly the same zoom."""
        inside = (
            view.rect.y0 >= self.rect.y0
            and view.rect.x0 >= self.rect.x0
            and view.rect.y1 <= self.rect.y1
            and view.rect.x1 <= self.rect.x1
        )
        return inside and abs(math.log(view.px_per_um * pixel_ratio / self.px_per_um)) < 0.02


def draw_view(
    colored: ColoredCells, view: Viewport, pixel_ratio: float = 1.0, chosen: BoolArray | None = None
) -> Drawing:
    """Draw the cells of a view, and some beyond its edges.

    Parameters
    ----------
    colored
        The cells in their colours.
    view
        What is in view.
    pixel_ratio
        Pixels of the screen per pixel of the canvas.
    chosen
        ``(N,)``: cells that stand out, the others being faint; ``None``: all alike.
    """
    margin = MARGIN * max(view.rect.height, view.rect.width)
    rect = view.rect.grown(margin)
    wanted = view.px_per_um * pixel_ratio
    scale = min(wanted, math.sqrt(_MOST_PX / max(rect.height * rect.width, 1e-9)))
    about = colored.n_within(view.rect)
    nothing = np.zeros((0, 0, 4), dtype=np.uint8)
    # Of one shape at all zooms, so that a layer is changed in place.
    shape = (_rounded_up(rect.height * scale), _rounded_up(rect.width * scale))
    grid = Grid(shape, 1 / scale, (rect.y0, rect.x0))
    # Patches at the edges count as a whole, so few more are looked at than are drawn.
    if about > 4 * MOST_CELLS or (about > MOST_CELLS and _n_cells(colored, view.rect) > MOST_CELLS):
        return Drawing("mean", rect, wanted, about, nothing, grid)
    nuclei = colored.content.nuclei
    numbers = nuclei.query(rect)
    if chosen is not None:
        numbers = numbers[np.argsort(chosen[numbers], kind="stable")]  # those that stand out lie above the others
    part, colors = nuclei.subset(numbers), colored.colors[numbers]
    if chosen is not None:
        colors[~chosen[numbers], 3] = _FAINT
    size_px = colored.content.diameter_um * scale
    if part.outlines is not None and size_px >= _OUTLINE_PX:
        vertices = (part.outlines.vertices_um - np.array([rect.y0, rect.x0])) * scale
        rgba = outline_picture(vertices, part.outlines.starts, colors, shape, 3 if size_px >= _WIDE_PX else 2)
        return Drawing("outlines", rect, wanted, len(part), rgba, grid)
    centers = (part.centers_um - np.array([rect.y0, rect.x0])) * scale
    radius = min(max(_DOT_PX, 0.3 * size_px), 12.0)
    return Drawing("dots", rect, wanted, len(part), dot_picture(centers, radius, colors, shape), grid)


def _rounded_up(pixels: float) -> int:
    return max(_STEP_PX, _STEP_PX * math.ceil(pixels / _STEP_PX - 0.1))


def _n_cells(colored: ColoredCells, rect: Rect) -> int:
    return len(colored.content.nuclei.query(rect))
