"""Nuclei on a slide: found by a detector of our own or a classical one, read from other programs, kept and exported.

The public API is listed in ``__init__.pyi``; names are imported lazily.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
