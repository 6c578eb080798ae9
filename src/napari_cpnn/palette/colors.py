"""Colours of cell types by name, common to lists, maps, legends, charts and exports."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import count
from zlib import crc32

from napari_cpnn.errors import SettingsError
from napari_cpnn.palette.names import Family, family_of, folded
from napari_cpnn.palette.shades import distance, reads_as_stain, shades_of

#: Colours of series of a chart: Okabe and Ito's seven first, then those that were found to keep the largest distance
#: from all before them (CIEDE2000; normal, deuteranopic, protanopic and tritanopic vision). Any two of the 25 are at
#: least 16 apart, and 7 with a deficiency; of the first 8, 21 and 10.
SERIES = (
    "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442", "#551133", "#33EEDD", "#774400",
    "#8877FF", "#BB0044", "#1122FF", "#334466", "#885577", "#77CC66", "#440077", "#336644", "#EEAAAA", "#997755",
    "#DDEEBB", "#999955", "#661111", "#CC11BB", "#CCCCFF",
)  # fmt: skip

#: Colours of types whose names are not known: none is that of a family, pink or purple.
UNKNOWN = (
    "#99AA00", "#006666", "#FF4422", "#BB7744", "#33FF77", "#667700", "#77DDEE", "#66BB99",
)  # fmt: skip

#: Smallest distance in CIELAB (CIE 1976) at which two colours of one model are kept apart, where there are enough.
APART = 12.0

_chosen: dict[str, str] = {}


def series_colors(names: Sequence[str]) -> dict[str, str]:
    """Colours ``#RRGGBB`` of series of a chart, by position; beyond the end, colours are repeated in darker shades."""
    colors = {}
    for i, name in enumerate(names):
        base = SERIES[i % len(SERIES)]
        shade = 0.6 ** (i // len(SERIES))
        rgb = [round(int(base[k : k + 2], 16) * shade) for k in (1, 3, 5)]
        colors[name] = "#{:02X}{:02X}{:02X}".format(*rgb)
    return colors


def type_colors(cell_types: Sequence[str], hierarchy: Mapping[str, str] | None = None) -> dict[str, str]:
    """Colours ``#RRGGBB`` of cell types: chosen by the user, or else by their names.

    A name has the same colour in every model, slide and session. Synonyms and spellings of a major type have its
    colour (:data:`~napari_cpnn.palette.FAMILIES`), minor types have shades of it, and a name that is not known has a
    colour from a hash of it. Where two names of one model would have the same colour, the later one in the alphabet
    moves to another; the order in which they are given has no influence.

    Parameters
    ----------
    cell_types
        Names, each once.
    hierarchy
        Major type by minor type; minor types then have shades of the colour of their major type.

    Examples
    --------
    >>> from napari_cpnn.palette import type_colors
    >>> type_colors(["CAFs"])["CAFs"] == type_colors(["T-cells", "Cancer-associated fibroblasts"]).popitem()[1]
    True
    """
    names = tuple(cell_types)
    above = {name: hierarchy[name] for name in names if name in hierarchy} if hierarchy else {}
    return dict(_colors(names, tuple(above.items()), tuple(_chosen.items())))


@lru_cache(maxsize=64)
def _colors(
    names: tuple[str, ...], above: tuple[tuple[str, str], ...], chosen: tuple[tuple[str, str], ...]
) -> Mapping[str, str]:
    majors, own = dict(above), dict(chosen)
    of_major = _colors(tuple(sorted(set(majors.values()))), (), chosen) if above else {}
    colors: dict[str, str] = {}
    spelt = {folded(name): name for name in sorted(names, reverse=True)}  # one of each spelling has the chosen colour
    spelt |= {folded(name): name for name in names if name in own}
    colors |= {spelt[folded(name)]: color for name, color in chosen if folded(name) in spelt}
    colors |= {name: own[name] for name in names if name in own}
    wanted = [(*_wish(name, majors.get(name), of_major, own), name) for name in names if name not in colors]
    for _, _, offered, name in sorted(wanted, key=lambda wish: (wish[0], wish[1], wish[3])):
        colors[name] = _first_apart(offered, colors.values())
    return {name: colors[name] for name in names}


def _wish(
    name: str, major: str | None, of_major: Mapping[str, str], chosen: Mapping[str, str]
) -> tuple[int, str, tuple[str, ...]]:
    """Return rank and key by which a type comes to choose, and the colours it may have, the best first."""
    key, family = folded(name), family_of(name)
    if major is not None:
        base = of_major[major]
        is_major, listed = key == folded(major), () if (known := family_of(major)) is None else known.minor
    elif family is not None:
        base, is_major, listed = _color_of(family, key, chosen), key in family.own, family.minor
    else:
        start = crc32(key.encode()) % len(UNKNOWN)
        pool = (*UNKNOWN[start:], *UNKNOWN[:start])
        return 4, key, (*pool, *(shade for color in pool for shade in shades_of(color)))
    shades = shades_of(base)
    if is_major:
        rank = family.own.index(key) if family is not None and key in family.own else 0
        return 0, f"{rank:03}", (base, *shades)
    start = (listed.index(key) if key in listed else crc32(key.encode())) % len(shades)
    return (1 if key in listed else 2), key, (*shades[start:], *shades[:start])


def _color_of(family: Family, key: str, chosen: Mapping[str, str]) -> str:
    """Colour of a type of a family: that which the user chose for another of its names, or else the family's.

    *Stroma* is drawn as *CAFs* are, yet is not the same: a colour chosen for the one leaves the other as it is.
    """
    same = next((group for group in family.same if key in group), family.same[0])
    return next((color for name, color in chosen.items() if folded(name) in same), family.color)


def _first_apart(offered: Sequence[str], taken: Collection[str]) -> str:
    """Return the first colour that is far enough from those taken, or else the farthest; never one that is taken."""
    for color in offered:
        if distance(color, taken) >= APART:
            return color
    farthest = max(offered, key=lambda color: distance(color, taken))
    more = (f"#{crc32(f'{farthest}{n}'.encode()) & 0xFFFFFF:06X}" for n in count())  # more types than colours
    free = (color for color in more if color not in taken and not reads_as_stain(color))
    return farthest if farthest not in taken else next(free)


def choose_colors(colors: Mapping[str, str]) -> None:
    """Set the user's colours, ``#RRGGBB`` by name of cell type, for this process.

    They hold for other spellings of the names, too. Other types have palette colours. Earlier choices are discarded.
    """
    _chosen.clear()
    _chosen.update(colors)


def chosen_color(cell_type: str) -> str | None:
    """Colour of a cell type chosen by the user, in this or another spelling, or None."""
    spelt = {folded(name): color for name, color in _chosen.items()}
    return _chosen.get(cell_type) or spelt.get(folded(cell_type))


def read_colors(text: str) -> dict[str, str]:
    """Parse colours such as ``T-cells = #0072B2, CAFs = orange``.

    Raises
    ------
    SettingsError
        If a part is not a name and a colour.
    """
    parts = [part for part in re.split(r"[,;\n]+", text) if part.strip()]
    if not parts:
        return {}
    from matplotlib.colors import is_color_like, to_hex

    colors = {}
    for part in parts:
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
