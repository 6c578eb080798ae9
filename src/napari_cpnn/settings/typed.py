"""Settings of models of typed expression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings.base import Settings, check, setting


@dataclass(frozen=True)
class TypedSettings(Settings):
    """How expression of each cell type is learnt from bags of patches.

    Examples
    --------
    >>> from napari_cpnn.settings import TypedSettings
    >>> TypedSettings(head="bag-linear").rank
    16
    """

    head: Literal["bag-linear", "typed"] = setting(
        "typed",
        "typed (a type's own patches modulate its prototype; fitted to bulk alone) or bag-linear (linear in the mean "
        "features of a slide, fitted to typed labels; SLIDE-EX)",
    )
    encoder: str = setting("he-small", "frozen image encoder; for several side by side: he-small+colour")
    encoder_weights: str = setting("pretrained", "weights of the encoder: pretrained, none, or a file")
    patch: PatchSpec = setting(PatchSpec(224, 1.0), "size of the image patch that the encoder sees")
    rank: int | None = setting(16, "largest rank of the map from features to the genes of a type; none: no limit")
    n_components: int | None = setting(64, "principal components of the features that are used; none: all")
    n_inner: int = setting(
        5, "inner folds by patient: they choose the penalty, and each gives a member of the ensemble"
    )
    composition_penalty: float = setting(1e-2, "ridge penalty of the composition, for standardised features")
    max_patches: int = setting(500, "patches of a slide that the composition is fitted to; predictions use all")
    seed: int = setting(42, "seed of the folds and of the drawn patches")

    def __post_init__(self) -> None:
        check(self.head in ("bag-linear", "typed"), f"Unknown head {self.head!r}; use 'typed' or 'bag-linear'.")
        check(self.rank is None or self.rank >= 1, "The rank must be at least 1, or none.")
        check(self.n_components is None or self.n_components >= 1, "At least one component is needed, or none.")
        check(self.n_inner >= 2, "There must be at least two inner folds.")
        check(self.max_patches >= 1, "At least one patch of a slide is needed.")
        check(0 < self.composition_penalty < math.inf, "The penalty of the composition must be a positive number.")
