"""Export maps: AnnData for squidpy, SpatialData, GeoJSON for QuPath, OME-Zarr, CSV.

The public API is listed in ``__init__.pyi``; each name is imported when first used.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
