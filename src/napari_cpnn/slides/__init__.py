"""Files -> :class:`Slide`: pyramid, region reads, patches and the tissue mask.

The names below are the public API of this floor; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Slide": "slide",
    "open_slide": "slide",
    "PatchReader": "patches",
    "read_patches": "patches",
    "TissueMask": "tissue_mask",
    "find_tissue": "tissue",
    "SLIDE_SUFFIXES": "backends",
}

__all__ = ["SLIDE_SUFFIXES", "PatchReader", "Slide", "TissueMask", "find_tissue", "open_slide", "read_patches"]

if TYPE_CHECKING:
    from napari_cpnn.slides.backends import SLIDE_SUFFIXES as SLIDE_SUFFIXES
    from napari_cpnn.slides.patches import PatchReader as PatchReader
    from napari_cpnn.slides.patches import read_patches as read_patches
    from napari_cpnn.slides.slide import Slide as Slide
    from napari_cpnn.slides.slide import open_slide as open_slide
    from napari_cpnn.slides.tissue import find_tissue as find_tissue
    from napari_cpnn.slides.tissue_mask import TissueMask as TissueMask


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
