"""Spots of known composition, drawn from half of the cells of tumour CID4465, and prototypes from the other half."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

import napari_cpnn as nc

#: Types with fewer cells in the half that spots are drawn from take no part in them; their prototypes stay.
LEAST_CELLS = 5
NICHES = 6


@dataclass(frozen=True)
class Scenario:
    """What stands between single cells and spots.

    Parameters
    ----------
    depth
        Median counts of a spot; log-normal with sigma 0.6.
    platform
        Sigma of the log-normal detection of each gene against the single cells.
    other_patient
        Sigma of the log-normal change of each gene in each type.
    ambient
        Share of counts that come from the mean of all spots.
    """

    depth: float = 6000
    platform: float = 1.0
    other_patient: float = 0.5
    ambient: float = 0.1


SCENARIOS = {
    "as her2st C": Scenario(),
    "shallow, as B4": Scenario(depth=800),
    "far reference": Scenario(platform=1.2, other_patient=1.0, ambient=0.2),
}


@dataclass(frozen=True)
class Drawn:
    """Spots, prototypes, and the true shares ``(spots, cell types)``."""

    spots: AnnData
    prototypes: nc.Prototypes
    truth: pd.DataFrame


def draw(cells: AnnData, scenario: Scenario, seed: int, n_spots: int = 150) -> Drawn:
    """Spots mix niches, niches mix types; the cells of a type in a spot are drawn anew each time."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(cells.n_obs)
    known, hidden = np.sort(order[: cells.n_obs // 2]), np.sort(order[cells.n_obs // 2 :])
    settings = nc.PrototypeSettings(min_cells=3, min_cells_per_type=1)
    protos = nc.estimate_prototypes(cells[known].copy(), "celltype_minor", settings=settings)
    column = {name: i for i, name in enumerate(cells.var_names)}
    counts = sp.csr_matrix(cells.layers["counts"])[:, [column[g] for g in protos.genes]].astype(np.float64)
    labels = cells.obs["celltype_minor"].astype(str).to_numpy()
    deep = np.asarray(counts.sum(axis=1)).ravel() >= 300
    pools = {t: hidden[(labels[hidden] == t) & deep[hidden]] for t in protos.cell_types}
    types = [t for t, pool in pools.items() if len(pool) >= LEAST_CELLS]

    niches = rng.dirichlet(np.full(len(types), 0.25), NICHES)
    expected = rng.dirichlet(np.full(NICHES, 0.4), n_spots) @ niches
    shares = np.array([rng.dirichlet(row * 12 + 1e-3) for row in expected])
    shares[shares < 0.01] = 0
    shares /= shares.sum(axis=1, keepdims=True)
    n_genes = counts.shape[1]
    detection = rng.lognormal(0, scenario.platform, n_genes)
    change = rng.lognormal(0, scenario.other_patient, (len(types), n_genes))
    rates = np.zeros((n_spots, n_genes))
    for spot, row in enumerate(shares):
        for i in np.flatnonzero(row):
            chosen = rng.choice(pools[types[i]], size=max(3, int(15 * row[i])))
            profile = np.asarray(counts[chosen].sum(axis=0)).ravel()
            rates[spot] += row[i] * profile / profile.sum() * change[i]
    rates *= detection
    rates /= rates.sum(axis=1, keepdims=True)
    rates = (1 - scenario.ambient) * rates + scenario.ambient * rates.mean(axis=0)
    measured = sp.csr_matrix(rng.poisson(rates * scenario.depth * rng.lognormal(0, 0.6, (n_spots, 1))))
    spots = AnnData(measured, var=pd.DataFrame(index=list(protos.genes)), layers={"counts": measured.copy()})
    truth = pd.DataFrame(shares, index=spots.obs_names, columns=types).reindex(
        columns=list(protos.cell_types), fill_value=0.0
    )
    return Drawn(spots, protos, truth)
