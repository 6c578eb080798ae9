"""One run of training: losses and optimiser, the run folder and resuming, calibration and the out-of-domain score."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
