"""Torch modules, losses and the checkpoint format: tensors in, tensors out.

The names of ``__init__.pyi`` are imported when they are first used: the decoder, the card of a checkpoint and the list
of backbones need no torch, and importing them must not load it.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
