"""One colour per cell type, everywhere: list, map, legend, charts, exports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from napari_cpnn.errors import SettingsError

#: Colours that people with a colour-vision deficiency can tell apart: Okabe and Ito's seven first (they are the
#: safest), then Krzywinski's extension in lightness and hue. Grey is kept for "no type".
COLORS = (
    "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442", "#8F00C5", "#FF92C6", "#00735C",
    "#A40122", "#00E5F8", "#7B4F00", "#B2FF6B", "#003D9E", "#FFC2A1", "#5A000F", "#9F8CFF", "#00FFCC", "#FF5AAF",
    "#6B7A00", "#004D5C", "#FFB935", "#C400B8", "#7CFFFA",
)  # fmt: skip

_chosen: dict[str, str] = {}


def type_colors(cell_types: Sequence[str]) -> dict[str, str]:
    """``#RRGGBB`` per cell type: the user's own, or else by position.

    Beyond the palette the colours repeat, each time darker.
    """
    colors = {}
    for i, name in enumerate(cell_types):
        base = COLORS[i % len(COLORS)]
        shade = 0.6 ** (i // len(COLORS))
        rgb = [round(int(base[k : k + 2], 16) * shade) for k in (1, 3, 5)]
        colors[name] = _chosen.get(name, "#{:02X}{:02X}{:02X}".format(*rgb))
    return colors


def choose_colors(colors: Mapping[str, str]) -> None:
    """Take the user's own colours, ``#RRGGBB`` by name of the cell type, for all that this program draws.

    Types that are not named have the palette's. What was chosen before is forgotten.
    """
    _chosen.clear()
    _chosen.update(colors)


def read_colors(text: str) -> dict[str, str]:
    """Colours as people write them, such as ``T-cells = #0072B2, CAFs = orange``.

    Raises
    ------
    SettingsError
        When a part is not a name and a colour.
    """
    from matplotlib.colors import is_color_like, to_hex

    colors = {}
    for part in re.split(r"[,;\n]+", text):
        if not part.strip():
            continue
        name, _, color = (piece.strip() for piece in part.rpartition("="))
        if not name or not is_color_like(color):
            raise SettingsError(
                f"{part.strip()!r} is not a cell type and its colour; write such as T-cells = #0072B2, CAFs = orange."
            )
        colors[name] = str(to_hex(color)).upper()
    return colors


def write_colors(colors: Mapping[str, str]) -> str:
    """What :func:`read_colors` reads."""
    return ", ".join(f"{name} = {color}" for name, color in colors.items())
