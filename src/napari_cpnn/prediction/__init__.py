"""What maps, evaluation and training predict through: the model on its device, at places of a slide."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
