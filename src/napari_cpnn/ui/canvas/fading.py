"""How strongly a map covers the tissue at a magnification. No Qt here."""

from __future__ import annotations

import math

#: Pixels of 1 um are a magnification of 10x, as on the labels of slide scanners.
_X_PER_PX_PER_UM = 10.0
#: Share of its opacity that a map loses with each doubling of the magnification, and the least that it keeps.
_LOSS, _LEAST = 0.4, 0.15


def magnification(px_per_um: float) -> float:
    """Return the magnification of a view: 10 at 1 um per pixel, 20 at 0.5, 40 at 0.25.

    >>> magnification(2.0)
    20.0
    """
    return _X_PER_PX_PER_UM * px_per_um


def magnification_text(px_per_um: float) -> str:
    """Describe a magnification.

    >>> magnification_text(2.0), magnification_text(0.036)
    ('20x (0.5 µm/px)', '0.36x (28 µm/px)')
    """
    um = 1 / px_per_um
    size = f"{um:.0f}" if um >= 10 else f"{um:.2g}"
    times = magnification(px_per_um)
    return f"{times:.0f}x ({size} µm/px)" if times >= 10 else f"{times:.2g}x ({size} µm/px)"


def fading(px_per_um: float, start: float) -> float:
    """Return the share of its opacity that a map keeps at a zoom.

    Parameters
    ----------
    px_per_um
        Screen pixels per um.
    start
        Magnification up to which nothing fades; each doubling from there takes 0.4, down to 0.15.

    Examples
    --------
    >>> [round(fading(zoom, 10.0), 2) for zoom in (0.5, 1.0, 2.0, 4.0, 8.0)]
    [1.0, 1.0, 0.6, 0.2, 0.15]
    """
    doublings = math.log2(max(magnification(px_per_um) / start, 1.0)) if px_per_um > 0 else 0.0
    return max(_LEAST, 1.0 - _LOSS * doublings)
