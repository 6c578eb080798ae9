"""Composition maps: filled live around what is in view, or for a whole slide at once."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
