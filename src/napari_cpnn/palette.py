"""One colour per cell type, everywhere: list, map, legend, charts, exports."""

from __future__ import annotations

from collections.abc import Sequence

#: Colours that people with a colour-vision deficiency can tell apart: Okabe and Ito's seven first (they are the
#: safest), then Krzywinski's extension in lightness and hue. Grey is kept for "no type".
COLORS = (
    "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442", "#8F00C5", "#FF92C6", "#00735C",
    "#A40122", "#00E5F8", "#7B4F00", "#B2FF6B", "#003D9E", "#FFC2A1", "#5A000F", "#9F8CFF", "#00FFCC", "#FF5AAF",
    "#6B7A00", "#004D5C", "#FFB935", "#C400B8", "#7CFFFA",
)  # fmt: skip


def type_colors(cell_types: Sequence[str]) -> dict[str, str]:
    """``#RRGGBB`` per cell type, by position; beyond the palette the colours repeat, each time darker."""
    colors = {}
    for i, name in enumerate(cell_types):
        base = COLORS[i % len(COLORS)]
        shade = 0.6 ** (i // len(COLORS))
        rgb = [round(int(base[k : k + 2], 16) * shade) for k in (1, 3, 5)]
        colors[name] = "#{:02X}{:02X}{:02X}".format(*rgb)
    return colors
