"""Registration: where the points of one picture, or of a table of spots, lie on a slide."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
