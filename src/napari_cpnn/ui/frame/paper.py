"""What charts are drawn on: in a dock, or for a file. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass

DPI = 100


@dataclass(frozen=True)
class Paper:
    """What a chart is drawn on.

    Parameters
    ----------
    ink
        Colour of texts and lines.
    ground
        Behind it all; ``none`` lets the dock show.
    width_px
        How wide, at `DPI`.
    source
        Names of slide and model, written below a chart that goes into a file.
    """

    ink: str = "#000000"
    ground: str = "#FFFFFF"
    width_px: int = 560
    source: str = ""
