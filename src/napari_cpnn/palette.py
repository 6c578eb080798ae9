"""One colour per cell type, everywhere: list, map, legend, charts, exports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from napari_cpnn.errors import SettingsError

#: Colours that people with a colour-vision deficiency can tell apart, too: Okabe and Ito's seven first, then those that
#: were found to keep the largest distance from all before them (CIEDE2000; normal, deuteranopic, protanopic and
#: tritanopic vision). Any two of the 25 are at least 16 apart, and 7 with a deficiency; of the first 8, 21 and 10.
#: Grey is kept for "no type".
COLORS = (
    "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442", "#551133", "#33EEDD", "#774400",
    "#8877FF", "#BB0044", "#1122FF", "#334466", "#885577", "#77CC66", "#440077", "#336644", "#EEAAAA", "#997755",
    "#DDEEBB", "#999955", "#661111", "#CC11BB", "#CCCCFF",
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


def chosen_color(cell_type: str) -> str | None:
    """The user's own colour of a cell type, if there is one."""
    return _chosen.get(cell_type)


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
