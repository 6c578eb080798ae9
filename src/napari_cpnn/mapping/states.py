"""States of the patches of a map."""

from __future__ import annotations

UNKNOWN, BACKGROUND, DONE, FAILED, SKETCH = 0, 1, 2, 3, 4
"""States of a patch: not computed yet; no tissue; computed; failed to be read or computed; and a preliminary value of a
model that needs surroundings, to be replaced by the final one (displayed, but neither stored nor exported)."""
