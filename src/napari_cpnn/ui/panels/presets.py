"""Sets of panels that are often wanted. No Qt here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.errors import CpnnError
from napari_cpnn.painting import Shown
from napari_cpnn.ui.panels.panel import MAIN, PanelSpec, Source

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_cpnn.ui.panels.controller import PanelsController

_NO_MAP = "There is no map yet: choose a slide and a model in Explore."


def top_types(panels: PanelsController, n: int = 4) -> list[PanelSpec]:
    """Return panels of the ``n`` types with the largest mean share in view, or on the slide if none is known there."""
    cmap = panels.state.map
    if cmap is None or not cmap.cell_types:
        raise CpnnError("There is no map of cell types yet: choose a slide and a model in Explore.")
    level = panels.state.level
    shares, names = cmap.mean_weights(panels.view, level), cmap.types_at(level)
    if not np.isfinite(shares).all():
        shares = cmap.mean_weights(None, level)
    if not np.isfinite(shares).all():
        raise CpnnError("No patch is mapped yet: wait for the first ones.")
    first = np.argsort(-shares, kind="stable")[:n]
    return [PanelSpec("map", Shown("type", (names[k],), level=level)) for k in first]


def measured_predicted(panels: PanelsController, gene: str) -> list[PanelSpec]:
    """Return the measured spots of a gene, and its map."""
    if panels.spots is None:
        raise CpnnError("No measured spots are open: open some in the Compare dock.")
    if not gene:
        raise CpnnError("Choose a gene first, here or in Explore.")
    shown = Shown("gene", (gene,))
    return [PanelSpec("spots", shown), PanelSpec("map", shown)]


def tissue_overlay(panels: PanelsController) -> list[PanelSpec]:
    """Return the tissue alone, and with what Explore shows."""
    return [PanelSpec("tissue"), PanelSpec("map", _shown(panels))]


def two_models(panels: PanelsController, model: Path | None) -> list[PanelSpec]:
    """Return what Explore shows, by its model and by another one."""
    if model is None:
        raise CpnnError("Choose another model at Model first.")
    shown = _shown(panels)
    return [PanelSpec("map", shown), PanelSpec("map", shown, Source(model=model))]


def before_after(panels: PanelsController) -> list[PanelSpec]:
    """Return what Explore shows, by the model that its own was fine-tuned from (or shown before it) and by its own."""
    before = panels.sources.model_before()
    if before is None:
        raise CpnnError("No former model is known: show the one before fine-tuning in Explore first, then this one.")
    shown = _shown(panels)
    return [PanelSpec("map", shown, Source(model=before)), PanelSpec("map", shown)]


def two_slides(panels: PanelsController, layer: Layer | None) -> list[PanelSpec]:
    """Return what Explore shows (without a model: tissue) on its slide and on another one."""
    if layer is None:
        raise CpnnError("There is one slide only: open another one with File > Open.")
    other = Source(slide=panels.sources.register(layer))
    if other == MAIN:
        raise CpnnError("This is the slide of Explore: choose another one at Slide.")
    if panels.state.model is None:
        return [PanelSpec("tissue"), PanelSpec("tissue", None, other)]
    shown = _shown(panels)
    return [PanelSpec("map", shown), PanelSpec("map", shown, other)]


def _shown(panels: PanelsController) -> Shown:
    if panels.state.shown is None:
        raise CpnnError(_NO_MAP)
    return panels.state.shown
