"""Do nuclei help spots? What they measure beside the features of the patch, on the folds of patient C of her2st."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

import napari_cpnn as nc
from cells_study.her2st import AROUND_UM, RADIUS_UM, SECTIONS, Cells, Tested
from cells_study.vectors import given_features, with_vectors
from napari_cpnn.cells import nuclear_stain
from napari_cpnn.evaluation import pearson
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.prediction import Predictor
from napari_cpnn.slides import PatchReader
from napari_cpnn.spots import expression
from napari_cpnn.training.bags import BagReader, CellSpots, SlideModel

INPUTS = ("patch", "nuclei", "patch and nuclei")
#: Around the centre of a spot, in um: the spot, and about what the patch shows.
RADII_UM = (RADIUS_UM, AROUND_UM)
#: Chosen inside the training sections: penalty of the ridge relative to the mean eigenvalue, and weight of a descriptor
#: of nuclei relative to a feature of the patch, of the ridge and of CPNN.
PENALTIES = tuple(float(10**e) for e in np.arange(-1.0, 4.1, 0.5))
WEIGHTS, FEW_WEIGHTS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0), (1.0, 4.0)


def measures(slide: nc.Slide, nuclei: nc.Nuclei) -> pd.DataFrame:
    """What is measured of each nucleus; stain that cannot be read is that of the median nucleus."""
    ratio, roundness = _shapes(nuclei)
    stain = nuclear_stain(slide, nuclei).astype(np.float64)
    nearest = cKDTree(nuclei.centers_um).query(nuclei.centers_um, k=2)[0][:, 1]
    return pd.DataFrame({
        "log area": np.log(np.maximum(nuclei.areas_um2(), 1.0)),
        "eccentricity": np.sqrt(1 - ratio),
        "roundness": roundness,
        "haematoxylin": np.where(np.isfinite(stain), stain, np.nanmedian(stain)),
        "log distance to the nearest": np.log(np.maximum(nearest, 1.0)),
    })  # fmt: skip


def _shapes(nuclei: nc.Nuclei) -> tuple[np.ndarray, np.ndarray]:
    """Squared ratio of the axes of the ellipse with the outline's second moments, and ``4 pi area / perimeter^2``."""
    outlines = nuclei.outlines
    assert outlines is not None
    starts = outlines.starts
    sizes = np.diff(starts)
    y, x = (outlines.vertices_um.astype(np.float64) - np.repeat(outlines.centroids_um(), sizes, axis=0)).T
    following = np.arange(1, len(x) + 1)
    following[starts[1:] - 1] = starts[:-1]
    y1, x1 = y[following], x[following]
    cross = x * y1 - x1 * y

    def over(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts[:-1])

    area = over(cross) / 2
    safe = np.where(np.abs(area) > 1e-9, area, 1.0)
    xx, yy = (over(cross * (a * a + a * b + b * b)) / 12 / safe for a, b in ((x, x1), (y, y1)))
    xy = over(cross * (x * y1 + 2 * x * y + 2 * x1 * y1 + x1 * y)) / 24 / safe
    mean, apart = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    ratio = np.clip((mean - apart) / np.maximum(mean + apart, 1e-12), 0.0, 1.0)
    perimeter = over(np.hypot(x1 - x, y1 - y))
    return ratio, 4 * np.pi * np.abs(area) / np.maximum(perimeter, 1e-9) ** 2


def describe(nuclei: nc.Nuclei, of_each: pd.DataFrame, centers_um: np.ndarray) -> pd.DataFrame:
    """Number of nuclei around each place, and mean and deviation of each measure, within each radius."""
    tree = cKDTree(nuclei.centers_um)
    columns = {}
    for radius in RADII_UM:
        around = tree.query_ball_point(centers_um, radius)
        columns[f"log number, {radius:g} um"] = np.log1p([len(one) for one in around])
        for name in of_each:
            values = of_each[name].to_numpy()
            columns[f"mean {name}, {radius:g} um"] = [values[one].mean() for one in around]
            columns[f"deviation of {name}, {radius:g} um"] = [values[one].std() for one in around]
    return pd.DataFrame(columns)


