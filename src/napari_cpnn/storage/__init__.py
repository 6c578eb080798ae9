"""Atomic writing of files and folders, the user's cache, and validation of HDF5 files before reading."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
