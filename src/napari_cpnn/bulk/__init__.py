"""Bulk RNA-seq: tables of samples -> AnnData of raw counts, and filters of genes and samples."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
