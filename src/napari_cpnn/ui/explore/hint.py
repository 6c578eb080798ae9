"""What the user of the Explore dock can do next. No Qt here."""

from __future__ import annotations

from napari_cpnn.ui.frame import mapping_message, seen_text
from napari_cpnn.ui.viewer import ExploreState


def what_next(state: ExploreState, *, live: bool, has_view: bool) -> str:
    """Return what is missing for a map, or how mapping goes; empty while a map is being made."""
    if state.layer is None:
        return state.no_slide or "No slide yet: open one with File > Open, or drop it on the window."
    if state.model is None:
        return "No model yet: choose one, or open a .safetensors file."
    if state.slide is not None and state.slide.mpp is None:
        return "The pixel size of this slide is not known: enter it above, in µm per pixel."
    if state.mapper is None:
        return ""
    return mapping_message(state.mapper.progress(), live=live, has_view=has_view) or seen_text(state.model, state.slide)
