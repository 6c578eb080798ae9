"""Regions of a slide: drawn or imported outlines, and what a map says inside them.

The names below are the public API of this floor; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Region": "outlines",
    "read_regions": "outlines",
    "write_regions": "outlines",
    "summarise_regions": "summary",
    "compare_regions": "summary",
    "explain_gene": "explain",
}

__all__ = ["Region", "compare_regions", "explain_gene", "read_regions", "summarise_regions", "write_regions"]

if TYPE_CHECKING:
    from napari_cpnn.regions.explain import explain_gene as explain_gene
    from napari_cpnn.regions.outlines import Region as Region
    from napari_cpnn.regions.outlines import read_regions as read_regions
    from napari_cpnn.regions.outlines import write_regions as write_regions
    from napari_cpnn.regions.summary import compare_regions as compare_regions
    from napari_cpnn.regions.summary import summarise_regions as summarise_regions


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
