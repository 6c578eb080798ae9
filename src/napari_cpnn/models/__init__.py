"""Torch modules, losses and the checkpoint format.

The names in ``__init__.pyi`` are imported lazily: the decoder, the checkpoint card and the list of backbones work
without torch, and importing them must not load it.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
