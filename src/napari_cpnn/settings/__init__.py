"""Frozen settings, one dataclass per task.

They are the one source of truth for GUI defaults, command-line options (``help`` is in the field's metadata) and
what is written into a checkpoint or a run folder. ``to_dict`` and ``from_dict`` go through plain JSON types.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
