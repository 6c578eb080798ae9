"""Spots of Visium and Spatial Transcriptomics: reading, normalised expression, pixel size from the array's pitch."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
