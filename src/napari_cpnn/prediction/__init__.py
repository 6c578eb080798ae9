"""Prediction at places on a slide, on a device; shared by maps, evaluation and training."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
