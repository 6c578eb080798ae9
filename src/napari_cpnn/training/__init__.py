"""Train a model on spots, and measure it on others.

The names of ``__init__.pyi`` are imported when they are first used, because they load torch and Lightning.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
