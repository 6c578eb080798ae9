"""What stays on screen when another model is loaded. No Qt here."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from napari_cpnn.mapping import members_of
from napari_cpnn.ui.explore.measure_box import has_measure
from napari_cpnn.ui.viewer import ExploreState, Memory, Shown

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN


def is_known(state: ExploreState, shown: Shown) -> bool:
    """Return whether the model has a quantity that was on screen with another one."""
    model = state.model
    if model is None or not has_measure(state, shown, shown.measure):
        return False
    if shown.kind == "signature":
        return set(shown.names[1:]) <= set(model.genes)
    types = shown.names[1:] if shown.kind == "contribution" else () if shown.gene else shown.names
    if shown.gene and shown.gene not in model.genes:
        return False
    return (bool(model.cell_types) or shown.kind == "gene") and all(members_of(model, t, shown.level) for t in types)


def still_shown(state: ExploreState, model: CPNN, recalled: Memory | None) -> Shown:
    """Return what is on screen, or was when the slide was last open, if the model has it; else a default.

    Parameters
    ----------
    state
        Already with the model; the look of the memory is set.
    """
    shown = state.shown
    if shown is None and recalled is not None:
        shown = recalled.shown
        if recalled.look is not None:
            state.set_look(**dataclasses.asdict(recalled.look))
    if shown is not None and shown.kind == "signature" and set(shown.names[1:]) <= set(model.genes):
        return shown
    if shown is not None:
        types = shown.names[1:] if shown.kind == "contribution" else () if shown.gene else shown.names
        knows = not shown.gene or shown.gene in model.genes
        if model.cell_types and knows and all(members_of(model, name, shown.level) for name in types):
            measure = shown.measure if has_measure(state, shown, shown.measure) else "value"
            level = state.level if shown.kind == "dominant" else shown.level if model.hierarchy else "minor"
            return dataclasses.replace(shown, measure=measure, level=level)
    # The dominant types give the best overview; a plain head has genes only.
    return Shown("dominant", level=state.level) if model.cell_types else Shown("gene", (model.genes[0],))
