"""Settings of a benchmark of predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings.base import Settings, check, check_precision, setting


@dataclass(frozen=True)
class BenchmarkSettings(Settings):
    """Scores, baselines and negative controls of :func:`~napari_cpnn.benchmark`.

    Examples
    --------
    >>> settings = nc.BenchmarkSettings(shifts=4, patch=nc.PatchSpec(64, 1.0))
    >>> settings.shifts, settings.patch.size_um
    (4, 64.0)
    """

    ceiling_repeats: int = setting(5, "number of random halvings of the counts for the noise ceiling; 0: no ceiling")
    spatial: bool = setting(True, "agreement of the ranks of spatially variable genes by Moran's I (needs squidpy)")
    shifts: int = setting(5, "steps per axis of the shifts over the section, 24 shifts for 5; 0 or 1: no such control")
    bootstraps: int = setting(2000, "resamples for the intervals; 0: no intervals")
    interval: float = setting(0.95, "coverage of the intervals")
    seed: int = setting(0, "seed of resamples and halvings")
    precision: Literal["auto", "float32", "bfloat16"] = setting("auto", "arithmetic of the image network, as for maps")
    ignore_gene_case: bool = setting(False, "match gene names without regard to case")
    patch: PatchSpec = field(default=PatchSpec(224, 0.5))
    """Patch around each spot from which colour statistics and nuclei are taken."""

    def __post_init__(self) -> None:
        check_precision(self.precision)
        counts = (self.ceiling_repeats, self.shifts, self.bootstraps, self.seed)
        check(min(counts) >= 0, "Numbers of repeats, and the seed, cannot be negative.")
        check(0 < self.interval < 1, "The coverage of an interval must be in (0, 1).")
