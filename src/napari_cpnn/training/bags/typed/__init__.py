"""Expression of each cell type from the patches of a slide, learnt from bulk samples: SLIDE-EX and the typed head."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
