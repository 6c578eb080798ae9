"""Thresholds of models that are trained in tests; each has a margin that was measured, see docs/reliability.md.

What a model learns differs with the processor, the threads and the seed. ``make margins`` trains with other seeds and
settings (``scripts/test_isa.py``), and says how far the worst of them is from each threshold. It does so by:

``NAPARI_CPNN_TEST_SEED``
    Another seed than 0 for what is trained.
``NAPARI_CPNN_MARGINS``
    A file to which each check adds a line, instead of failing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

SEED = int(os.environ.get("NAPARI_CPNN_TEST_SEED", "0"))


def more_than(threshold: float, value: float, what: str) -> None:
    """Check that ``value`` is above ``threshold``."""
    if not _noted(threshold, value, what, ">"):
        assert value > threshold, what


def less_than(threshold: float, value: float, what: str) -> None:
    """Check that ``value`` is below ``threshold``."""
    if not _noted(threshold, value, what, "<"):
        assert value < threshold, what


def _noted(threshold: float, value: float, what: str, relation: str) -> bool:
    file = os.environ.get("NAPARI_CPNN_MARGINS")
    if not file:
        return False
    test = os.environ["PYTEST_CURRENT_TEST"].split("/")[-1].split(" ")[0]
    line = {"test": test, "what": what, "relation": relation, "threshold": threshold, "value": float(value)}
    with Path(file).open("a", encoding="utf-8") as notes:
        notes.write(json.dumps(line) + "\n")
    return True