@dataclass
class Inputs:
    """Vectors of the spots that have a nucleus, by section."""

    cells: Cells
    encoder: str

    @cached_property
    def patches(self) -> dict[str, pd.DataFrame]:
        """Features of the frozen encoder of a patch of 224 px at 1.0 um/px, mean over the eight symmetries."""
        name, weights = self.cells.encoder(self.encoder)
        settings = nc.SlideLevelSettings(
            encoder=name, encoder_weights=weights, patch=nc.PatchSpec(224, 1.0), device="cpu"
        )
        return {section: self._kept(section, self.encoder, lambda *at: _patches(settings, *at)) for section in SECTIONS}

    @cached_property
    def nuclei(self) -> dict[str, pd.DataFrame]:
        """Descriptors of the nuclei around each spot."""

        def made(slide: nc.Slide, centers_um: np.ndarray) -> pd.DataFrame:
            nuclei = self.cells.nuclei[slide.name]
            return describe(nuclei, measures(slide, nuclei), centers_um)

        return {section: self._kept(section, "nuclei", made) for section in SECTIONS}

    def _places(self, section: str) -> tuple[list[str], np.ndarray]:
        slide, spots = self.cells.samples[section]
        inside = spots[self.cells.with_nuclei(section, spots)]
        return inside.obs_names.tolist(), spatial_to_um(inside.obsm["spatial"], slide.require_mappable())

    def _kept(self, section: str, what: str, make: Callable[[nc.Slide, np.ndarray], pd.DataFrame]) -> pd.DataFrame:
        path = self.cells.runs / "inputs" / what / f"{section}.csv.gz"
        if not path.exists():
            names, centers = self._places(section)
            made = make(self.cells.samples[section][0], centers)
            path.parent.mkdir(parents=True, exist_ok=True)
            made.set_axis(names).to_csv(path)
        table = pd.read_csv(path, index_col=0)
        return table.set_axis(table.index.astype(str))

    def blocks(self, spots: Sequence[tuple[str, str]], known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of patch and nuclei of spots, on a scale that the ``known`` ones set.

        Those of the patch keep their scales relative to one another; each descriptor of nuclei has deviation 1.
        """
        patch, nuclei = (
            np.stack([table[section].loc[name].to_numpy(dtype=np.float64) for section, name in spots])
            for table in (self.patches, self.nuclei)
        )
        patch, nuclei = (values - values[known].mean(axis=0) for values in (patch, nuclei))
        patch /= np.sqrt(patch[known].var(axis=0).mean())
        return patch, nuclei / np.maximum(nuclei[known].std(axis=0), 1e-9)


def _patches(settings: nc.SlideLevelSettings, slide: nc.Slide, centers: np.ndarray) -> pd.DataFrame:
    model = BagReader(settings).model
    predictor, reader = Predictor(model, "cpu"), PatchReader(slide, settings.patch)
    rows = []
    for start in range(0, len(centers), 32):
        images, ok = reader.read(centers[start : start + 32])
        assert ok.all()
        turned = [np.rot90(flipped, k, (1, 2)) for flipped in (images, images[:, :, ::-1]) for k in range(4)]
        rows.append(np.mean([predictor.patch_features(np.ascontiguousarray(one)) for one in turned], axis=0))
    return pd.DataFrame(np.concatenate(rows)).round(5)


@dataclass(frozen=True)
class Fold:
    """A tested section, and the sections that train; numbers of spots ``train`` and ``test``."""

    cells: Cells
    inputs: Inputs
    test: str
    read: CellSpots

    @property
    def spots(self) -> list[tuple[str, str]]:
        """Section and name of each spot."""
        order = [name for name in SECTIONS if name != self.test] + [self.test]
        parts = (name.split("/", 1) for name in self.read.labelled.bags.names.tolist())
        return [(order[int(number) - 1], name) for number, name in parts]

    def vectors(self, what: str, weight: float, known: np.ndarray) -> np.ndarray:
        patch, nuclei = self.inputs.blocks(self.spots, known)
        return {"patch": patch, "nuclei": nuclei, "patch and nuclei": np.c_[patch, weight * nuclei]}[what]

    def inner(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each training section tested by the other: rows that train, rows that are tested."""
        sections = np.array([section for section, _ in self.spots])
        first, second = (np.flatnonzero(sections == one) for one in SECTIONS if one != self.test)
        return [(first, second), (second, first)]

    def measured(self) -> np.ndarray:
        return self.read.labelled.expression


def ridge(X: np.ndarray, Y: np.ndarray, groups: np.ndarray, penalties: Sequence[float]) -> list[np.ndarray]:
    """Coefficients ``(F, G)`` of each penalty; features and targets are centred within each group (section)."""
    X, Y = X.copy(), Y.copy()
    for group in np.unique(groups):
        X[groups == group] -= X[groups == group].mean(axis=0)
        Y[groups == group] -= Y[groups == group].mean(axis=0)
    values, vectors = np.linalg.eigh(X.T @ X)
    rotated = vectors.T @ (X.T @ Y)
    scale = max(float(values.clip(min=0).mean()), 1e-12)
    return [vectors @ (rotated / (values.clip(min=0) + scale * one)[:, None]) for one in penalties]


def ridge_scores(fold: Fold, what: str) -> tuple[Tested, float, np.ndarray]:
    """Scores of the tested section, PCC inside the training sections, by which settings are chosen; and predictions."""
    Y, slides = fold.measured(), fold.read.labelled.slides
    weights = WEIGHTS if what == "patch and nuclei" else (1.0,)
    inside = {}
    for weight in weights:
        found = []
        for train, held in fold.inner():
            X = fold.vectors(what, weight, train)
            fits = ridge(X[train], Y[train], slides[train], PENALTIES)
            found.append([np.nanmean(pearson(X[held] @ one, Y[held])) for one in fits])
        inside |= {(weight, p): float(v) for p, v in zip(PENALTIES, np.mean(found, axis=0), strict=True)}
    weight, penalty = max(inside, key=lambda one: inside[one])
    X = fold.vectors(what, weight, fold.read.train)
    (made,) = ridge(X[fold.read.train], Y[fold.read.train], slides[fold.read.train], [penalty])
    predicted = X[fold.read.held_out] @ made
    print(f"{fold.test} ridge {what}: weight {weight:g}, penalty {penalty:g}, inside {inside[weight, penalty]:.4f}")
    names = [name for _, name in np.array(fold.spots)[fold.read.held_out]]
    tested = fold.cells.scores(predicted, fold.read.genes, fold.cells.samples[fold.test][1][names], None, fold.test)
    return tested, inside[weight, penalty], predicted


def cpnn_scores(fold: Fold, settings: nc.CellSettings, what: str, seeds: int) -> tuple[list[Tested], float]:
    """The same of CPNN's head, a spot being one vector; the weight is chosen inside, with the first seed."""
    inside = {}
    for weight in FEW_WEIGHTS if what == "patch and nuclei" else (1.0,):
        found = []
        for train, held in fold.inner():
            made, read = _fitted(fold, settings, fold.vectors(what, weight, train), train)
            predicted = made.predict(read.labelled.bags.subset(held))
            found.append(float(np.nanmean(pearson(predicted, fold.measured()[held]))))
        inside[weight] = float(np.mean(found))
    weight = max(inside, key=lambda one: inside[one])
    print(f"{fold.test} CPNN {what}: weight {weight:g}, inside {inside[weight]:.4f}", flush=True)
    vectors = fold.vectors(what, weight, fold.read.train)
    tested = []
    for seed in range(seeds):
        made, read = _fitted(fold, settings.replace(seed=seed), vectors, fold.read.train)
        tested.append(fold.cells.test(made, read, fold.test))
    return tested, inside[weight]


def _fitted(
    fold: Fold, settings: nc.CellSettings, vectors: np.ndarray, train: np.ndarray
) -> tuple[SlideModel, CellSpots]:
    read = with_vectors(fold.read, list(vectors[:, None].astype(np.float32)))
    of_these = given_features(settings, vectors.shape[1])
    return fold.cells.fit(dataclasses.replace(read, train=train), of_these), read


def measured_spots(fold: Fold) -> np.ndarray:
    """Measured log1p CP10k ``(S, G)`` of the tested spots, as they are scored."""
    names = [name for _, name in np.array(fold.spots)[fold.read.held_out]]
    return expression(fold.cells.samples[fold.test][1][names], list(fold.read.genes))


def gain(pairs: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], n: int = 500) -> tuple[float, float, float]:
    """Mean over sections of the difference in mean PCC, with its 95 % interval over spots.

    ``pairs`` has, per section, measured expression and the predictions with and without.
    """
    rng = np.random.default_rng(0)

    def mean(draw: bool) -> float:
        found = []
        for measured, with_, without in pairs.values():
            rows = rng.integers(len(measured), size=len(measured)) if draw else slice(None)
            with_pcc, without_pcc = (np.nanmean(pearson(one[rows], measured[rows])) for one in (with_, without))
            found.append(with_pcc - without_pcc)
        return float(np.mean(found))

    low, high = np.quantile([mean(True) for _ in range(n)], (0.025, 0.975))
    return mean(False), float(low), float(high)
