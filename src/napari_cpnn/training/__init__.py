"""Train models on spots, in this process or in a separate one.

The names in ``__init__.pyi`` are imported lazily, because they load torch and Lightning.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
