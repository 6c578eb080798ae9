"""Shares of cell types in view, for the list and the legend. No Qt here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.painting import colors_of, dominant_types
from napari_cpnn.ui.viewer import ExploreState, TypeRow

if TYPE_CHECKING:
    from napari_cpnn.mapping import Viewport


class TypeShares:
    """Mean shares of the map in view, computed again only when something has changed."""

    def __init__(self, state: ExploreState) -> None:
        self._state = state
        self._known: tuple[Any, list[TypeRow]] = (None, [])

    def rows(self, viewport: Viewport | None) -> list[TypeRow]:
        """Return all cell types, the largest mean share in view first; minor types under their major types."""
        model, cmap = self._state.model, self._state.map
        if model is None:
            return []
        colors = colors_of(model)
        key = (id(model), id(cmap), None if cmap is None else cmap.revision, viewport, *colors.items())
        if self._known[0] != key:
            shares = np.full(len(model.cell_types), np.nan)
            if cmap is not None and model.cell_types:
                shares = cmap.mean_weights(None if viewport is None else viewport.rect)
            rows = [TypeRow(n, colors[n], float(s)) for n, s in zip(model.cell_types, shares, strict=True)]
            self._known = (key, _sorted(_majors(rows, model.hierarchy, colors)))
        return self._known[1]

    def legend(self, viewport: Viewport | None) -> list[TypeRow]:
        """Return the cell types to name in the legend: those that dominate somewhere in view, or those of the blend."""
        cmap, shown, rows = self._state.map, self._state.shown, self.rows(viewport)
        if cmap is None or shown is None or shown.has_range:
            return []
        if shown.kind == "blend":
            every = {row.name: row for one in rows for row in (one, *one.parts)}
            return [every[name] for name in every if name in shown.names]
        window = (slice(None), slice(None)) if viewport is None else cmap.grid.window(viewport.rect)
        minors = [part for row in rows for part in row.parts or (row,)]
        by_name = {row.name: row for row in (rows if shown.level == "major" else minors)}
        return [by_name[name] for name in dominant_types(cmap, window, shown.level)]


def _majors(rows: list[TypeRow], hierarchy: Mapping[str, str], colors: Mapping[str, str]) -> list[TypeRow]:
    """Gather the rows of minor types under those of their major types, whose shares are the sums."""
    below: dict[str, list[TypeRow]] = {}
    for row in rows:
        below.setdefault(hierarchy.get(row.name, row.name), []).append(row)
    found = []
    for name, parts in below.items():
        share = float(sum(part.share for part in parts))
        is_one = len(parts) == 1 and parts[0].name == name
        found.append(TypeRow(name, colors[name], share, () if is_one else tuple(_sorted(parts))))
    return found


def _sorted(rows: Iterable[TypeRow]) -> list[TypeRow]:
    return sorted(rows, key=lambda row: -np.nan_to_num(row.share, nan=-1.0))
