"""Why a type is not found among simulated cells: one cause at a time is taken away."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.spatial import cKDTree

import napari_cpnn as nc
from cells_study.sample import CELL_TYPES, OF_FEW, SPOT_UM, Sample, Simulated
from napari_cpnn.evaluation import pearson
from napari_cpnn.prediction import PlaceFeatures, Predictor
from napari_cpnn.training.bags import BagReader, CellSpots, fit_cells, read_cell_spots


@dataclass(frozen=True)
class Trial:
    """What a change does.

    Attributes
    ----------
    share, agreement
        Mean over the training spots of the type's share that the weights are pulled to, and its PCC with the true one.
    recall, taken_for
        Share of the type's cells that are found, and what most others are taken for.
    mean_recall
        Of all types.
    """

    share: float
    agreement: float
    recall: float
    taken_for: str
    mean_recall: float


@dataclass
class Lost:
    """Trials on the simulated cells.

    Parameters
    ----------
    sample, drawn
        The packaged slide, and the cells that its nuclei were given.
    kind
        The type that is not found.
    """

    sample: Sample
    drawn: Simulated
    kind: str

    def __post_init__(self) -> None:
        centers = self.drawn.nuclei.centers_um
        self.left = np.flatnonzero(self.sample.is_left(centers))
        self.test = np.flatnonzero(self.sample.clear(centers))
        self.spots = self.drawn.spots[self.sample.is_train].copy()

    def prototypes(self, which: str, method: str = "nb") -> nc.Prototypes:
        """Prototypes of ``"known"`` cells, of those that are ``"hidden"`` under the nuclei, or of ``"all"``."""
        cells = self.drawn.cells[{"known": self.drawn.known, "hidden": self.drawn.hidden}.get(which, slice(None))]
        return nc.estimate_prototypes(cells.copy(), "celltype_major", settings=OF_FEW.replace(method=method))

    def true_shares(self, protos: nc.Prototypes) -> pd.DataFrame:
        """Shares of RNA of the training spots, in the order of the prototypes."""
        at = self.sample.centers_um[self.sample.is_train]
        inside = cKDTree(self.drawn.nuclei.centers_um).query_ball_point(at, SPOT_UM)
        table = pd.DataFrame(0.0, index=self.spots.obs_names.astype(str), columns=list(protos.cell_types))
        for row, cells in zip(table.index, inside, strict=True):
            for cell in cells:
                table.loc[row, self.drawn.types[cell]] += self.drawn.totals[cell]
        return table.div(table.sum(axis=1), axis=0)

    @property
    def true_share(self) -> float:
        return float(self.true_shares(self.drawn.prototypes)[self.kind].mean())

    def read(self, protos: nc.Prototypes, settings: nc.CellSettings) -> CellSpots:
        nuclei = self.drawn.nuclei.subset(self.left)
        return read_cell_spots([(self.sample.slide, self.spots)], protos, settings, [nuclei])

    def trial(self, protos: nc.Prototypes, settings: nc.CellSettings, *, told: bool = False) -> Trial:
        """Train and test; ``told``: with the true shares in place of the deconvolved ones."""
        read = self.read(protos, settings)
        names = [name.split("/", 1)[1] for name in read.labelled.bags.names.tolist()]
        truth = self.true_shares(protos).loc[names].to_numpy(dtype=np.float32)
        shares = read.labelled.shares
        if told:
            read = dataclasses.replace(read, labelled=dataclasses.replace(read.labelled, shares=truth))
        model = fit_cells(read, protos, settings).model
        cells = nc.predict_cells(
            self.sample.slide, model, self.drawn.nuclei.subset(self.test), progress=False, device="cpu", keep=True
        )
        column = list(protos.cell_types).index(self.kind)
        of_type = shares if not told else truth
        with np.errstate(invalid="ignore"):
            agreement = float(pearson(of_type[:, [column]].astype(float), truth[:, [column]].astype(float))[0])
        found = np.array(cells.cell_types)[cells.dominant()]
        return self._trial(found, float(of_type[:, column].mean()), agreement)

    def _trial(self, found: np.ndarray, share: float, agreement: float) -> Trial:
        types = self.drawn.types[self.test]
        recalls = {kind: float((found[types == kind] == kind).mean()) for kind in CELL_TYPES}
        others = pd.Series(found[(types == self.kind) & (found != self.kind)]).value_counts()
        taken = f"{others.index[0]} {others.iloc[0] / (types == self.kind).sum():.2f}" if len(others) else ""
        return Trial(share, agreement, recalls[self.kind], taken, float(np.mean(list(recalls.values()))))

    def supervised(self, settings: nc.CellSettings) -> Trial:
        """What the picture of a nucleus tells: logistic regression on the true types of the left half."""
        model = BagReader(
            nc.SlideLevelSettings(
                encoder=settings.encoder, encoder_weights=settings.encoder_weights, patch=settings.patch, device="cpu"
            )
        ).model
        places = PlaceFeatures(self.sample.slide, model, Predictor(model, "cpu"))
        train, test = (places.at(self.drawn.nuclei.centers_um[rows])[0] for rows in (self.left, self.test))
        codes = np.array([CELL_TYPES.index(name) for name in self.drawn.types[self.left]])
        found = np.array(CELL_TYPES)[_logistic(train, codes, test)]
        return self._trial(found, np.nan, np.nan)

    def deconvolved(self, **changes: float) -> pd.Series:
        """Mean shares of the training spots by the negative binomial model with other settings."""
        known = self.true_shares(self.drawn.prototypes).notna().all(axis=1).to_numpy()
        settings = nc.DeconvolutionSettings(device="cpu", **changes)
        return nc.deconvolve(self.spots[known].copy(), self.drawn.prototypes, settings).mean()

    def likeness(self, protos: nc.Prototypes) -> pd.Series:
        """Divergence of each prototype from the summed counts of the type's cells under the nuclei, in nats per count.

        The least is the prototype that they are most like.
        """
        rows = self.drawn.types == self.kind
        counts = np.expm1(self.drawn.expression[rows].astype(float)) * self.drawn.totals[rows][:, None] / 1e4
        own = counts.sum(axis=0)
        own = own / own.sum()
        assert protos.genes == self.drawn.genes
        apart = np.log(np.maximum(own, 1e-12)) - np.log(np.maximum(protos.profiles.astype(float), 1e-9))
        return pd.Series(apart @ own, index=list(protos.cell_types))


UNDER, TOLD = "prototypes of the cells under the nuclei", "true shares of the spots"
LEAST_SQUARES, MEANS = "shares by least squares", "mean profiles of the same cells"
SUPERVISED = "true types of the cells (logistic regression)"
#: Of the negative binomial model: detection of genes as in single cells, no ambient RNA, strong shrinkage.
OTHERWISE = ({"gene_scale_sd": 0.25}, {"gene_scale_sd": 0.1}, {"background": 0.0}, {"abundance_shape": 1.0})
TRIAL_HEADER = ("change", "share", "PCC of the share", "recall", "most others are taken for", "mean recall, all types")


def lost_trials(lost: Lost, folder: Path) -> dict[str, Trial]:
    """The cells as they are, and one change at a time; finished ones are kept in a folder."""
    start, settings = lost.drawn.prototypes, nc.CellSettings(device="cpu")
    trials = {
        "none": lambda: lost.trial(start, settings),
        "no term of the composition": lambda: lost.trial(start, settings.replace(composition_weight=0.0)),
        LEAST_SQUARES: lambda: lost.trial(start, settings.replace(deconvolution="nnls")),
        MEANS: lambda: lost.trial(lost.prototypes("known", "mean"), settings),
        UNDER: lambda: lost.trial(lost.prototypes("hidden"), settings),
        TOLD: lambda: lost.trial(start, settings, told=True),
        SUPERVISED: lambda: lost.supervised(settings),
    }
    found = {}
    for name, make in trials.items():
        path = folder / f"{name}.json"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dataclasses.asdict(make())))
        found[name] = Trial(**json.loads(path.read_text()))
        print(name, found[name], flush=True)
    return found


def trial_rows(trials: Mapping[str, Trial]) -> list[list[str]]:
    """Rows of a table under ``TRIAL_HEADER``."""
    rows = []
    for name, one in trials.items():
        numbers = ("" if np.isnan(value) else f"{value:.2f}" for value in (one.share, one.agreement))
        rows.append([name, *numbers, f"{one.recall:.2f}", one.taken_for, f"{one.mean_recall:.2f}"])
    return rows


def _logistic(train: np.ndarray, codes: np.ndarray, test: np.ndarray, penalty: float = 1e-3) -> np.ndarray:
    center, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
    X, Z = (torch.from_numpy((values - center) / spread).float() for values in (train, test))
    y = torch.from_numpy(codes)
    n_types = int(codes.max()) + 1
    weight, bias = torch.zeros(X.shape[1], n_types, requires_grad=True), torch.zeros(n_types, requires_grad=True)
    balance = 1 / torch.bincount(y, minlength=n_types).clamp(min=1)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(X @ weight + bias, y, weight=balance) + penalty * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return (Z @ weight + bias).argmax(dim=1).detach().numpy()


def lost_words(lost: Lost, trials: Mapping[str, Trial]) -> list[str]:
    """What the trials say."""
    protos = lost.drawn.prototypes
    labels = lost.drawn.cells.obs["celltype_major"].astype(str).to_numpy()
    n_known, n_hidden = (int((labels[rows] == lost.kind).sum()) for rows in (lost.drawn.known, lost.drawn.hidden))
    own = protos.profiles[list(protos.cell_types).index(lost.kind)]
    of_like = protos.profiles[list(protos.cell_types).index(lost.likeness(protos).drop(lost.kind).idxmin())]
    is_ig = np.array([gene.startswith(("IGH", "IGK", "IGL", "JCHAIN")) for gene in protos.genes])
    apart = lost.likeness(protos).sort_values()
    others = apart.drop(lost.kind)
    none, told, under = (trials[name] for name in ("none", TOLD, UNDER))
    least_squares, seen = trials[LEAST_SQUARES], trials[SUPERVISED]
    truth = lost.true_shares(protos).mean()
    found = lost.deconvolved()
    most = max(float(lost.deconvolved(**changes)[lost.kind]) for changes in OTHERWISE)
    like = str(others.index[0])
    return [
        (
            f"{lost.kind} (recall {none.recall:.2f}) are lost in the deconvolution of the spots, neither in the "
            f"picture nor in the learning. The negative binomial model gives them {found[lost.kind]:.3f} of the RNA "
            f"(true: {truth[lost.kind]:.2f}) and {like} {found[like]:.2f} (true: {truth[like]:.2f}); the weights are "
            f"pulled there. With the true shares of the spots their recall is {told.recall:.2f}; a classifier that is "
            f"told the type of each training cell finds {seen.recall:.2f}: the picture allows no less."
        ),
        (
            f"Why there: {own[is_ig].sum():.0%} of the prototype of {lost.kind} is immunoglobulin, of that of {like} "
            f"{of_like[is_ig].sum():.0%}, and it rests on {n_known} cells. The {n_hidden} that lie under the "
            f"nuclei diverge from it by {apart[lost.kind]:.2f} nats per count, from the prototype of {like} by "
            f"{others.iloc[0]:.2f} and from the next by {others.iloc[1]:.1f}. With prototypes of the very cells under "
            f"the nuclei recall is {under.recall:.2f}."
        ),
        (
            f"What mends it: least squares (recall {least_squares.recall:.2f}, mean recall "
            f"{least_squares.mean_recall:.2f} against {none.mean_recall:.2f}; `CellSettings.deconvolution`). What "
            f"does not: mean profiles of the same {n_known} cells ({trials[MEANS].recall:.2f}), and gene scales, "
            f"ambient RNA or shrinkage of the negative binomial model set otherwise (share at most {most:.3f}). The "
            "default stays: on measured sections least squares gives this tumour's B-cells far too much "
            "([experiments.md](experiments.md))."
        ),
    ]
