"""Benchmark the predictions of any model on measured sections, beside ceilings, baselines and negative controls."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
