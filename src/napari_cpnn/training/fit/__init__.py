"""Training runs: losses and optimiser, run folder and resuming, calibration and out-of-domain score."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
