"""Frozen settings, one dataclass per task.

They are the single source for GUI defaults, command-line options (``help`` is in the field's metadata) and the settings
saved in checkpoints and run folders. ``to_dict`` and ``from_dict`` use plain JSON types.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
