"""Single cells of a slide: the nuclei, and what a model predicts of each; exports, neighbours, means per patch.

The public API is listed in ``__init__.pyi``; names are imported lazily.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
