"""The panels on screen as a figure, written in a background thread. No Qt here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.errors import ExportError
from napari_cpnn.ui.export import settings_on_screen

if TYPE_CHECKING:
    from napari_cpnn.export import Marks
    from napari_cpnn.painting import Look, Range
    from napari_cpnn.ui.panels.painter import Job
    from napari_cpnn.ui.panels.panel import Painted

Row = tuple["Job", "Painted", "Range | None", str]
"""What a panel shows, what was painted, its range, and its title."""


def write_figure(rows: Sequence[Row], look: Look, marks: Marks | None, path: Path, *, overwrite: bool) -> Path:
    """Write panels as one figure with the look of the screen; ``marks`` lie on those of the slide of Explore.

    Raises
    ------
    ExportError
        If a panel has nothing to show yet, or the file cannot be written.
    """
    from napari_cpnn.export import FigurePanel, Spots, panels_to_figure

    panels = []
    for job, painted, limits, title in rows:
        spec = job.spec
        if job.slide is None or job.view is None or job.missing:
            raise ExportError(f"{title}: {job.missing or 'the slide is being opened'}.")
        spots = None
        if spec.kind == "spots":
            if painted.centers_um is None or painted.colors is None:
                raise ExportError(f"{title}: {painted.note or 'not painted yet'}.")
            sizes = np.full(len(painted.centers_um), painted.diameter_um)
            spots = Spots(painted.centers_um, sizes, painted.colors, title, painted.bins)
        panels.append(
            FigurePanel(
                job.slide,
                job.view,
                job.cmap,
                spec.shown if spec.kind == "map" else None,
                limits,
                spots,
                outlines=marks if spec.source.slide == 0 else None,
                title=title,
            )
        )
    return panels_to_figure(panels, path, settings_on_screen(look, None, None), overwrite=overwrite)
