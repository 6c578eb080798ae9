"""Frozen settings, one dataclass per task.

They are the one source of truth for GUI defaults, command-line options (``help`` is in the field's metadata) and
what is written into a checkpoint or a run folder. ``to_dict`` and ``from_dict`` go through plain JSON types.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from napari_cpnn.errors import SettingsError
from napari_cpnn.geometry import PatchSpec

DeviceName = str
"""``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``."""


def _field(default: Any, help_: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_})


class _Settings:
    """JSON in and out for frozen dataclasses."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only."""
        return {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote; an unknown name or a wrong type is a :class:`SettingsError`."""
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(data) - known)
        if unknown:
            raise SettingsError(f"{cls.__name__} has no setting {', '.join(unknown)}.")
        values = dict(data)
        if isinstance(values.get("patch"), dict):
            values["patch"] = PatchSpec(**values["patch"])
        if isinstance(values.get("tissue"), dict):
            values["tissue"] = TissueSettings.from_dict(values["tissue"])
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = tuple(value)
        try:
            return cls(**values)
        except TypeError as exc:  # such as a text where a number belongs
            raise SettingsError(f"A setting of {cls.__name__} has a value of the wrong type ({exc}).") from exc

    def replace(self, **changes: Any) -> Self:
        """A copy with some values changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def _plain(value: Any) -> Any:
    if isinstance(value, PatchSpec):
        return dataclasses.asdict(value)
    if isinstance(value, _Settings):
        return value.to_dict()
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _check(ok: bool, message: str) -> None:
    if not ok:
        raise SettingsError(message)


def _check_precision(precision: str) -> None:
    known = ("auto", "float32", "bfloat16")
    _check(precision in known, f"There is no precision {precision!r}; use one of {', '.join(known)}.")


@dataclass(frozen=True)
class TissueSettings(_Settings):
    """How tissue is told from background, at low resolution."""

    mpp: float = _field(16.0, "pixel size in um at which tissue is looked for")
    min_saturation: float = _field(0.05, "least colour saturation of tissue, 0 to 1")
    min_area_um2: float = _field(20_000.0, "smaller pieces are dust")
    max_hole_um2: float = _field(20_000.0, "smaller holes are filled")
    min_coverage: float = _field(0.3, "least share of a patch that must be tissue for it to be mapped")

    def __post_init__(self) -> None:
        _check(self.mpp > 0, "The tissue mask needs a positive pixel size.")
        _check(0 < self.min_coverage <= 1, "The least tissue share of a patch must be in (0, 1].")


@dataclass(frozen=True)
class PrototypeSettings(_Settings):
    """How prototypes are estimated from single cells."""

    method: Literal["nb", "mean"] = _field(
        "mean", "estimator: nb (negative binomial regression on type and batch) or mean (normalised mean profile)"
    )
    min_genes: int = _field(200, "cells with fewer detected genes are left out")
    max_mito: float = _field(0.3, "cells with a larger share of mitochondrial counts are left out")
    min_cells: int = _field(200, "genes detected in fewer cells are left out")
    min_cells_per_type: int = _field(10, "types with fewer cells are named in a warning")
    prior_counts: float = _field(1.0, "nb: pull of each type towards the common profile, in counts per gene")
    max_iterations: int = _field(200, "nb: at most this many Newton steps")
    device: DeviceName = _field("auto", "nb: auto, cpu or cuda")

    def __post_init__(self) -> None:
        _check(
            self.method in ("nb", "mean"),
            f"There is no way {self.method!r} to estimate prototypes; use 'nb' or 'mean'.",
        )
        _check(self.prior_counts > 0, "The pull towards the common profile must be a positive number of counts.")
        _check(self.max_iterations >= 1, "The regression needs at least one Newton step.")
        _check(0 < self.max_mito <= 1, "The largest mitochondrial share must be in (0, 1].")
        _check(
            min(self.min_genes, self.min_cells, self.min_cells_per_type) >= 0,
            "The least numbers of genes and cells cannot be negative.",
        )


@dataclass(frozen=True)
class DeconvolutionSettings(_Settings):
    """How measured spots are taken apart into cell types. :meth:`bulk` suits samples of dissolved tissue."""

    method: Literal["nb", "nnls"] = _field(
        "nb", "nb (negative binomial model of cell2location) or nnls (weighted non-negative least squares)"
    )
    max_genes: int | None = _field(3000, "nb: the most informative genes that are used; none: all")
    gene_scale_sd: float = _field(0.5, "nb: expected spread of a gene's detection against the single cells, relative")
    background: float = _field(0.1, "nb: expected share of ambient RNA in the counts; 0: there is none")
    abundance_shape: float = _field(0.3, "nb: pull of a spot's shares to their mean over the table; 1 is strong")
    max_iterations: int = _field(200, "nb: at most this many rounds of Newton steps")
    tolerance: float = _field(1e-3, "nb: largest change of a share in the last round")
    device: DeviceName = _field("auto", "nb: auto, cpu or cuda")

    def __post_init__(self) -> None:
        _check(
            self.method in ("nb", "nnls"), f"There is no way {self.method!r} to deconvolve spots; use 'nb' or 'nnls'."
        )
        _check(self.max_genes is None or self.max_genes >= 1, "Deconvolution needs at least one gene.")
        _check(self.gene_scale_sd > 0, "The spread of the genes' detection must be positive.")
        _check(0 <= self.background < 1, "The share of ambient RNA must be in [0, 1).")
        _check(self.abundance_shape > 0, "The pull of a spot's shares to their mean must be positive.")
        _check(self.max_iterations >= 1 and self.tolerance > 0, "Deconvolution needs a round and a positive tolerance.")

    @classmethod
    def bulk(cls, **changes: Any) -> Self:
        """For bulk samples: deep, each a tissue of its own, and dissolved, so that nothing is ambient."""
        return cls(**{"background": 0.0, "abundance_shape": 0.05, "max_genes": None, **changes})


@dataclass(frozen=True)
class TrainingSettings(_Settings):
    """How a model is built and trained. The defaults are our model; :meth:`paper` is the paper's."""

    backbone: str = _field(
        "stnet",
        "image network: stnet (DenseNet-121), squeezenet (SqueezeNet 1.1), resnet18, ciga, frozen (an encoder), or "
        "triplex (TRIPLEX)",
    )
    weights: str = _field("imagenet", "start weights of the backbone: imagenet, none, or a file")
    encoder: str = _field("ciga", "frozen image encoder: of backbone 'frozen', and of the surroundings in 'triplex'")
    encoder_weights: str = _field("pretrained", "weights of the frozen encoder: pretrained, none, or a file")
    target: str = _field("resnet18", "triplex: image network of the patch itself; weights are its start weights")
    context_pitch_um: float | None = _field(
        None, "triplex: distance of the tokens of a slide in um; none: the pitch of the spots' array"
    )
    max_tokens: int = _field(
        1024, "triplex: a slide has at most this many tokens; larger slides have them farther apart"
    )
    head: Literal["cpnn", "linear"] = _field("cpnn", "cpnn, or linear: the plain head of ST-Net")
    loss: Literal["pcc", "mse"] = _field("pcc", "loss on expression")
    correlation: Literal["slide", "batch"] = _field(
        "slide", "PCC loss over the spots of each slide in a batch, or over the batch as a whole"
    )
    prototype_mode: Literal["learned", "fixed", "random"] = _field("learned", "what becomes of the prototypes")
    scale_shift: bool = _field(True, "learn a scale alpha and a shift beta per gene")
    n_programs: int = _field(16, "residual gene programs; 0 is the paper's model")
    program_net: Literal["mlp", "linear"] = _field(
        "mlp", "programs: a network with two hidden layers of its own (mlp), or linear in the image features"
    )
    program_gain: float = _field(0.5, "how much the residual programs count in predictions; in training they count 1")
    free_mixture: float = _field(
        0.5, "share of the expression that comes from a second, free mixture of profiles, so that the weights can be a "
        "composition; 0 is the paper's model"
    )  # fmt: skip
    composition_weight: float = _field(5.0, "pull of the weights to the deconvolved shares of the spots")
    deconvolution: Literal["nb", "nnls"] = _field("nnls", "where these shares come from, as for deconvolve")
    prototype_weight: float = _field(1e3, "pull of the prototypes to where they started (lambda of eq. 8)")
    hidden: int = _field(512, "width of the two hidden layers of the composition head, and of that of the programs")
    patch: PatchSpec = _field(PatchSpec(), "what the network sees")
    max_epochs: int = _field(30, "at most this many passes over the spots")
    patience: int = _field(8, "stop after this many epochs without a better held-out PCC")
    batch_size: int = _field(64, "spots per step; the correlation is taken over them, so at least 64")
    learning_rate: float = _field(1e-3, "learning rate of the head")
    backbone_learning_rate: float = _field(2e-4, "learning rate of the backbone; 0 freezes it")
    layer_decay: float = _field(
        1.0, "learning rate of a stage of the backbone over that of the stage after it; 1: the same for all"
    )
    weight_decay: float = _field(1e-4, "weight decay (AdamW)")
    weight_average: float = _field(
        0.0, "decay of the moving average of the weights, which then is the model, such as 0.99; 0: off"
    )
    augment: bool = _field(True, "flips and quarter turns")
    stain_augment: float = _field(
        0.0, "standard deviation of random changes of haematoxylin and eosin in training, such as 0.1; 0: off"
    )
    stain_unit: Literal["slide", "patch"] = _field(
        "slide", "what is stained alike: all patches of a slide in a batch, or each patch for itself"
    )
    symmetries: bool = _field(False, "test time: mean over the eight symmetries of the patch")
    validation: str = _field(
        "auto", "name of the slide that is held out; auto: the last of several, a quarter of a single one; none"
    )
    min_spot_fraction: float = _field(0.1, "genes detected in a smaller share of the training spots are left out")
    genes: str = _field(
        "shared",
        "shared: all genes that cells and spots share; variable or abundant: the n_genes of these with the largest "
        "variance or mean; or a text file with one gene per line",
    )
    n_genes: int = _field(1000, "how many genes 'variable' and 'abundant' keep")
    gene_weights: Literal["none", "reliability"] = _field(
        "none", "weight of each gene in the loss; reliability: the share of its variance that is not counting noise"
    )
    calibrate: bool = _field(True, "refit alpha and beta by least squares after training")
    patch_cache: str = _field(
        "auto",
        "folder that keeps cut patches, features of a frozen network and deconvolved shares for the next run; auto: "
        "the user's cache directory; none: keep none",
    )
    seed: int = _field(0, "seed of every random choice")
    device: DeviceName = _field("auto", "auto, cpu, cuda or mps")
    devices: str = _field("1", "how many devices, a process each: a number, a list such as 0,2, or auto for all")
    strategy: str = _field("auto", "how several devices work together: a strategy of Lightning, such as ddp")
    precision: Literal["auto", "float32", "bfloat16"] = _field("auto", "arithmetic of the backbone")

    def __post_init__(self) -> None:
        _check(self.head in ("cpnn", "linear"), f"There is no head {self.head!r}; use 'cpnn' or 'linear'.")
        _check(self.loss in ("pcc", "mse"), f"There is no loss {self.loss!r}; use 'pcc' or 'mse'.")
        _check(
            self.correlation in ("slide", "batch"),
            f"The correlation is taken over a 'slide' or a 'batch', not {self.correlation!r}.",
        )
        _check(
            self.prototype_mode in ("learned", "fixed", "random"),
            f"Prototypes can be 'learned', 'fixed' or 'random', not {self.prototype_mode!r}.",
        )
        _check(
            self.context_pitch_um is None or self.context_pitch_um > 0,
            "The distance of tokens must be a positive number.",
        )
        _check(self.max_tokens >= 1, "A slide needs at least one token.")
        _check(self.n_programs >= 0, "The number of programs cannot be negative.")
        _check(self.program_net in ("mlp", "linear"), f"Programs can be 'mlp' or 'linear', not {self.program_net!r}.")
        _check(0 <= self.free_mixture < 1, "The share of the free mixture must be in [0, 1).")
        _check(0 <= self.program_gain <= 1, "The gain of the programs must be between 0 and 1.")
        _check(self.composition_weight >= 0 and self.prototype_weight >= 0, "Loss weights cannot be negative.")
        _check(self.max_epochs >= 1 and self.batch_size >= 2, "Training needs an epoch and batches of two or more.")
        _check(self.patience >= 1 and self.hidden >= 1, "The patience and the width of the head must be at least one.")
        _check_precision(self.precision)
        _check(0 <= self.min_spot_fraction < 1, "The least share of spots of a gene must be in [0, 1).")
        _check(
            self.learning_rate > 0 and self.backbone_learning_rate >= 0,
            "The learning rate must be a positive number, that of the backbone positive or 0.",
        )
        _check(
            self.deconvolution in ("nb", "nnls"),
            f"There is no way {self.deconvolution!r} to deconvolve spots; use 'nb' or 'nnls'.",
        )
        _check(self.n_genes >= 1, "At least one gene must be kept.")
        _check(
            self.gene_weights in ("none", "reliability"),
            f"Genes can be weighted by 'none' or by 'reliability', not by {self.gene_weights!r}.",
        )
        _check(0 <= self.stain_augment <= 1, "Random changes of the stains must be between 0 and 1.")
        _check(
            self.stain_unit in ("slide", "patch"), f"A 'slide' or a 'patch' is stained alike, not {self.stain_unit!r}."
        )
        _check(0 < self.layer_decay <= 1, "The ratio of the learning rates of two stages must be in (0, 1].")
        _check(0 <= self.weight_average < 1, "The decay of the average of the weights must be in [0, 1).")

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """The paper's patch-level CPNN: no free mixture, programs or composition term (sections 3.1.1 and 3.2)."""
        return cls(**{"free_mixture": 0.0, "n_programs": 0, "composition_weight": 0.0, **changes})

    @classmethod
    def plain(cls, **changes: Any) -> Self:
        """The plain linear head of ST-Net on the same backbone; ``loss="mse"`` is ST-Net's own."""
        return cls(**{"head": "linear", "free_mixture": 0.0, "n_programs": 0, "composition_weight": 0.0, **changes})


TRAINING_PRESETS: dict[str, Callable[..., TrainingSettings]] = {
    "ours": TrainingSettings,
    "paper": TrainingSettings.paper,
    "plain": TrainingSettings.plain,
}
"""What training settings start from."""


@dataclass(frozen=True)
class EvaluationSettings(_Settings):
    """What is measured of a model beside the correlations."""

    ceiling_repeats: int = _field(5, "random halves of the counts for the noise ceiling of each gene; 0: no ceiling")
    spatial: bool = _field(False, "Moran's I of measured and predicted expression (needs squidpy)")
    bootstraps: int = _field(1000, "resamples for the intervals of paired differences between heads; 0: no intervals")
    interval: float = _field(0.95, "coverage of the intervals")
    precision: Literal["auto", "float32", "bfloat16"] = _field("auto", "arithmetic of the image network, as for maps")

    def __post_init__(self) -> None:
        _check_precision(self.precision)
        _check(self.ceiling_repeats >= 0 and self.bootstraps >= 0, "Numbers of repeats cannot be negative.")
        _check(0 < self.interval < 1, "The coverage of an interval must be in (0, 1).")


@dataclass(frozen=True)
class MappingSettings(_Settings):
    """How a slide is mapped, live or as a whole."""

    device: DeviceName = _field("auto", "auto, cpu, cuda or mps")
    precision: Literal["auto", "float32", "bfloat16"] = _field("auto", "arithmetic of the backbone")
    stride_um: float | None = _field(None, "distance of neighbouring patches in um; none: the patch size")
    max_batch: int = _field(256, "largest batch")
    batch_seconds: float = _field(0.2, "a batch is kept near this duration, so that a new view is served at once")
    readers: int = _field(2, "threads that cut patches")
    coarsest: int = _field(16, "first lattice: every 16th patch (coarser where these are many), or fewer")
    min_screen_px: float = _field(4.0, "no finer than this many screen pixels per patch")
    margin: float = _field(0.25, "margin around the view that is mapped next, in view sizes")
    cache: bool = _field(True, "keep maps on disk, so that a slide re-opens with its map")
    cache_dir: str | None = _field(None, "where maps are kept; none: the user's cache directory")
    tissue: TissueSettings = TissueSettings()

    def __post_init__(self) -> None:
        _check(self.max_batch >= 1 and self.readers >= 1, "Mapping needs a batch and a reader of at least one.")
        _check(
            self.coarsest in (1, 2, 4, 8, 16),
            f"The first lattice must be a power of two up to 16, not {self.coarsest}.",
        )
        _check(self.stride_um is None or self.stride_um > 0, "The stride must be positive.")
        _check(self.batch_seconds > 0 and self.min_screen_px > 0, "Batch duration and patch size must be positive.")
        _check(self.margin >= 0, "The margin around the view cannot be negative.")
        _check_precision(self.precision)


@dataclass(frozen=True)
class ExportSettings(_Settings):
    """How maps are written for other programs."""

    memory_mb: float = _field(1024.0, "largest table of expression that is held in memory; files may be larger")
    block_mb: float = _field(16.0, "expression is computed and written in blocks of about this size")
    compression: Literal["none", "gzip"] = _field("none", "h5ad: how expression is packed; gzip is small and slow")
    image_px: int = _field(2000, "longer side of the slide's picture in AnnData, in px")
    reference_px: int = _field(4096, "longer side of the slide's picture in SpatialData, in px")
    units: Literal["regions", "patches"] = _field(
        "regions", "GeoJSON: one polygon per region of one dominant cell type, or one per patch of the map"
    )
    min_region_patches: int = _field(1, "GeoJSON: regions of fewer patches are left out")
    ome_zarr_version: Literal["0.5", "0.4"] = _field("0.5", "OME-Zarr: version of the format")

    def __post_init__(self) -> None:
        _check(self.memory_mb > 0 and self.block_mb > 0, "The sizes of tables and blocks in MB must be positive.")
        _check(
            self.compression in ("none", "gzip"), f"Tables are packed by 'none' or 'gzip', not {self.compression!r}."
        )
        _check(self.image_px >= 16 and self.reference_px >= 16, "Pictures of a slide need a side of 16 px or more.")
        _check(self.units in ("regions", "patches"), f"Polygons are of 'regions' or 'patches', not of {self.units!r}.")
        _check(self.min_region_patches >= 1, "The smallest region must be at least one patch.")
        _check(
            self.ome_zarr_version in ("0.4", "0.5"),
            f"OME-Zarr can be written in version 0.4 or 0.5, not in {self.ome_zarr_version}.",
        )


@dataclass(frozen=True)
class RegionSettings(_Settings):
    """How regions of a map are summarised and compared."""

    block_um: float = _field(500.0, "side of the blocks of tissue that are drawn for intervals, in um")
    bootstraps: int = _field(1000, "draws for intervals")
    interval: float = _field(0.95, "coverage of the intervals")

    def __post_init__(self) -> None:
        _check(self.block_um > 0 and self.bootstraps >= 1, "Intervals need blocks of a positive side, and a draw.")
        _check(0 < self.interval < 1, "The coverage of an interval must be in (0, 1).")
