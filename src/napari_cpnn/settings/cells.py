"""Settings of models of single cells, trained on spots."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings.base import DeviceName, Settings, check, setting

#: Weights of the composition's and of the prototypes' term, by the loss on expression that they stand beside.
_WEIGHTS = {"pcc": (5.0, 1e3), "nb": (0.1, 1.0), "mse": (0.0, 0.0)}


@dataclass(frozen=True)
class CellSettings(Settings):
    """How a model of single cells is learnt from spots by :func:`~napari_cpnn.train_cells`.

    Examples
    --------
    >>> nc.CellSettings().patch.size_um
    12.0
    >>> nc.CellSettings(loss="nb").weights
    (0.1, 1.0)
    """

    head: Literal["cpnn", "mlp"] = setting(
        "cpnn", "cpnn (cell types and prototypes) or mlp (sCellST's network, a baseline without types and maps)"
    )
    encoder: str = setting("he-small", "frozen image encoder of a nucleus crop; for several side by side: nic+colour")
    encoder_weights: str = setting("pretrained", "weights of the encoder: pretrained, none, or a file")
    patch: PatchSpec = setting(PatchSpec(48, 0.25), "size of the crop around a nucleus")
    radius_um: float | None = setting(
        None, "nuclei within this distance of a spot's centre are its cells; none: the radius of the spots"
    )
    loss: Literal["pcc", "nb", "mse"] = setting(
        "pcc",
        "loss on the expression of spots: pcc (correlation within a slide), nb (negative binomial likelihood), or, of "
        "mlp only, mse (sCellST's: means of logarithms)",
    )
    rna_content: Literal["equal", "area"] = setting(
        "equal",
        "cpnn: RNA that each cell gives to its spot: equal, or area (nuclear area to the power of an exponent that is "
        "learnt; nuclei need outlines)",
    )
    hidden: int = setting(256, "width of the hidden layers")
    free_mixture: float = setting(0.5, "cpnn: share of a second, free mixture of profiles, so that types stay types")
    composition_weight: float | None = setting(
        None, "cpnn: loss weight that ties the cells of a spot to its deconvolved shares; none: that of the loss"
    )
    prototype_weight: float | None = setting(
        None, "cpnn: loss weight that ties the prototypes to their initial values; none: that of the loss"
    )
    prototype_mode: Literal["learned", "fixed"] = setting("learned", "cpnn: treatment of the prototypes")
    deconvolution: Literal["nb", "nnls"] = setting("nb", "method that estimates these shares, as for deconvolve")
    genes: str = setting(
        "shared",
        "shared: all genes that cells and spots share; variable or abundant: the n_genes of these with the largest "
        "variance or mean; or a text file with one gene per line",
    )
    n_genes: int = setting(1000, "how many genes 'variable' and 'abundant' keep")
    min_spot_fraction: float = setting(0.1, "leave out genes detected in a smaller share of the training spots")
    ignore_gene_case: bool = setting(
        False, "treat gene names that differ only in upper and lower case as the same gene, such as Erbb2 and ERBB2"
    )
    validation: str = setting(
        "auto", "name of the slide that is held out; auto: the last of several, a quarter of a single one; none"
    )
    epochs: int = setting(60, "at most this many passes over the spots")
    patience: int = setting(15, "stop after this many epochs without a smaller loss of the held-out spots")
    batch_spots: int = setting(64, "spots per step")
    learning_rate: float = setting(1e-3, "learning rate of the network (AdamW)")
    gene_learning_rate: float = setting(1e-2, "cpnn: learning rate of prototypes, scales and dispersion")
    weight_decay: float = setting(1e-2, "weight decay of the network")
    tissue: str = setting("", "tissue that the model is for, such as breast; only recorded")
    seed: int = setting(0, "random seed")
    device: DeviceName = setting("auto", "auto, cpu or cuda")

    def __post_init__(self) -> None:
        check(self.head in ("cpnn", "mlp"), f"Unknown head {self.head!r}; use 'cpnn' or 'mlp'.")
        check(self.loss in tuple(_WEIGHTS), f"Unknown loss {self.loss!r}; use one of {', '.join(_WEIGHTS)}.")
        check(self.loss != "mse" or self.head == "mlp", "The loss 'mse' is that of the head 'mlp'; use 'pcc' or 'nb'.")
        check(self.loss != "nb" or self.head == "cpnn", "The loss 'nb' is that of the head 'cpnn'; use 'pcc' or 'mse'.")
        check(
            self.rna_content in ("equal", "area"), f"Unknown RNA content {self.rna_content!r}; use 'equal' or 'area'."
        )
        check(
            self.rna_content == "equal" or self.head == "cpnn",
            "The RNA content 'area' is that of the head 'cpnn'; use 'equal'.",
        )
        check(
            self.radius_um is None or 0 < self.radius_um < math.inf, "The radius of a spot must be a positive number."
        )
        check(self.prototype_mode in ("learned", "fixed"), "Prototypes must be 'learned' or 'fixed'.")
        check(
            self.deconvolution in ("nb", "nnls"),
            f"Unknown deconvolution method {self.deconvolution!r}; use 'nb' or 'nnls'.",
        )
        check(0 <= self.free_mixture < 1, "The share of the free mixture must be in [0, 1).")
        check(min(self.weights) >= 0, "Loss weights cannot be negative.")
        check(0 <= self.min_spot_fraction < 1, "The minimum share of spots of a gene must be in [0, 1).")
        check(
            min(self.hidden, self.n_genes, self.epochs, self.patience) >= 1 and self.batch_spots >= 2,
            "Widths, and numbers of genes and epochs must be at least one, and a batch needs two spots.",
        )
        check(
            min(self.learning_rate, self.gene_learning_rate) > 0 and self.weight_decay >= 0,
            "The learning rates must be positive numbers.",
        )

    @property
    def weights(self) -> tuple[float, float]:
        """Loss weights of composition and prototypes."""
        of_loss = _WEIGHTS[self.loss]
        given = self.composition_weight, self.prototype_weight
        return of_loss[0] if given[0] is None else given[0], of_loss[1] if given[1] is None else given[1]
