"""Cohorts: a table of slides with their samples, patients, groups and bulk samples.

``rows`` reads manifests of each format as text, ``cohort`` checks them and is what others use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
