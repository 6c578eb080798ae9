"""Settings for applying a model: maps, figures, exports and regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_cpnn.settings.base import DeviceName, Settings, check, check_precision, setting

MAX_SCALE_UM = 20_000.0
"""Largest diameter of the discs over which a map can be averaged."""


@dataclass(frozen=True)
class TissueSettings(Settings):
    """Tissue detection at low resolution.

    Examples
    --------
    >>> from napari_cpnn.slides import find_tissue
    >>> large = find_tissue(slide, nc.TissueSettings(min_area_um2=500_000))
    >>> large.area_um2 <= find_tissue(slide).area_um2
    True
    """

    mpp: float = setting(16.0, "pixel size in um at which tissue is detected")
    min_saturation: float = setting(0.05, "minimum colour saturation of tissue, 0 to 1")
    min_area_um2: float = setting(20_000.0, "smaller pieces of tissue are ignored")
    max_hole_um2: float = setting(20_000.0, "smaller holes are filled")
    min_coverage: float = setting(0.3, "minimum share of tissue for a patch to be mapped")

    def __post_init__(self) -> None:
        check(self.mpp > 0, "The tissue mask needs a positive pixel size.")
        check(0 < self.min_coverage <= 1, "The minimum tissue share of a patch must be in (0, 1].")


@dataclass(frozen=True)
class MappingSettings(Settings):
    """Settings for mapping a slide, live or as a whole.

    Examples
    --------
    >>> settings = nc.MappingSettings(stride_um=56.0, tissue=nc.TissueSettings(min_coverage=0.5))
    >>> settings.replace(precision="float32").stride_um
    56.0
    """

    device: DeviceName = setting("auto", "auto, cpu, cuda or mps")
    precision: Literal["auto", "float32", "bfloat16", "int8"] = setting(
        "auto", "arithmetic of the backbone; int8: faster on a CPU with OpenVINO, checked on patches of the slide"
    )
    engine: Literal["auto", "torch", "openvino"] = setting(
        "auto", "what computes the image networks; auto: OpenVINO on a CPU where it is installed, else torch"
    )
    stride_um: float | None = setting(None, "distance between neighbouring patches in um; none: the patch size")
    max_batch: int = setting(256, "largest batch")
    batch_seconds: float = setting(
        0.2, "target duration of a batch in seconds; short batches make the map follow the view"
    )
    reduced_tiles: bool = setting(
        False,
        "decode JPEG tiles at a half, a quarter or an eighth of their size where patches would be shrunk by two or "
        "more; reads such slides two to three times as fast, and changes maps a little",
    )
    readers: int = setting(2, "threads that read patches")
    reader_processes: int = setting(
        0,
        "processes that read patches of a whole slide; 0: threads do, as in a view; -1: on a GPU a process per core "
        "but one, where there are four cores or more",
    )
    n_gpus: int = setting(1, "GPUs that map a whole slide together; 0: all that are visible")
    cuda_graphs: bool = setting(False, "start the network on a GPU as one recorded graph when mapping a whole slide")
    coarsest: int = setting(16, "first lattice: every 16th patch (coarser where these are many), or fewer")
    min_screen_px: float = setting(4.0, "refine the map down to this many screen pixels per patch")
    margin: float = setting(0.25, "margin around the view that is mapped as well, in view sizes")
    cache: bool = setting(True, "keep maps on disk, so that a slide re-opens with its map")
    cache_dir: str | None = setting(None, "folder for cached maps; none: the user's cache directory")
    cache_gb: float = setting(2.0, "maximum size of cached maps in GB; the least recently used ones are deleted")
    tissue: TissueSettings = TissueSettings()

    def __post_init__(self) -> None:
        check(
            self.max_batch >= 1 and self.readers >= 1,
            "The maximum batch size and the number of readers must be at least one.",
        )
        check(
            -1 <= self.reader_processes <= 256,
            "The number of processes that read must be 0 to 256, or -1 for as many as suit the computer.",
        )
        check(self.n_gpus >= 0, "The number of GPUs cannot be negative; 0 stands for all.")
        check(
            self.coarsest in (1, 2, 4, 8, 16),
            f"The first lattice must be a power of two up to 16, not {self.coarsest}.",
        )
        check(self.stride_um is None or self.stride_um > 0, "The stride must be positive.")
        check(self.batch_seconds > 0 and self.min_screen_px > 0, "Batch duration and patch size must be positive.")
        check(self.margin >= 0, "The margin around the view cannot be negative.")
        check(self.cache_gb > 0, "The size of the cache must be a positive number of GB.")
        check_precision(self.precision, with_int8=True)
        check(self.precision != "int8" or self.engine != "torch", "int8 needs the engine 'openvino' or 'auto'.")
        engines = ("auto", "torch", "openvino")
        check(self.engine in engines, f"Unknown engine {self.engine!r}; use one of {', '.join(engines)}.")


@dataclass(frozen=True)
class FigureSettings(Settings):
    """Appearance of figures of a map: colours, size, text and resolution.

    Examples
    --------
    >>> settings = nc.FigureSettings(colormap="magma", width_mm=85, dpi=100)
    >>> nc.to_figure(cmap, "erbb2.png", "ERBB2", settings=settings).name
    'erbb2.png'
    """

    colormap: str = setting("viridis", "colour map: viridis, magma, inferno, cividis, turbo, Reds or Blues")
    value_range: Literal["auto", "full"] = setting(
        "auto", "auto: 2nd to 99th percentile (shares from 0); full: shares 0 to 1, genes 0 to the largest value"
    )
    low: float | None = setting(None, "value of the first colour in all panels; none: from the value range")
    high: float | None = setting(None, "value of the last colour in all panels; none: from the value range")
    opacity: float = setting(0.65, "opacity of the map over the tissue, 0 to 1")
    smooth: bool = setting(True, "interpolate between patches; else one square per patch")
    style: Literal["wash", "contours"] = setting(
        "wash", "wash: colours over the tissue; contours: lines of equal value, or borders of dominant types"
    )
    scale_um: float | None = setting(
        None,
        "genes and cell types are averaged over discs of this diameter in um; 0: single patches; "
        "none: the finest trusted scale of each, as far as the model knows it",
    )
    unlike: Literal["hatched", "hidden", "shown"] = setting(
        "hatched", "patches unlike the training tissue of the model: hatched, hidden, or shown like the others"
    )
    width_mm: float | None = setting(None, "width of the figure in mm; none: 180, or 120 for a single panel")
    columns: int | None = setting(None, "panels side by side; none: up to 3")
    dpi: int = setting(300, "pixels per inch of the pictures in the figure")
    text_pt: float = setting(7.0, "size of the text in points")
    title: str = setting("", "title; empty: slide and model")

    def __post_init__(self) -> None:
        check(
            self.value_range in ("auto", "full"), f"The value range must be 'auto' or 'full', not {self.value_range!r}."
        )
        ends = [value for value in (self.low, self.high) if value is not None]
        check(
            all(abs(value) < 1e6 for value in ends), "The limits of the colour range must be finite numbers below 1e6."
        )
        check(len(ends) < 2 or ends[0] < ends[1], "The first value of the colour range must be below the last.")
        check(self.style in ("wash", "contours"), f"A map is drawn as 'wash' or 'contours', not {self.style!r}.")
        check(
            self.unlike in ("hatched", "hidden", "shown"),
            f"Patches unlike the training tissue can be 'hatched', 'hidden' or 'shown', not {self.unlike!r}.",
        )
        check(
            self.scale_um is None or 0 <= self.scale_um <= MAX_SCALE_UM,
            f"A map can be averaged over 0 to {MAX_SCALE_UM:,.0f} um.",
        )
        check(0 <= self.opacity <= 1, "The opacity of a map must be between 0 and 1.")
        check(self.width_mm is None or 40 <= self.width_mm <= 1000, "A figure must be 40 to 1,000 mm wide.")
        check(self.columns is None or 1 <= self.columns <= 12, "A figure has 1 to 12 panels side by side.")
        check(30 <= self.dpi <= 1200, "The resolution of a figure must be 30 to 1,200 dpi.")
        check(4 <= self.text_pt <= 24, "The text of a figure must be 4 to 24 points high.")


@dataclass(frozen=True)
class ExportSettings(Settings):
    """Settings for exporting maps to the formats of other programs.

    Examples
    --------
    >>> nc.to_geojson(cmap, "patches.geojson", settings=nc.ExportSettings(units="patches")).name
    'patches.geojson'
    """

    memory_mb: float = setting(1024.0, "largest table of expression that is held in memory; files may be larger")
    block_mb: float = setting(16.0, "expression is computed and written in blocks of about this size")
    compression: Literal["none", "gzip"] = setting(
        "none", "h5ad: compression of expression; gzip is smaller but slower"
    )
    image_px: int = setting(2000, "longer side of the slide's picture in AnnData, in px")
    reference_px: int = setting(4096, "longer side of the slide's picture in SpatialData, in px")
    units: Literal["regions", "patches"] = setting(
        "regions", "GeoJSON: one polygon per region of one dominant cell type, or one per patch of the map"
    )
    min_region_patches: int = setting(1, "GeoJSON: regions of fewer patches are left out")
    ome_zarr_version: Literal["0.5", "0.4"] = setting("0.5", "OME-Zarr: version of the format")
    level: Literal["minor", "major"] = setting(
        "minor", "cell types of the model, or the major types above them, where the map has a hierarchy"
    )
    figure: FigureSettings = FigureSettings()

    def __post_init__(self) -> None:
        check(self.memory_mb > 0 and self.block_mb > 0, "The sizes of tables and blocks in MB must be positive.")
        check(
            self.compression in ("none", "gzip"), f"The compression must be 'none' or 'gzip', not {self.compression!r}."
        )
        check(self.image_px >= 16 and self.reference_px >= 16, "Pictures of a slide need a side of 16 px or more.")
        check(
            self.units in ("regions", "patches"),
            f"The units of polygons must be 'regions' or 'patches', not {self.units!r}.",
        )
        check(self.min_region_patches >= 1, "The smallest region must be at least one patch.")
        check(self.level in ("minor", "major"), f"The level is 'minor' or 'major', not {self.level!r}.")
        check(
            self.ome_zarr_version in ("0.4", "0.5"),
            f"OME-Zarr can be written in version 0.4 or 0.5, not in {self.ome_zarr_version}.",
        )


@dataclass(frozen=True)
class RegionSettings(Settings):
    """Settings for summarising and comparing regions of a map."""

    block_um: float = setting(500.0, "side in um of the tissue blocks that are resampled for intervals")
    bootstraps: int = setting(1000, "bootstrap resamples for intervals")
    interval: float = setting(0.95, "coverage of the intervals")
    level: Literal["minor", "major"] = setting(
        "minor", "cell types of the model, or the major types above them, where the map has a hierarchy"
    )

    def __post_init__(self) -> None:
        check(
            self.block_um > 0 and self.bootstraps >= 1,
            "The block size must be positive, and the number of bootstrap resamples at least one.",
        )
        check(0 < self.interval < 1, "The coverage of an interval must be in (0, 1).")
        check(self.level in ("minor", "major"), f"The level is 'minor' or 'major', not {self.level!r}.")
