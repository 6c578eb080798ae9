"""Colours of cell types, common to lists, maps, legends, charts and exports."""

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
    """Colours ``#RRGGBB`` of cell types: chosen by the user, or else by position in the palette.

    Beyond the end of the palette, colours are repeated in darker shades.
    """
    colors = {}
    for i, name in enumerate(cell_types):
        base = COLORS[i % len(COLORS)]
        shade = 0.6 ** (i // len(COLORS))
        rgb = [round(int(base[k : k + 2], 16) * shade) for k in (1, 3, 5)]
        colors[name] = _chosen.get(name, "#{:02X}{:02X}{:02X}".format(*rgb))
    return colors


def choose_colors(colors: Mapping[str, str]) -> None:
    """Set the user's colours, ``#RRGGBB`` by name of cell type, for this process.

    Other types have palette colours. Earlier choices are discarded.
    """
    _chosen.clear()
    _chosen.update(colors)


def chosen_color(cell_type: str) -> str | None:
    """Colour of a cell type chosen by the user, or None."""
    return _chosen.get(cell_type)


def read_colors(text: str) -> dict[str, str]:
    """Parse colours such as ``T-cells = #0072B2, CAFs = orange``.

    Raises
    ------
    SettingsError
        If a part is not a name and a colour.
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
    """Format colours for :func:`read_colors`."""
    return ", ".join(f"{name} = {color}" for name, color in colors.items())
