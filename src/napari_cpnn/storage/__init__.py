"""Files and folders that are written whole, the user's cache, and HDF5 that is checked before it is read."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
