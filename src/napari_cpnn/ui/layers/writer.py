"""Writer of maps for *File > Save Selected Layers*."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_cpnn.errors import ExportError
from napari_cpnn.ui.frame import run_with_live_window
from napari_cpnn.ui.layers.slide_layers import OVERLAY_KEY
from napari_cpnn.ui.viewer import state_of


def write_map(path: str, layers: list[tuple[Any, dict[str, Any], str]]) -> list[str]:
    """Write the map of the viewer to ``path``, in the format of its suffix.

    The map behind the layer is written, not its colours: ``.zarr`` is our own format, the others are those of
    :func:`napari_cpnn.export_map`. AnnData has all genes, the other tables the gene on screen.

    Parameters
    ----------
    path
        Target; napari has asked before replacing a file.
    layers
        Data, attributes and kind of each selected layer; all must be overlays, which show one map.

    Returns
    -------
    list of str
        The files that were written.

    Raises
    ------
    ExportError
        When a layer is not an overlay, or the map cannot be written.
    """
    import napari

    viewer = napari.current_viewer()
    state = None if viewer is None else state_of(viewer)
    ours = all(OVERLAY_KEY in attributes.get("metadata", {}) for _, attributes, _ in layers)
    if state is None or state.map is None or not ours:
        raise ExportError(
            f"{Path(path).name} was not written, since only the layers of a CPNN map can be saved as a map: select one "
            "alone, such as 'Dominant cell type', or choose another kind of file."
        )
    # Changes that the user makes while the file is written are not part of it.
    cmap, slide, shown = state.map, state.slide, state.shown
    genes = [shown.gene] if shown is not None and shown.gene else []

    def write() -> None:
        from napari_cpnn.export import export_map, format_of, save_map

        kind = format_of(path)
        if kind == "spatialdata":  # ``.zarr`` alone is our own format
            save_map(cmap, path, overwrite=True)
        else:
            export_map(cmap, path, None if kind == "anndata" else genes, slide, kind, overwrite=True)

    run_with_live_window(write, f"Saving {Path(path).name}")
    return [path]
