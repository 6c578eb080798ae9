"""Runs over a cohort: quality control, map and tables of each slide, on any number of workers, and a report of all.

``folder`` knows what lies in the folder of a run, ``slide_job`` is the work of one slide, ``run`` hands slides to
workers (``clusters``, ``plugin``), and ``report`` puts together what they have written.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
