"""Settings for creating a model: prototypes, deconvolution, training and evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings.base import DeviceName, Settings, check, check_precision, setting

_IGNORE_CASE = "treat gene names that differ only in upper and lower case as the same gene, such as Erbb2 and ERBB2"


@dataclass(frozen=True)
class PrototypeSettings(Settings):
    """Settings for estimating prototypes from single cells.

    With a single batch, the regression is the mean profile of each type, shrunk towards the common profile. That helps
    :func:`deconvolve`, but not its method ``"nnls"`` on measured spots, for which ``"mean"`` is the better start.

    By default, a gene must be detected in one of 300 cells, but at least in 3 (as in scanpy's tutorials) and never in
    more than 200, the number of the paper: in 3 of 500 cells, 5 of 1,564, 200 of 60,000 and more. ``min_cells`` sets
    a number for references of any size.

    Examples
    --------
    >>> nc.PrototypeSettings().least_cells(1564)
    5
    >>> cells = nc.read_cells(folder / "cells.h5ad")
    >>> settings = nc.PrototypeSettings(min_cells=100)
    >>> len(nc.estimate_prototypes(cells, settings=settings).cell_types)
    8
    """

    method: Literal["nb", "mean"] = setting(
        "nb", "estimator: nb (negative binomial regression on type and batch) or mean (normalised mean profile)"
    )
    min_genes: int = setting(200, "cells with fewer detected genes are left out")
    max_mito: float = setting(0.3, "cells with a larger share of mitochondrial counts are left out")
    min_cells: int | None = setting(
        None, "genes detected in fewer cells are left out; none: 1 of 300 cells, at least 3 and at most 200"
    )
    min_cells_per_type: int = setting(10, "types with fewer cells are named in a warning")
    prior_counts: float | None = setting(
        None,
        "nb: strength of shrinkage of each type towards the common profile, in counts per gene; none: estimated for "
        "each gene from its variation between types",
    )
    max_iterations: int = setting(200, "nb: at most this many Newton steps")
    device: DeviceName = setting("auto", "nb: auto, cpu or cuda")

    def __post_init__(self) -> None:
        check(
            self.method in ("nb", "mean"),
            f"Unknown method {self.method!r} for prototypes; use 'nb' or 'mean'.",
        )
        check(
            self.prior_counts is None or 0 < self.prior_counts < math.inf,
            "The shrinkage towards the common profile must be a positive number of counts.",
        )
        check(self.max_iterations >= 1, "The regression needs at least one Newton step.")
        check(0 < self.max_mito <= 1, "The maximum mitochondrial share must be in (0, 1].")
        check(
            min(self.min_genes, self.min_cells or 0, self.min_cells_per_type) >= 0,
            "The minimum numbers of genes and cells cannot be negative.",
        )

    def least_cells(self, n_cells: int) -> int:
        """Return the number of cells, of ``n_cells``, that a gene must be detected in."""
        return min(200, max(3, n_cells // 300)) if self.min_cells is None else max(self.min_cells, 1)


@dataclass(frozen=True)
class DeconvolutionSettings(Settings):
    """Settings for deconvolving measured spots into cell types. Use :meth:`bulk` for bulk samples.

    Examples
    --------
    >>> settings = nc.DeconvolutionSettings(method="nnls", max_genes=500)
    >>> nc.deconvolve(spots, protos, settings).shape
    (387, 8)
    """

    method: Literal["nb", "nnls"] = setting(
        "nb", "nb (negative binomial model of cell2location) or nnls (weighted non-negative least squares)"
    )
    max_genes: int | None = setting(3000, "nb: number of genes used, the most informative ones; none: all")
    gene_scale_sd: float = setting(
        0.5, "nb: expected relative standard deviation of a gene's detection, spots against single cells"
    )
    background: float = setting(0.1, "nb: expected share of ambient RNA in the counts; 0: no ambient RNA")
    abundance_shape: float = setting(
        0.3, "nb: shrinkage of a spot's shares towards their mean over the table; 1 is strong"
    )
    max_iterations: int = setting(200, "nb: at most this many rounds of Newton steps")
    tolerance: float = setting(1e-3, "nb: largest change of a share in the last round")
    device: DeviceName = setting("auto", "nb: auto, cpu or cuda")
    ignore_gene_case: bool = setting(False, _IGNORE_CASE)

    def __post_init__(self) -> None:
        check(self.method in ("nb", "nnls"), f"Unknown deconvolution method {self.method!r}; use 'nb' or 'nnls'.")
        check(self.max_genes is None or self.max_genes >= 1, "Deconvolution needs at least one gene.")
        check(self.gene_scale_sd > 0, "The standard deviation of the genes' detection must be positive.")
        check(0 <= self.background < 1, "The share of ambient RNA must be in [0, 1).")
        check(self.abundance_shape > 0, "The shrinkage of a spot's shares must be positive.")
        check(
            self.max_iterations >= 1 and self.tolerance > 0,
            "Deconvolution needs at least one round and a positive tolerance.",
        )

    @classmethod
    def bulk(cls, **changes: Any) -> Self:
        """Return settings for bulk samples: high depth, independent tissues, no ambient background."""
        return cls(**{"background": 0.0, "abundance_shape": 0.05, "max_genes": None, **changes})


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Architecture and training of a model. The defaults are this project's model; :meth:`paper` is the paper's.

    Examples
    --------
    >>> settings = nc.TrainingSettings.paper(backbone="squeezenet", max_epochs=10)
    >>> settings.head, settings.free_mixture
    ('cpnn', 0.0)
    >>> settings.replace(head="linear").head
    'linear'
    """

    backbone: str = setting(
        "stnet",
        "image network: stnet (DenseNet-121), squeezenet (SqueezeNet 1.1), resnet18, ciga, frozen (an encoder), or "
        "triplex (TRIPLEX)",
    )
    weights: str = setting("imagenet", "initial weights of the backbone: imagenet, none, or a file")
    encoder: str = setting(
        "ciga",
        "frozen image encoder: of backbone 'frozen', and of the surroundings in 'triplex'; for several side by side: "
        "nic+colour",
    )
    encoder_weights: str = setting(
        "pretrained",
        "weights of the frozen encoder: pretrained, none, or a file; of several, for all or for each, joined by : (on "
        "Windows ;)",
    )
    target: str = setting("resnet18", "triplex: image network of the patch itself; weights are its initial weights")
    context_pitch_um: float | None = setting(
        None, "triplex: distance between the tokens of a slide in um; none: the pitch of the spots' array"
    )
    max_tokens: int = setting(
        1024, "triplex: maximum number of tokens of a slide; on larger slides they are spaced farther apart"
    )
    head: Literal["cpnn", "linear"] = setting("cpnn", "cpnn, or linear: the plain head of ST-Net")
    loss: Literal["pcc", "mse"] = setting("pcc", "loss on expression")
    correlation: Literal["slide", "batch"] = setting(
        "slide", "PCC loss over the spots of each slide in a batch, or over the batch as a whole"
    )
    prototype_mode: Literal["learned", "fixed", "random"] = setting(
        "learned", "treatment of the prototypes in training"
    )
    scale_shift: bool = setting(True, "learn a scale alpha and a shift beta per gene")
    n_programs: int = setting(16, "residual gene programs; 0 is the paper's model")
    program_net: Literal["mlp", "linear"] = setting(
        "mlp", "programs: a network with two hidden layers of its own (mlp), or linear in the image features"
    )
    program_gain: float = setting(0.5, "weight of the residual programs in predictions; in training it is 1")
    free_mixture: float = setting(
        0.5, "share of the expression that comes from a second, free mixture of profiles, so that the weights can be a "
        "composition; 0 is the paper's model"
    )  # fmt: skip
    composition_weight: float = setting(5.0, "loss weight that ties the weights to the deconvolved shares of the spots")
    composition_loss: Literal["pcc", "squares"] = setting(
        "pcc",
        "what ties them: pcc (squared differences, and the correlation over spots of each type, so that rare types "
        "count as much as common ones) or squares (squared differences alone)",
        before="squares",
    )
    deconvolution: Literal["nb", "nnls"] = setting("nb", "method that estimates these shares, as for deconvolve")
    prototype_weight: float = setting(
        1e3, "loss weight that ties the prototypes to their initial values (lambda of eq. 8)"
    )
    hidden: int = setting(512, "width of the two hidden layers of the composition head, and of that of the programs")
    patch: PatchSpec = setting(PatchSpec(), "size of the image patch that the network sees")
    max_epochs: int = setting(30, "at most this many passes over the spots")
    patience: int = setting(8, "stop after this many epochs without improvement of the held-out PCC")
    batch_size: int = setting(64, "spots per step; the correlation is taken over them, so at least 64")
    learning_rate: float = setting(1e-3, "learning rate of the head")
    backbone_learning_rate: float = setting(2e-4, "learning rate of the backbone; 0 freezes it")
    layer_decay: float = setting(
        1.0, "ratio of the learning rates of a backbone stage and the next one; 1: the same for all"
    )
    weight_decay: float = setting(1e-4, "weight decay (AdamW)")
    weight_average: float = setting(
        0.0, "decay of a moving average of the weights that becomes the model, such as 0.99; 0: off"
    )
    augment: bool = setting(True, "augment patches by flips and 90-degree rotations")
    stain_augment: float = setting(
        0.0, "standard deviation of random changes of haematoxylin and eosin in training, such as 0.1; 0: off"
    )
    stain_unit: Literal["slide", "patch"] = setting(
        "slide", "unit of stain changes: all patches of a slide in a batch, or each patch"
    )
    symmetries: bool = setting(False, "at test time, average predictions over the eight symmetries of the patch")
    validation: str = setting(
        "auto", "name of the slide that is held out; auto: the last of several, a quarter of a single one; none"
    )
    min_spot_fraction: float = setting(0.1, "leave out genes detected in a smaller share of the training spots")
    genes: str = setting(
        "shared",
        "shared: all genes that cells and spots share; variable or abundant: the n_genes of these with the largest "
        "variance or mean; or a text file with one gene per line",
    )
    n_genes: int = setting(1000, "how many genes 'variable' and 'abundant' keep")
    ignore_gene_case: bool = setting(False, _IGNORE_CASE)
    gene_weights: Literal["none", "reliability"] = setting(
        "none", "weight of each gene in the loss; reliability: the share of its variance that is not counting noise"
    )
    calibrate: bool = setting(True, "refit alpha and beta by least squares after training")
    patch_cache: str = setting(
        "auto",
        "folder that caches patches, features of a frozen network and deconvolved shares for later runs; auto: "
        "the user's cache directory; none: no cache",
    )
    tissue: str = setting(
        "", "tissue that the model is for, such as breast; only recorded, and named where a map is not to be trusted"
    )
    seed: int = setting(0, "random seed")
    device: DeviceName = setting("auto", "auto, cpu, cuda or mps")
    devices: str = setting("1", "devices, one process each: a number, a list such as 0,2, or auto for all")
    strategy: str = setting("auto", "Lightning strategy for several devices, such as ddp")
    precision: Literal["auto", "float32", "bfloat16"] = setting("auto", "arithmetic of the backbone")

    def __post_init__(self) -> None:
        check(self.head in ("cpnn", "linear"), f"Unknown head {self.head!r}; use 'cpnn' or 'linear'.")
        check(self.loss in ("pcc", "mse"), f"Unknown loss {self.loss!r}; use 'pcc' or 'mse'.")
        check(
            self.correlation in ("slide", "batch"),
            f"The correlation must be over a 'slide' or a 'batch', not {self.correlation!r}.",
        )
        check(
            self.prototype_mode in ("learned", "fixed", "random"),
            f"Prototypes must be 'learned', 'fixed' or 'random', not {self.prototype_mode!r}.",
        )
        check(
            self.context_pitch_um is None or self.context_pitch_um > 0,
            "The distance between tokens must be a positive number.",
        )
        check(self.max_tokens >= 1, "A slide needs at least one token.")
        check(self.n_programs >= 0, "The number of programs cannot be negative.")
        check(self.program_net in ("mlp", "linear"), f"Programs must be 'mlp' or 'linear', not {self.program_net!r}.")
        check(0 <= self.free_mixture < 1, "The share of the free mixture must be in [0, 1).")
        check(0 <= self.program_gain <= 1, "The gain of the programs must be between 0 and 1.")
        check(self.composition_weight >= 0 and self.prototype_weight >= 0, "Loss weights cannot be negative.")
        check(
            self.composition_loss in ("pcc", "squares"),
            f"Unknown composition loss {self.composition_loss!r}; use 'pcc' or 'squares'.",
        )
        check(
            self.max_epochs >= 1 and self.batch_size >= 2,
            "Training needs at least one epoch and a batch size of at least two.",
        )
        check(self.patience >= 1 and self.hidden >= 1, "The patience and the width of the head must be at least one.")
        check_precision(self.precision)
        check(0 <= self.min_spot_fraction < 1, "The minimum share of spots of a gene must be in [0, 1).")
        check(
            self.learning_rate > 0 and self.backbone_learning_rate >= 0,
            "The learning rate must be a positive number, that of the backbone positive or 0.",
        )
        check(
            self.deconvolution in ("nb", "nnls"),
            f"Unknown deconvolution method {self.deconvolution!r}; use 'nb' or 'nnls'.",
        )
        check(self.n_genes >= 1, "At least one gene must be kept.")
        check(
            self.gene_weights in ("none", "reliability"),
            f"Gene weights must be 'none' or 'reliability', not {self.gene_weights!r}.",
        )
        check(0 <= self.stain_augment <= 1, "Random changes of the stains must be between 0 and 1.")
        check(
            self.stain_unit in ("slide", "patch"),
            f"The stain unit must be 'slide' or 'patch', not {self.stain_unit!r}.",
        )
        check(0 < self.layer_decay <= 1, "The ratio of the learning rates of two stages must be in (0, 1].")
        check(0 <= self.weight_average < 1, "The decay of the average of the weights must be in [0, 1).")

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """Return the paper's patch-level CPNN: no free mixture, programs or composition term (3.1.1 and 3.2)."""
        return cls(**{"free_mixture": 0.0, "n_programs": 0, "composition_weight": 0.0, **changes})

    @classmethod
    def plain(cls, **changes: Any) -> Self:
        """Return ST-Net's plain linear head on the same backbone; ``loss="mse"`` is the loss of ST-Net."""
        return cls(**{"head": "linear", "free_mixture": 0.0, "n_programs": 0, "composition_weight": 0.0, **changes})


TRAINING_PRESETS: dict[str, Callable[..., TrainingSettings]] = {
    "ours": TrainingSettings,
    "paper": TrainingSettings.paper,
    "plain": TrainingSettings.plain,
}
"""What training settings start from."""


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """What is measured of a model beside the correlations.

    Examples
    --------
    >>> settings = nc.EvaluationSettings(ceiling_repeats=1)
    >>> "ceiling" in nc.evaluate(model, slide, spots[:5], settings=settings)
    True
    """

    ceiling_repeats: int = setting(
        5, "number of random halvings of the counts for the noise ceiling of each gene; 0: no ceiling"
    )
    spatial: bool = setting(False, "Moran's I of measured and predicted expression (needs squidpy)")
    bootstraps: int = setting(1000, "resamples for the intervals of paired differences between heads; 0: no intervals")
    interval: float = setting(0.95, "coverage of the intervals")
    precision: Literal["auto", "float32", "bfloat16"] = setting("auto", "arithmetic of the image network, as for maps")
    ignore_gene_case: bool = setting(False, _IGNORE_CASE)

    def __post_init__(self) -> None:
        check_precision(self.precision)
        check(self.ceiling_repeats >= 0 and self.bootstraps >= 0, "Numbers of repeats cannot be negative.")
        check(0 < self.interval < 1, "The coverage of an interval must be in (0, 1).")
