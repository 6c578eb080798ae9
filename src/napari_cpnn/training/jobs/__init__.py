"""A training run in a process of its own: what to train, starting and ending it, and looking at it."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
