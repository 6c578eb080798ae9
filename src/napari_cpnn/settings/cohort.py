"""Settings of a run over a cohort of slides."""

from __future__ import annotations

from dataclasses import dataclass

from napari_cpnn.settings.base import Settings, check, setting
from napari_cpnn.settings.mapping import MappingSettings


@dataclass(frozen=True)
class CohortSettings(Settings):
    """Quality control, tables and sharing of work of :func:`~napari_cpnn.run_cohort`.

    Limits of the quality control only raise a flag: no slide is left out for one.

    Examples
    --------
    >>> nc.CohortSettings(workers=4, genes="ERBB2, CD3E").gene_list
    ('ERBB2', 'CD3E')
    """

    workers: int | None = setting(None, "slides at a time; none: one per GPU, or per core; 0: in this process")
    threads: int = setting(1, "threads of the network of each worker")
    split_patches: int = setting(100_000, "slides with a larger grid are split over the workers of a cluster by blocks")
    genes: str = setting("", "genes whose mean expression is in the tables, separated by commas")
    regions: str = setting("regions", "column of the manifest with the GeoJSON of a slide's regions")
    thumbnail_px: int = setting(512, "longer side of the pictures of a slide, in px")
    interval: float = setting(0.95, "coverage of the intervals")
    qc_patches: int = setting(256, "patches of a slide that are read for focus and stains; 0: none")
    least_tissue_mm2: float = setting(1.0, "flag slides with less tissue, in mm2")
    most_pen: float = setting(0.02, "flag slides with more pen, as a share of tissue and pen")
    most_folds: float = setting(0.05, "flag slides with more folds, as a share of the tissue")
    most_failed: float = setting(0.02, "flag slides with more patches that cannot be read, as a share of the tissue")
    mapping: MappingSettings = MappingSettings()

    def __post_init__(self) -> None:
        check(self.workers is None or self.workers >= 0, "The number of workers cannot be negative.")
        check(self.threads >= 1, "A worker needs at least one thread.")
        check(self.split_patches >= 1, "Slides can be split from one patch on.")
        check(64 <= self.thumbnail_px <= 4096, "Pictures of a slide have a side of 64 to 4,096 px.")
        check(0 < self.interval < 1, "The coverage of an interval must be in (0, 1).")
        check(self.qc_patches >= 0, "The number of patches that are read cannot be negative.")
        limits = (self.least_tissue_mm2, self.most_pen, self.most_folds, self.most_failed)
        check(min(limits) >= 0, "Limits of the quality control cannot be negative.")

    @property
    def gene_list(self) -> tuple[str, ...]:
        """Names of the genes of the tables."""
        return tuple(dict.fromkeys(name for name in map(str.strip, self.genes.split(",")) if name))
