"""Regions of a slide: drawn or imported outlines, and summaries of a map inside them.

The public API is listed in ``__init__.pyi``; names are imported lazily.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
