"""What the panels show at one place. No Qt here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.mapping import members_of
from napari_cpnn.painting import format_value

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.painting import Shown
    from napari_cpnn.ui.panels.controller import PanelsController
    from napari_cpnn.ui.panels.panel import Painted


def readout(panels: PanelsController, um: tuple[float, float] | None) -> list[str]:
    """Return a line per panel: its title and its value at a place (y, x) of the slide of Explore, micrometres."""
    if um is None:
        return []
    lines = []
    for spec, painted, title in zip(panels.panels, panels.painted, panels.titles(), strict=True):
        dy, dx = panels.shift(spec.source.slide)
        at = um[0] + dy, um[1] + dx
        value = ""
        if spec.kind == "spots":
            value = _at_spot(painted, at)
        elif spec.kind == "map" and spec.shown is not None:
            value = _on_map(panels.sources.map(spec.source), spec.shown, painted, at)
        if value:
            lines.append(f"{title}: {value}")
    return lines


def _at_spot(painted: Painted, at: tuple[float, float]) -> str:
    if painted.centers_um is None or painted.numbers is None or not len(painted.numbers):
        return ""
    distance = np.hypot(*(painted.centers_um - np.asarray(at)).T)
    nearest = int(distance.argmin())
    inside = distance[nearest] <= painted.diameter_um / 2
    return format_value(float(painted.numbers[nearest]), "") if inside else "no spot here"


def _on_map(cmap: CompositionMap | None, shown: Shown, painted: Painted, at: tuple[float, float]) -> str:
    cell = None if cmap is None else cmap.grid.cell_at(*at)
    donor = -1 if cmap is None or cell is None else int(cmap.donors()[cell])
    if cmap is None or donor < 0:
        return "not mapped"
    if painted.numbers is not None:
        return format_value(float(painted.numbers.reshape(-1)[donor]), shown.unit)
    found = cmap.values_at(*divmod(donor, cmap.grid.shape[1]))
    if found is None:
        return "not mapped"
    weights = np.asarray(found.weights, dtype=float)
    names = shown.names if shown.kind == "blend" else cmap.types_at(shown.level)
    shares = {name: float(weights[members_of(cmap, name, shown.level)].sum()) for name in names}
    if shown.kind != "blend":
        first = max(shares, key=lambda name: shares[name])
        shares = {first: shares[first]}
    return ", ".join(f"{name} {format_value(share, 'share')}" for name, share in shares.items())
