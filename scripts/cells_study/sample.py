"""Cells of the packaged slide, whose types are known, and a simulation of real cells under spots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial import cKDTree

import napari_cpnn as nc
from napari_cpnn.geometry import Grid, spatial_to_um
from napari_cpnn.training.bags import nuclei_around
from sample_tissue.layout import CELL_TYPES, make_layout

#: A found nucleus is a true one within this distance; cells are looked at this far around the spots, in um.
WITHIN_UM, AROUND_UM = 3.0, 60.0
#: Radius of a spot of the packaged sample, in um.
SPOT_UM = 27.5
#: Half of the cells of one tumour are few.
OF_FEW = nc.PrototypeSettings(min_cells=3, min_cells_per_type=1)


@dataclass
class Sample:
    """The packaged slide with all that is known of it; the right half is tested.

    Parameters
    ----------
    runs
        Where the nuclei are kept.
    """

    runs: Path

    @cached_property
    def slide(self) -> nc.Slide:
        return nc.open_slide(nc.sample_folder() / "slide.tiff")

    @cached_property
    def spots(self) -> AnnData:
        return nc.read_spots(nc.sample_folder() / "spots.h5ad", slide=self.slide)

    @cached_property
    def centers_um(self) -> np.ndarray:
        return spatial_to_um(self.spots.obsm["spatial"], self.slide.require_mappable())

    @cached_property
    def is_train(self) -> np.ndarray:
        return (self.spots.obs["split"] == "train").to_numpy()

    @cached_property
    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres and types of all cells, as numbers of ``CELL_TYPES``."""
        cells = make_layout(12000, 7).cells
        return cells.points, cells.types

    @cached_property
    def nuclei(self) -> nc.Nuclei:
        """Nuclei that the detector finds around the spots."""
        path = self.runs / "nuclei" / "sample.zarr"
        if not path.exists():
            nuclei_around(self.slide, self.centers_um, AROUND_UM).save(path)
        return nc.Nuclei.load(path)

    def is_left(self, centers: np.ndarray) -> np.ndarray:
        """Which centres lie in the left half, where models are trained."""
        return centers[:, 1] < self.slide.shape[1] * self.slide.require_mappable()[1] / 2

    def left(self) -> nc.Nuclei:
        """Found nuclei of the left half."""
        return self.nuclei.subset(self.is_left(self.nuclei.centers_um))

    def clear(self, centers: np.ndarray) -> np.ndarray:
        """Which centres lie in the right half, where neither fold nor ink hides what is counted."""
        truth = np.load(nc.sample_folder() / "truth.npz")
        grid = Grid(truth["artefact"].shape, float(truth["stride_um"]))
        at = (centers // grid.stride_um).astype(int).clip(0, np.array(grid.shape) - 1)
        return ~self.is_left(centers) & ~truth["artefact"][tuple(at.T)]

    def matched(self, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which centres are a true cell in the clear right half, and its type."""
        points, types = self.truth
        distance, nearest = cKDTree(points).query(centers)
        return (distance <= WITHIN_UM) & self.clear(centers), types[nearest]


def recalls(found: np.ndarray, cell_types: tuple[str, ...], truth: np.ndarray) -> pd.Series:
    """Share of the cells of each type of the layout that are found as such."""
    codes = np.array([cell_types.index(name) for name in CELL_TYPES])[truth]
    return pd.Series(
        {name: float((found[truth == i] == codes[truth == i]).mean()) for i, name in enumerate(CELL_TYPES)}
    )


@dataclass(frozen=True)
class Simulated:
    """Real cells under the nuclei of the packaged slide.

    Attributes
    ----------
    spots
        Counts of the spots: sums of the cells inside them.
    expression
        ``(n, G)`` log1p CP10k of the cell that each nucleus was given.
    nuclei, types
        All nuclei near the spots, and their types as names.
    totals
        ``(n,)`` counts of these cells.
    prototypes
        From the other half of the single cells.
    cells, known, hidden
        All single cells, and the numbers of those of the prototypes and of those that nuclei were given.
    """

    spots: AnnData
    expression: np.ndarray
    genes: tuple[str, ...]
    nuclei: nc.Nuclei
    types: np.ndarray
    totals: np.ndarray
    prototypes: nc.Prototypes
    cells: AnnData
    known: np.ndarray
    hidden: np.ndarray


def simulate(data: Path, sample: Sample, seed: int = 0) -> Simulated:
    """Give each nucleus a cell of its type of tumour CID4465, and each spot the sum of its cells."""
    rng = np.random.default_rng(seed)
    cells = nc.read_cells(data / "derived" / "wu2021_CID4465_counts.h5ad")
    labels = cells.obs["celltype_major"].astype(str).to_numpy()
    order = rng.permutation(cells.n_obs)
    known, hidden = np.sort(order[: cells.n_obs // 2]), np.sort(order[cells.n_obs // 2 :])
    path = sample.runs / f"simulated-{seed}.h5ad"
    if not path.exists():
        nc.estimate_prototypes(cells[known].copy(), "celltype_major", settings=OF_FEW).save(path)
    protos = nc.Prototypes.load(path)
    column = {name: i for i, name in enumerate(cells.var_names)}
    counts = sparse.csr_matrix(cells.layers["counts"])[:, [column[g] for g in protos.genes]]
    points, types = sample.truth
    near = cKDTree(sample.centers_um).query(points)[0] <= AROUND_UM
    points, types = points[near], np.array(CELL_TYPES)[types[near]]
    there = {name: hidden[labels[hidden] == name] for name in np.unique(types)}
    has = np.array([len(there[name]) >= 3 for name in types])
    points, types = points[has], types[has]
    given = np.array([rng.choice(there[name]) for name in types])
    of_cells = counts[given]
    inside = cKDTree(points).query_ball_point(sample.centers_um, SPOT_UM)
    rows = np.repeat(np.arange(len(inside)), [len(one) for one in inside])
    columns = np.concatenate([np.asarray(one, dtype=int) for one in inside])
    summed = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(inside), len(points))) @ of_cells
    spots = AnnData(
        sparse.csr_matrix(summed.astype(np.int32)), obs=sample.spots.obs.copy(),
        var=pd.DataFrame(index=list(protos.genes)), obsm={"spatial": np.asarray(sample.spots.obsm["spatial"])},
        uns={"spatial": sample.spots.uns["spatial"]},
    )  # fmt: skip
    spots.layers["counts"] = spots.X.copy()
    totals = np.asarray(of_cells.sum(axis=1)).ravel()
    values = (sparse.diags(1e4 / np.maximum(totals, 1)) @ of_cells).log1p()
    return Simulated(
        spots, values.toarray().astype(np.float32), protos.genes, nc.Nuclei(points), types, totals, protos, cells,
        known, hidden,
    )  # fmt: skip
