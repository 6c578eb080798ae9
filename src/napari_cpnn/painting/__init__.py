"""How maps become colours, on the screen and in figures: one code for both.

The public API of this floor is what ``__init__.pyi`` lists; each name is imported when it is first used.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
