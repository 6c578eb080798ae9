"""Slides and spots in napari's layers: readers, writer, sample data, and what is in view."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
