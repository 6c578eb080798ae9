"""Settings of a figure of what is on screen, and the record of an export. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cpnn.settings import ExportSettings, FigureSettings

if TYPE_CHECKING:
    from napari_cpnn.export import Area
    from napari_cpnn.painting import Look, Shown


@dataclass(frozen=True, eq=False)
class Exported:
    """An export that was written.

    Parameters
    ----------
    kind
        Key of ``napari_cpnn.export.FORMATS``, or ``map``.
    name
        Name of the file.
    names
        The genes, or the panels of a figure.
    names_all
        Whether they are all genes of the model.
    least_pcc
        The held-out PCC by which the genes were chosen, if they were.
    area
        Part of the slide, slide um; ``None``: all of it.
    settings
        Settings, with those of the figure.
    """

    kind: str
    name: str
    names: tuple[str | Shown, ...] = ()
    names_all: bool = False
    least_pcc: float | None = None
    area: Area | None = None
    settings: ExportSettings = ExportSettings()


def settings_on_screen(look: Look, shown: Shown | None, limits: tuple[float, float] | None) -> FigureSettings:
    """Return the settings of a figure with the look on screen.

    Parameters
    ----------
    look, shown
        As in ``ExploreState``; ``shown`` is ``None`` if the figure shows other quantities.
    limits
        Colour range of the figure; ``None`` if each quantity has its own, unless that of the look is fixed for all.
    """
    fixed = None if shown is None else look.fixed(shown)
    if fixed is None and limits is not None and (shown is None or shown.has_range):
        fixed = limits
    elif fixed is None and look.range_mode == "manual" and not look.manual_for:
        fixed = look.manual
    return FigureSettings(
        colormap=look.colormap,
        value_range="full" if look.range_mode == "full" else "auto",
        low=None if fixed is None else fixed[0],
        high=None if fixed is None else max(fixed[1], fixed[0] + 1e-6),
        opacity=look.opacity,
        smooth=look.smooth,
        style="contours" if look.style == "contours" else "wash",
        unlike=look.unlike,
        scale_um=look.scale_um,
    )
