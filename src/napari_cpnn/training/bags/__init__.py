"""Training on slides: bags of patches with one label per bag, such as a bulk RNA-seq profile.

The names in ``__init__.pyi`` are imported lazily, because they load torch.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
