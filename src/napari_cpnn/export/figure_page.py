"""Layout of a figure page. All lengths are in mm from the top left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from shapely.geometry import MultiPolygon, Polygon

from napari_cpnn.export.figure_lines import MapLines
from napari_cpnn.export.figure_marks import draw_marks, path_of
from napari_cpnn.export.marks import Marks
from napari_cpnn.geometry import Rect, length_text, scale_bar_um
from napari_cpnn.settings import FigureSettings
from napari_cpnn.storage import write_figure
from napari_cpnn.texts import allow_any_letter, shortened, shown

MM = 25.4
"""Millimetres per inch."""

_PT = MM / 72
_PAGE_MM, _SINGLE_MM = 180.0, 120.0
_MAX_HEIGHT_MM = 220.0
_EDGE, _GAP = 3.0, 4.5
_BAR = 2.2
_COLUMNS = 3
#: Maximum characters of a line, and of a title, which may have several lines.
_MOST, _MOST_TITLE = 240, 1000
_INK, _GREY = "#000000", "#555555"
#: Margin in mm around the text of the warning.
_PAD = 1.2


@dataclass(frozen=True)
class Warned:
    """A warning at the top of a page: its text, and the colours of text and band."""

    text: str
    ink: str
    band: str


@dataclass(frozen=True, eq=False)
class Bar:
    """A colour bar: ``(n, 3)`` colours between two values."""

    colors: npt.NDArray[np.float32]
    limits: tuple[float, float]
    unit: str


@dataclass(frozen=True, eq=False)
class Legend:
    """A legend: names with their colours ``(n, 3)``."""

    names: tuple[str, ...]
    colors: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture with title and key; outlines of high and low places in slide um ``(x, y)``, marks, and lines."""

    title: str
    picture: npt.NDArray[np.uint8]
    key: Bar | Legend
    italic: bool = False
    high: Polygon | MultiPolygon | None = None
    low: Polygon | MultiPolygon | None = None
    marks: Marks | None = None
    lines: MapLines | None = None


