"""Reader of spots for napari: Space Ranger folders, ``.h5ad`` and SpatialData."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.geometry import Mpp
from napari_cpnn.spots import SpotsSource, estimate_mpp, find_slide, find_spots, read_spots, sections
from napari_cpnn.ui.frame import run_with_live_window
from napari_cpnn.ui.layers.reader import LayerData, slide_layer
from napari_cpnn.ui.layers.slide_layers import SMALL_KEY, is_slide_layer, mpp_of_layer, path_of
from napari_cpnn.ui.layers.spot_tables import POSITIONS_KEY, SOURCE_KEY, drawing_of

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.layers import Layer

    from napari_cpnn.slides import Slide

Paths = str | Sequence[str]


def get_spots_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Return a reader function; quickly ``None`` for files without spots."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_spot_layers if paths and all(find_spots(p) for p in paths) else None


def read_spot_layers(path: Paths) -> list[LayerData]:
    """Read a layer per section, and its slide if that is found and not on screen yet.

    A section is a layer of points, of many bins an image with a pixel for each. Without a slide, on screen or on disk,
    Space Ranger's small picture is shown.

    Of a Visium HD run the largest bins are read; the Compare dock offers the others. Each library in a file, and each
    run in a folder, becomes a layer.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return [layer for p in paths for source in sections(find_spots(p)) for layer in layers_of(source)]


def layers_of(source: SpotsSource) -> list[LayerData]:
    """Read the layers of one table of spots."""

    def read() -> tuple[AnnData, Slide | None]:
        spots = read_spots(source.path, library=source.library)
        return spots, find_slide(source.path, spots)

    spots, slide = run_with_live_window(read, f"Reading {source.name}") if _has_screen() else read()
    implied = estimate_mpp(spots)
    shown = _slides_on_screen()
    layers: list[LayerData] = []
    under = next((layer for layer in shown if slide is not None and path_of(layer) == slide.path), None)
    if slide is not None and under is None:
        slide = slide if slide.mpp is not None or implied is None else slide.with_mpp(implied)
        layers.append(slide_layer(slide))
        mpp = slide.mpp
    else:
        under = under or (shown[0] if len(shown) == 1 else None)
        mpp = implied if under is None else mpp_of_layer(under)
    if not layers and under is None and not _has_small_picture():
        layers += _small_picture(spots, source.name, mpp)
    if under is not None and mpp is None:  # the slide is in pixels, and so are the spots
        under = None
    return [*layers, drawing_of(spots, source.path, source.name, (under, mpp))]


def _small_picture(spots: AnnData, name: str, mpp: Mpp | None) -> list[LayerData]:
    """Return Space Ranger's small picture of the slide, placed under the spots."""
    for library in dict(spots.uns.get("spatial", {})).values():
        images, factors = dict(library.get("images", {})), dict(library.get("scalefactors", {}))
        for size in ("hires", "lowres"):
            factor = factors.get(f"tissue_{size}_scalef")
            if size not in images or not factor:
                continue
            pixel = np.asarray(mpp or (1.0, 1.0)) / float(factor)
            first = pixel / 2 if mpp is not None else pixel / 2 - 0.5
            keywords = {
                "name": f"{name}, small picture",
                "rgb": True,
                "scale": pixel,
                "translate": first,
                "units": ("pixel", "pixel") if mpp is None else ("um", "um"),
                "metadata": {SMALL_KEY: True},
            }
            return [(images[size], keywords, "image")]
    return []


def _has_screen() -> bool:
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() is not None


def _layers_on_screen() -> list[Layer]:
    """Return the layers of the viewer, the topmost first."""
    import napari

    viewer: Any = napari.current_viewer()
    return [] if viewer is None else list(reversed(viewer.layers))


def _slides_on_screen() -> list[Layer]:
    return [layer for layer in _layers_on_screen() if is_slide_layer(layer)]


def _has_small_picture() -> bool:
    return any(SMALL_KEY in layer.metadata for layer in _layers_on_screen())


def spots_layer_of(
    spots: AnnData, files: Sequence[Path | None], name: str, slide: tuple[Layer | None, Mpp | None]
) -> Layer:
    """Return a layer of spots in memory, as if our reader had read it.

    Parameters
    ----------
    files
        File of the spots, and of their positions if it is another one; those that are known.
    slide
        As for :func:`~napari_cpnn.ui.layers.spot_tables.drawing_of`.
    """
    from napari.layers import Layer

    known = [file for file in files if file is not None]
    data, keywords, kind = drawing_of(spots, known[0] if known else Path(), name, slide)
    if len(known) > 1:
        keywords["metadata"][POSITIONS_KEY] = str(known[1])
    if not known:
        keywords["metadata"][SOURCE_KEY] = ""
    return Layer.create(data, keywords, kind)


def source_of(layer: Layer) -> Path | None:
    """Return the file that our reader read a layer from."""
    return _file(layer, SOURCE_KEY)


def positions_of(layer: Layer) -> Path | None:
    """Return the file of the positions of spots, if it is another one."""
    return _file(layer, POSITIONS_KEY)


def _file(layer: Layer, key: str) -> Path | None:
    found = layer.metadata.get(key)
    return Path(found) if found else None
