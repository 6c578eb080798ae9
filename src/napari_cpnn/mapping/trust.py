"""Verdict on a map by its out-of-domain scores: how much of it is unlike the tissue of the training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_cpnn.texts import shown as one_line

UNLIKE = 0.95
"""Tissue with a higher out-of-domain score is reported as unlike the training tissue; 5 % of held-out tissue is."""

#: From these shares of unlike tissue on, a map is to be read with caution, or not to be believed.
CAUTION, FOREIGN = 0.2, 0.5

#: Minimum number of patches for a verdict; below, chance decides.
LEAST_PATCHES = 8

#: No patch is larger, in um.
_FARTHEST_UM = 1e6

#: Maximum letters of the description of the training tissue.
_MOST_LETTERS = 80

Level = Literal["unknown", "familiar", "caution", "foreign"]


@dataclass(frozen=True)
class DomainReport:
    """Share of mapped tissue that is unlike the training tissue of the model, and what follows from it.

    Parameters
    ----------
    n_patches
        Mapped patches with a score.
    unlike
        Share of them whose score is above `UNLIKE`; NaN if there are none.
    trained_on
        Description of the training tissue, such as ``"breast, 3 patients"``; empty if it is not known.

    Examples
    --------
    >>> report = DomainReport(238, 0.98, "breast, 3 patients")
    >>> report.level
    'foreign'
    """

    n_patches: int
    unlike: float
    trained_on: str = ""

    @property
    def level(self) -> Level:
        """``"familiar"``, ``"caution"`` from a share of 20 % on, ``"foreign"`` above 50 %, or ``"unknown"``."""
        if self.n_patches < LEAST_PATCHES or math.isnan(self.unlike):
            return "unknown"
        if self.unlike > FOREIGN:
            return "foreign"
        return "caution" if self.unlike >= CAUTION else "familiar"

    @property
    def warning(self) -> str:
        """One or two sentences for the user; empty unless the level is ``"caution"`` or ``"foreign"``."""
        if self.level not in ("caution", "foreign"):
            return ""
        trained = f" ({self.trained_on})" if self.trained_on else ""
        # Rounded down, so that only what is wholly unlike is called 100 %.
        text = (
            f"{math.floor(100 * self.unlike + 1e-9)} % of this tissue is unlike what this model was trained on{trained}"
        )
        if self.level == "foreign":
            return f"{text}. Cell types and genes shown here are not to be believed."
        return f"{text}. Do not rely on cell types and genes there."


def patch_um(provenance: Mapping[str, Any]) -> float:
    """Return the size of a patch of the model of a map in um, by the map's provenance; 0 where it is not known."""
    patch = provenance.get("patch")
    sides: list[Any] = [patch.get("size_px"), patch.get("mpp")] if isinstance(patch, dict) else [None]
    known = all(type(side) in (int, float) and 0 < side < _FARTHEST_UM for side in sides)
    return float(sides[0] * sides[1]) if known else 0.0


def is_unlike(scores: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which scores (any shape) are above `UNLIKE`; False where unknown.

    Scores are compared in float16, the precision of maps, so that a map says the same before and after saving.
    """
    return np.asarray(np.asarray(scores, dtype=np.float16) > np.float16(UNLIKE))


def domain_report(
    scores: npt.ArrayLike, trained_on: str = "", copies: npt.NDArray[np.integer[Any]] | None = None
) -> DomainReport:
    """Summarise out-of-domain scores (any shape; NaN where unknown).

    Parameters
    ----------
    scores
        Scores of patches, 0 to 1.
    trained_on
        Description of the training tissue, from a file; shown on one line.
    copies
        How many patches of tissue each score stands for, of the same shape; one each by default.

    Examples
    --------
    >>> from napari_cpnn.mapping import domain_report
    >>> domain_report([0.99] * 6 + [0.5] * 4).level
    'foreign'
    """
    values = np.asarray(scores, dtype=np.float32).ravel()
    known = np.isfinite(values)
    weights = np.ones(len(values)) if copies is None else np.asarray(copies, dtype=np.float64).ravel()
    total = float(weights[known].sum())
    unlike = float(weights[known & is_unlike(values)].sum()) / total if total else math.nan
    return DomainReport(int((known & (weights > 0)).sum()), unlike, one_line(trained_on, _MOST_LETTERS))
