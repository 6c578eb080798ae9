"""Colours as the eye sees them: CIELAB, shades of a colour, and the colours of haematoxylin and eosin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray

#: sRGB to XYZ (IEC 61966-2-1), and the white of D65 in it.
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _XYZ.sum(axis=1)
#: Optical densities of haematoxylin and eosin in red, green and blue (Ruifrok and Johnston 2001).
_STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]])
#: Largest densities of the two stains on a slide.
_DENSITIES = (1.6, 1.2)
#: Smallest distance (CIE 1976) of a shade from the colours of a stained slide.
_FROM_STAIN = 30.0
#: Hue angles in CIELAB, in degrees, between which a colour is neither pink nor purple.
_HUES = (24.0, 256.0)
#: Smallest chroma of a shade: grey is kept for no type.
_CHROMA = 18.0
N_SHADES = 12


def lab_of(colors: Sequence[str]) -> FloatArray:
    """Convert ``#RRGGBB`` to CIELAB (D65), ``(n, 3)``: lightness 0 to 100, green to red, blue to yellow."""
    return np.array([_lab(color) for color in colors], dtype=np.float64).reshape(-1, 3)


@lru_cache(maxsize=1024)
def _lab(color: str) -> tuple[float, float, float]:
    rgb = np.array([[int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]])
    light, a, b = _to_lab(rgb)[0].tolist()
    return light, a, b


def distance(color: str, others: Iterable[str]) -> float:
    """Smallest distance in CIELAB (CIE 1976) of ``#RRGGBB`` from other colours; infinity if there are none."""
    others = list(others)
    if not others:
        return math.inf
    return float(np.linalg.norm(lab_of(others) - lab_of([color]), axis=1).min())


@lru_cache(maxsize=1)
def stained_colors() -> FloatArray:
    """CIELAB colours ``(n, 3)`` of a slide stained with haematoxylin and eosin, from none to the densest.

    Beer and Lambert: the transmitted light is ``10 ** -(h H + e E)`` for the densities ``h`` and ``e`` of the stains
    (colour deconvolution; Ruifrok and Johnston 2001, Anal Quant Cytol Histol 23:291).
    """
    stains = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
    h, e = np.meshgrid(*(np.linspace(0, most, 25) for most in _DENSITIES), indexing="ij")
    return _to_lab(10 ** -(h[..., None] * stains[0] + e[..., None] * stains[1]).reshape(-1, 3))


def reads_as_stain(color: str) -> bool:
    """Return whether ``#RRGGBB`` can be taken for haematoxylin or eosin on a slide.

    That is, whether it is pink, purple or navy, or nearer than 30 in CIELAB (CIE 1976) to a colour of the stains.

    Examples
    --------
    >>> from napari_cpnn.palette import reads_as_stain
    >>> reads_as_stain("#123456"), reads_as_stain("#E8A0C0"), reads_as_stain("#009E73")
    (True, True, False)
    """
    lab = lab_of([color])[0]
    hue = float(np.degrees(np.arctan2(lab[2], lab[1]))) % 360
    near = float(np.linalg.norm(stained_colors() - lab, axis=1).min()) < _FROM_STAIN
    return near or not _HUES[0] <= hue <= _HUES[1]


@lru_cache(maxsize=256)
def shades_of(color: str) -> tuple[str, ...]:
    """Shades of ``#RRGGBB``: up to 12 of about its hue, as far from it and from each other as possible.

    They are not the colour itself, and none reads as haematoxylin or eosin unless the colour does.
    """
    lab = lab_of([color])[0]
    chroma, hue = float(np.hypot(lab[1], lab[2])), float(np.arctan2(lab[2], lab[1]))
    light, strong, turn = (
        v.ravel()
        for v in np.meshgrid(np.arange(-32.0, 33.0, 4.0), (0.6, 0.8, 1.0), np.radians((-8, 0, 8)), indexing="ij")
    )
    angle = hue + turn
    wanted = np.stack([lab[0] + light, chroma * strong * np.cos(angle), chroma * strong * np.sin(angle)], axis=1)
    rgb = _to_rgb(wanted)
    fits = (np.abs(rgb - rgb.clip(0, 1)).max(axis=1) < 0.02) & (wanted[:, 0] > 20) & (wanted[:, 0] < 94)
    far = np.linalg.norm(wanted[:, None] - stained_colors()[None], axis=2).min(axis=1) >= _FROM_STAIN
    degrees = np.degrees(angle) % 360
    far &= (chroma * strong >= _CHROMA) & (degrees >= _HUES[0]) & (degrees <= _HUES[1])
    found = wanted[fits & far] if (fits & far).sum() >= N_SHADES else wanted[fits]
    chosen: list[int] = []
    nearest = np.linalg.norm(found - lab, axis=1)
    while len(chosen) < min(N_SHADES, len(found)) and nearest.max(initial=0.0) > 1:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(found - found[chosen[-1]], axis=1))
    return tuple(dict.fromkeys(_hex(rgb) for rgb in _to_rgb(found[chosen])))


def _to_lab(rgb: FloatArray) -> FloatArray:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ.T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def _to_rgb(lab: FloatArray) -> FloatArray:
    """Convert CIELAB to sRGB, which may be out of 0 to 1."""
    y = (lab[:, 0] + 16) / 116
    f = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _WHITE
    linear = xyz @ np.linalg.inv(_XYZ).T
    curve = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.asarray(np.where(linear <= 0.0031308, linear * 12.92, curve))


def _hex(rgb: npt.NDArray[np.float64]) -> str:
    return "#{:02X}{:02X}{:02X}".format(*np.rint(255 * rgb.clip(0, 1)).astype(int))
