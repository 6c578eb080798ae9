"""Size and colours of a chart: in a dock, or for a file. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass

DPI = 100


@dataclass(frozen=True)
class Paper:
    """Size and colours of a chart.

    Parameters
    ----------
    ink
        Colour of texts and lines.
    ground
        Background colour; ``none`` is transparent.
    width_px
        Width at `DPI`.
    source
        Names of slide and model, written below a chart in a file.
    warning
        Why the chart is not to be believed, written in a band at its top in a file.
    warning_colors
        Colours of its text and of the band.
    """

    ink: str = "#000000"
    ground: str = "#FFFFFF"
    width_px: int = 560
    source: str = ""
    warning: str = ""
    warning_colors: tuple[str, str] = ("#FFFFFF", "#B3261E")
