"""Compare models across sections and patients: cross-validation, paired differences, reports and figures."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
