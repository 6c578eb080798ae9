"""A small model of typed expression on the features of the encoder ``colour``."""

from __future__ import annotations

import numpy as np

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings import TypedSettings
from napari_cpnn.training.bags import Bags
from napari_cpnn.training.bags.typed import TypedEnsemble, TypedLabels, train_typed

TYPES, GENES = ("tumour", "CAFs", "T-cells"), ("FAP", "CD3E", "KRT8", "ACTB")
HEADS = ("bag-linear", "typed")


def trained_on_colours(
    head: str, mpp: float = 2.0, scale: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[TypedEnsemble, Bags]:
    """An ensemble on 21 features, as many as the encoder ``colour`` has; the first three are the composition.

    ``scale``: mean and deviation of the features ``(21,)``.
    """
    mean, sd = (np.full(21, 100.0), np.ones(21)) if scale is None else scale
    rng = np.random.default_rng(4)
    profiles = rng.dirichlet(np.full(4, 2.0), 3) * 0.01
    features, shares, states = [], rng.dirichlet([2, 2, 1], 30), rng.standard_normal((30, 3))
    for share, state in zip(shares, states, strict=True):
        kinds = rng.choice(3, 12, p=share)
        X = rng.normal(0, 0.3, (12, 21))
        X[np.arange(12), kinds] += 3
        X[np.arange(12), 3 + kinds] += state[kinds]
        features.append((mean + sd * X).astype(np.float32))
    log = 0.5 * states[:, :, None] * rng.normal(size=(1, 1, 4))
    expression = profiles * np.exp(log)
    totals = np.full(30, 1e6)
    counts = rng.poisson(totals[:, None] * np.einsum("sc,scg->sg", shares, expression)).astype(float)
    names = [f"s{i}" for i in range(30)]
    labels = TypedLabels(
        np.array(names),
        TYPES,
        GENES,
        shares,
        np.log1p(1e4 * expression).astype(np.float32),
        profiles,
        counts,
        totals,
        np.ones((4, 3)),
    )
    bags = Bags.of(features, names, [f"p{i // 2}" for i in range(30)])
    settings = TypedSettings(head=head, encoder="colour", patch=PatchSpec(32, mpp), rank=2, n_inner=3)
    return train_typed(bags, labels, settings), bags