class Page:
    """A page with panels of one size, a title above and notes below.

    Parameters
    ----------
    settings
        Width, columns, resolution and text size.
    rect
        Rectangle shown in each panel, slide micrometres.
    n_panels
        Number of panels.

    Attributes
    ----------
    shape_px
        ``(rows, cols)`` of a panel's picture, so that its pixels coincide with those of the page.
    """

    def __init__(self, settings: FigureSettings, rect: Rect, n_panels: int) -> None:
        self._settings, self._rect = settings, rect
        width = settings.width_mm or (_SINGLE_MM if n_panels == 1 else _PAGE_MM)
        self._columns = min(n_panels, settings.columns or (2 if n_panels == 4 else _COLUMNS))
        panel = (width - 2 * _EDGE - (self._columns - 1) * _GAP) / self._columns
        panel = min(panel, _MAX_HEIGHT_MM * rect.width / rect.height)
        cols = max(1, self._px(panel))
        self.shape_px = (max(1, round(cols * rect.height / rect.width)), cols)
        self._panel = (self._mm(self.shape_px[0]), self._mm(cols))
        self._width = 2 * _EDGE + self._columns * self._panel[1] + (self._columns - 1) * _GAP
        self._pt = settings.text_pt
        # Used only to measure text: in a vector file, and in pixels, whose letters are wider where pixels are coarse.
        canvases = [(dpi, FigureCanvasAgg(Figure(dpi=dpi))) for dpi in (MM * 20, settings.dpi)]
        self._pens = [(dpi, canvas.get_renderer()) for dpi, canvas in canvases]  # type: ignore[no-untyped-call]
        self._figure = Figure()

    # -- the page ------------------------------------------------------------------------------------------

    def draw(
        self,
        panels: Sequence[Panel],
        title: str,
        notes: str,
        outline: Polygon | MultiPolygon | None = None,
        warned: Warned | None = None,
    ) -> Figure:
        """Draw the panels, the title and the notes.

        Parameters
        ----------
        panels
            Panels from the top left, row by row.
        title, notes
            Text above and below the panels; long text is wrapped.
        outline
            Outline drawn in each panel; slide micrometres ``(x, y)``.
        warned
            Band at the top, for what is not to be believed.
        """
        allow_any_letter()
        head = self._lines(shown(title, _MOST_TITLE), self._pt + 1, bold=True)
        foot = self._lines(notes, self._pt - 1)
        rows = [panels[i : i + self._columns] for i in range(0, len(panels), self._columns)]
        heights = [self._title_height() + self._panel[0] + max(self._key_height(p.key) for p in row) for row in rows]
        band = [] if warned is None else self._lines(warned.text, self._pt + 1, bold=True)
        first = _EDGE + (len(band) * self._line(self._pt + 1) + 2 * _PAD if band else 0)
        top = first + len(head) * self._line(self._pt + 1) + 1
        height = top + sum(heights) + (len(rows) - 1) * _GAP / 2 + 1.5 + len(foot) * self._line(self._pt - 1) + _EDGE
        self._size = (math.ceil(self._px(height)), math.ceil(self._px(self._width)))
        dpi = self._settings.dpi
        self._figure = Figure(figsize=(self._size[1] / dpi, self._size[0] / dpi), dpi=dpi, facecolor="white")
        FigureCanvasAgg(self._figure)
        if warned is not None:
            self._draw_band(warned, band, first - _EDGE)
        self._text(_EDGE, first, head, self._pt + 1, bold=True)
        for row, tall in zip(rows, heights, strict=True):
            for number, panel in enumerate(row):
                self._draw_panel(panel, _EDGE + number * (self._panel[1] + _GAP), top, outline)
            top += tall + _GAP / 2
        self._text(_EDGE, top - _GAP / 2 + 1.5, foot, self._pt - 1, color=_GREY)
        return self._figure

    def save(self, path: Path, file_format: str, title: str) -> None:
        """Save the page as ``png``, ``svg`` or ``pdf``, keeping text editable and searchable."""
        dates: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        metadata = {"Title": shown(title, _MOST_TITLE), **dates[file_format]}
        with rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "napari-cpnn"}):
            write_figure(self._figure, path, file_format, dpi=self._settings.dpi, metadata=metadata)

    def _draw_band(self, warned: Warned, lines: Sequence[str], height: float) -> None:
        share = self._px(height) / self._size[0]
        band = Rectangle(
            (0, 1 - share), 1, share, facecolor=warned.band, linewidth=0, transform=self._figure.transFigure
        )
        band.set_gid("warning")
        self._figure.add_artist(band)
        self._text(_EDGE, _PAD, lines, self._pt + 1, bold=True, color=warned.ink)

    # -- a panel -------------------------------------------------------------------------------------------

    def _draw_panel(self, panel: Panel, left: float, top: float, outline: Polygon | MultiPolygon | None) -> None:
        height, width = self._panel
        self._text(
            left, top, [self._fitted(panel.title, width, self._pt, bold=True)], self._pt, bold=True, italic=panel.italic
        )
        top += self._title_height()
        axes = self._axes(left, top, width, height)
        rect = self._rect
        extent = (rect.x0, rect.x1, rect.y1, rect.y0)
        axes.imshow(panel.picture, extent=extent, interpolation="none", aspect="auto", origin="upper")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(linewidth=0.4, edgecolor=_GREY)
        if panel.lines is not None:
            panel.lines.draw(axes)
        for shape, style in ((panel.high, "-"), (panel.low, "--"), (outline, "-")):
            for color, line in (("white", 2.0), ("black", 0.9)) if shape is not None else ():
                axes.add_patch(PathPatch(path_of(shape), fill=False, edgecolor=color, linewidth=line, linestyle=style))
        if panel.marks is not None:
            draw_marks(axes, panel.marks, rect, self._pt)
        self._draw_scale_bar(axes)
        top += height + 1.2
        if isinstance(panel.key, Bar):
            self._draw_bar(panel.key, left, top)
        else:
            self._draw_legend(panel.key, left, top)

    def _draw_scale_bar(self, axes: Axes) -> None:
        rect, mm = self._rect, self._rect.width / self._panel[1]
        length = scale_bar_um(rect.width)
        text = length_text(length)
        pad, thick, line = 0.8 * mm, 0.5 * mm, self._line(self._pt) * mm
        width = max(length, self._text_mm(text, self._pt) * mm) + 2 * pad
        x1, y1 = rect.x1 - pad, rect.y1 - pad
        box = Rectangle((x1 - width, y1 - line - thick - pad), width, line + thick + pad, facecolor="white")
        middle = x1 - width / 2
        bar = Rectangle((middle - length / 2, y1 - thick - 0.6 * pad), length, thick, facecolor=_INK)
        bar.set_gid("scale bar")
        for patch in (box, bar):
            axes.add_patch(patch)
        baseline = y1 - thick - 1.2 * pad
        axes.text(middle, baseline, text, ha="center", va="baseline", fontsize=self._pt, color=_INK, parse_math=False)

    # -- keys ----------------------------------------------------------------------------------------------

    def _key_height(self, key: Bar | Legend) -> float:
        if isinstance(key, Bar):
            return 1.2 + _BAR + 0.6 + 2 * self._line(self._pt - 1)
        return 1.2 + math.ceil(len(key.names) / self._legend_columns(key)) * self._line(self._pt) + 0.5

    def _draw_bar(self, bar: Bar, left: float, top: float) -> None:
        axes = self._axes(left, top, self._panel[1], _BAR)
        low, high = bar.limits
        axes.imshow(bar.colors[None], extent=(low, high, 0, 1), aspect="auto", interpolation="nearest")
        share = bar.unit.startswith("share")
        room = max(2, int(self._panel[1] / (4 * self._text_mm("0.00", self._pt - 1))) * 2)
        ticks = MaxNLocator(nbins=min(5, room), steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        slack = 1e-6 * (high - low)
        axes.set(yticks=[], xticks=[t for t in ticks if low - slack <= t <= high + slack], xlim=(low, high))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _i: f"{100 * v:.3g} %" if share else f"{v:.3g}"))
        axes.tick_params(length=1.5, width=0.4, pad=1, labelsize=self._pt - 1)
        for spine in axes.spines.values():
            spine.set_linewidth(0.4)
        middle = left + self._panel[1] / 2
        below = top + _BAR + 0.6 + self._line(self._pt - 1)
        self._text(middle, below, [bar.unit], self._pt - 1, align="center")

    def _draw_legend(self, legend: Legend, left: float, top: float) -> None:
        width, line = self._panel[1], self._line(self._pt)
        columns = self._legend_columns(legend)
        rows = math.ceil(len(legend.names) / columns)
        axes = self._axes(left, top, width, max(1, rows) * line)
        axes.set(xlim=(0, width), ylim=(max(1, rows) * line, 0))
        axes.axis("off")
        side = 0.7 * line
        for number, (name, color) in enumerate(zip(legend.names, legend.colors, strict=True)):
            column, row = divmod(number, rows)
            x, y = column * width / columns, row * line
            patch = Rectangle(
                (x + 0.1, y + (line - side) / 2), side, side, facecolor=np.clip(color, 0, 1), edgecolor=_GREY, lw=0.3
            )
            axes.add_patch(patch)
            text = self._fitted(name, width / columns - side - 1.6, self._pt)
            axes.text(x + side + 0.8, y + line / 2, text, va="center_baseline", fontsize=self._pt, parse_math=False)

    def _legend_columns(self, legend: Legend) -> int:
        widest = max((self._text_mm(shown(name), self._pt) for name in legend.names), default=1.0)
        fit = int(self._panel[1] / (widest + 0.7 * self._line(self._pt) + 2.4))
        return max(1, min(fit, len(legend.names)))

    # -- text and places -----------------------------------------------------------------------------------

    def _title_height(self) -> float:
        return self._line(self._pt) + 0.4

    @staticmethod
    def _line(pt: float) -> float:
        return 1.35 * pt * _PT

    def _text_mm(self, text: str, pt: float, *, bold: bool = False) -> float:
        font = FontProperties(size=pt, weight="bold" if bold else "normal")
        widths = ((dpi, pen.get_text_width_height_descent(text, font, ismath=False)[0]) for dpi, pen in self._pens)
        return max(float(width) * MM / dpi for dpi, width in widths)

    def _lines(self, text: str, pt: float, *, bold: bool = False) -> list[str]:
        """Wrap text between words to the width of the page."""
        room, lines = self._width - 2 * _EDGE, [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self._text_mm(longer, pt, bold=bold) > room:
                lines.append(word)
            else:
                lines[-1] = longer
        return [self._fitted(line, room, pt, bold=bold) for line in lines]

    def _fitted(self, text: str, width: float, pt: float, *, bold: bool = False) -> str:
        """Shorten text in the middle to a width: the ends of names are distinctive."""
        text = shown(text, _MOST)
        if self._text_mm(text, pt, bold=bold) <= width:
            return text
        n, too_long = 4, len(text)
        while too_long - n > 1:
            middle = (n + too_long) // 2
            if self._text_mm(shortened(text, middle), pt, bold=bold) <= width:
                n = middle
            else:
                too_long = middle
        return shortened(text, n)

    def _text(
        self,
        left: float,
        top: float,
        lines: Sequence[str],
        pt: float,
        *,
        bold: bool = False,
        italic: bool = False,
        color: str = _INK,
        align: str = "left",
    ) -> None:
        for number, text in enumerate(lines):
            y = top + (number + 0.78) * self._line(pt)
            self._figure.text(
                self._px(left) / self._size[1],
                1 - self._px(y) / self._size[0],
                text,
                fontsize=pt,
                color=color,
                ha=align,
                va="baseline",
                weight="bold" if bold else "normal",
                style="italic" if italic else "normal",
                parse_math=False,
            )

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes aligned to whole pixels, so that pictures are not resampled."""
        x, y, w, h = (self._px(v) for v in (left, top, width, height))
        rows, cols = self._size
        return self._figure.add_axes((x / cols, 1 - (y + h) / rows, w / cols, h / rows))

    def _px(self, mm: float) -> int:
        return round(mm / MM * self._settings.dpi)

    def _mm(self, px: int) -> float:
        return px * MM / self._settings.dpi
