"""Settings for models of whole slides, trained on one bulk RNA-seq profile per bag of patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from napari_cpnn.errors import SettingsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings.base import DeviceName, Settings, check, setting

#: Heads that are trained on bags: what they are.
SLIDE_HEADS = {
    "cpnn": "composition of cell types and prototypes, negative binomial loss (this project's form of CPNN)",
    "paper": "CPNN with loss, parameters and optimiser of the paper's published code, for comparison",
    "ridge": "ridge regression on the mean features of a bag, in closed form",
    "mlp": "network of two layers on the mean features of a bag",
    "abmil": "gated attention over the patches of a bag (Ilse et al. 2018), then a linear layer",
}

_ABLATIONS: dict[str, dict[str, Any]] = {
    "w/o PI, MC, R": {
        "prototype_mode": "random", "scale_shift": False, "prototype_weight": 0.0, "composition_weight": 0.0,
    },
    "w/o MC, U, R": {
        "prototype_mode": "fixed", "scale_shift": False, "prototype_weight": 0.0, "composition_weight": 0.0,
    },
    "w/o U, R": {"prototype_mode": "fixed", "prototype_weight": 0.0, "composition_weight": 0.0},
    "w/o R": {"prototype_weight": 0.0, "composition_weight": 0.0},
    "w/o alpha and beta": {"scale_shift": False},
    "all": {},
}  # fmt: skip


@dataclass(frozen=True)
class BulkSettings(Settings):
    """Settings for choosing bulk samples and their genes: those of the paper's supplement 8.

    Examples
    --------
    >>> nc.BulkSettings().least_samples(1000), nc.BulkSettings().least_samples(60)
    (50, 6)
    """

    max_mito: float = setting(0.3, "samples with a larger share of mitochondrial counts are left out")
    min_genes: int = setting(5000, "samples with no more detected genes are left out")
    min_samples: int | None = setting(
        None, "genes detected in fewer samples are left out; none: 50, but at most a tenth of the samples"
    )
    drop_families: bool = setting(True, "leave out mitochondrial, ribosomal and haemoglobin genes")

    def __post_init__(self) -> None:
        check(0 < self.max_mito <= 1, "The maximum mitochondrial share must be in (0, 1].")
        check(min(self.min_genes, self.min_samples or 0) >= 0, "The minimum numbers cannot be negative.")

    def least_samples(self, n_samples: int) -> int:
        """Return the number of samples, of ``n_samples``, that a gene must be detected in."""
        return min(50, max(1, n_samples // 10)) if self.min_samples is None else max(self.min_samples, 1)


@dataclass(frozen=True)
class SlideLevelSettings(Settings):
    """Settings for training on slides. Ablations of the paper are :meth:`ablation`.

    Examples
    --------
    >>> nc.SlideLevelSettings(head="ridge").head
    'ridge'
    >>> nc.SlideLevelSettings.ablation("w/o R").prototype_weight
    0.0
    """

    head: Literal["cpnn", "paper", "ridge", "mlp", "abmil"] = setting("cpnn", "what is trained: cpnn, paper (its "
        "published code), ridge, mlp (on mean features) or abmil (gated attention)")  # fmt: skip
    encoder: str = setting("ciga", "frozen image encoder; for several side by side: nic+colour")
    encoder_weights: str = setting("pretrained", "weights of the encoder: pretrained, none, or a file")
    patch: PatchSpec = setting(PatchSpec(), "size of the image patch that the encoder sees")
    hidden: int = setting(256, "width of the hidden layers")
    free_mixture: float = setting(0.0, "cpnn: share of a second, free mixture of profiles; 0 is the paper's model")
    prototype_mode: Literal["learned", "fixed", "random"] = setting("learned", "cpnn: treatment of the prototypes")
    scale_shift: bool = setting(True, "cpnn: learn a scale alpha and a shift beta per gene")
    prototype_weight: float = setting(
        1.0, "cpnn: loss weight of ||T - T0||^2 (eq. 8), beside the negative log-likelihood per gene"
    )
    composition_weight: float = setting(
        0.1, "cpnn: loss weight of ||W - mean w||^2 (eq. 8), the shares of RNA of the deconvolved bulk"
    )
    genes: Literal["shared", "variable"] = setting(
        "shared", "shared: all genes of bulk and prototypes; variable: the n_genes of these with the largest variance"
    )
    n_genes: int = setting(1000, "how many genes 'variable' keeps")
    min_bag_fraction: float = setting(0.1, "leave out genes detected in a smaller share of the training bags")
    epochs: int = setting(100, "at most this many passes over the bags")
    patience: int = setting(20, "stop after this many epochs without a better likelihood of the validation patients")
    validation: float = setting(0.2, "share of the patients whose likelihood ends the training; 0, or fewer than five "
        "patients: all epochs are run")  # fmt: skip
    batch_bags: int = setting(16, "bags per step")
    draw: int = setting(1024, "patches drawn of each bag for a step; predictions use all patches")
    learning_rate: float = setting(1e-3, "learning rate (AdamW)")
    gene_learning_rate: float = setting(5e-2, "cpnn: learning rate of prototypes, alpha, beta and dispersion")
    weight_decay: float = setting(1e-2, "weight decay of the network")
    penalties: int = setting(13, "ridge: number of penalties compared by leaving one patient (bag) out")
    seed: int = setting(0, "random seed")
    device: DeviceName = setting("auto", "auto, cpu or cuda")

    def __post_init__(self) -> None:
        check(self.head in tuple(SLIDE_HEADS), f"Unknown head {self.head!r}; use one of {', '.join(SLIDE_HEADS)}.")
        check(
            self.prototype_mode in ("learned", "fixed", "random"),
            f"Prototypes must be 'learned', 'fixed' or 'random', not {self.prototype_mode!r}.",
        )
        check(self.genes in ("shared", "variable"), f"Genes must be 'shared' or 'variable', not {self.genes!r}.")
        check(0 <= self.free_mixture < 1, "The share of the free mixture must be in [0, 1).")
        check(self.prototype_weight >= 0 and self.composition_weight >= 0, "Loss weights cannot be negative.")
        check(0 <= self.min_bag_fraction < 1, "The minimum share of bags of a gene must be in [0, 1).")
        check(0 <= self.validation < 1, "The share of the validation patients must be in [0, 1).")
        check(
            min(self.hidden, self.n_genes, self.epochs, self.patience, self.batch_bags, self.draw, self.penalties) >= 1,
            "Widths, and numbers of genes, epochs, bags, patches and penalties must be at least one.",
        )
        check(
            min(self.learning_rate, self.gene_learning_rate) > 0 and self.weight_decay >= 0,
            "The learning rates must be positive numbers.",
        )

    @classmethod
    def ablation(cls, name: str, **changes: Any) -> Self:
        """Return the settings of a row of the paper's Tables 4 and 6, such as ``"w/o U, R"``.

        PI is the start at the prototypes, MC alpha and beta, U learned prototypes, R both penalties of eq. 8. Table 5,
        and the other rows of Table 6, are other prototypes: of another column of cell types, of clusters, or of
        ``PrototypeSettings(method="mean")``.
        """
        if name not in _ABLATIONS:
            raise SettingsError(f"There is no ablation {name!r}; there are {'; '.join(_ABLATIONS)}.")
        return cls(**{**_ABLATIONS[name], **changes})

    @classmethod
    def ablations(cls) -> tuple[str, ...]:
        """Names that :meth:`ablation` takes."""
        return tuple(_ABLATIONS)
