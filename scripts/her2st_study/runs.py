"""Train a head on some sections, on the features of a frozen backbone, and score it on others.

The features are computed once for all sections. All heads see the same spots and genes, and are trained for a number of
epochs that is fixed beforehand: a tested spot decides nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from anndata import AnnData
from lightning.pytorch import Trainer

import napari_cpnn as nc
from napari_cpnn.evaluation import partial_pearson, partial_spearman, pearson, spearman
from napari_cpnn.models import build_model
from napari_cpnn.spots import counts_matrix
from napari_cpnn.studies import HeldOutSlide
from napari_cpnn.training.data import (
    FeatureInputs,
    Inputs,
    SpotData,
    SpotDataModule,
    SurroundedInputs,
    check_samples,
    inputs_for,
    prepare,
)  # fmt: skip
from napari_cpnn.training.fit import VIEWS, CpnnTraining

SECTIONS = ("B4", "C2", "C3", "C4")

#: Sections to learn from, and to test on.
FOLDS = {
    "C2": (("C3", "C4"), ("C2",)),
    "C3": (("C2", "C4"), ("C3",)),
    "C4": (("C2", "C3"), ("C4",)),
    "C to B": (("C2", "C3", "C4"), ("B4",)),
    "B to C": (("B4",), ("C2", "C3", "C4")),
}


@dataclass
class Study:
    """What all runs with one table of prototypes share."""

    data: SpotData
    prototypes: nc.Prototypes
    major: dict[str, str]
    published: pd.DataFrame
    depth: npt.NDArray[np.float64]
    base: nc.TrainingSettings
    inputs: Inputs

    @classmethod
    def of(
        cls,
        samples: list[tuple[nc.Slide, AnnData]],
        published: list[pd.DataFrame],
        prototypes: tuple[nc.Prototypes, dict[str, str]],
        base: nc.TrainingSettings,
        folder: Path,
        features: npt.NDArray[np.float32] | None = None,
    ) -> Study:
        """Cut, deconvolve, look around, and run the backbone (unless its ``features`` are known from another study)."""
        folder.mkdir(parents=True, exist_ok=True)
        everything = base.replace(validation="none", gene_weights="reliability")
        data = prepare(check_samples(samples, everything), prototypes[0], everything, folder)
        names = [samples[s][1].obs_names[r] for s, r in zip(data.slide_of, data.row_of, strict=True)]
        shares = pd.concat(published, keys=range(len(published)))
        shares = shares.reindex(list(zip(data.slide_of, names, strict=True)))
        totals = [np.asarray(counts_matrix(spots).sum(axis=1), dtype=float).ravel() for _, spots in samples]
        depth = np.log([totals[s][r] for s, r in zip(data.slide_of, data.row_of, strict=True)])
        study = cls(data, *prototypes, shares, depth, base, inputs_for(base))
        if features is not None:
            assert isinstance(study.inputs, FeatureInputs)
            study.inputs.features = features
        else:
            study.inputs.prepare(data, study.model(base, np.arange(len(data.images))).eval(), folder)
        return study

    @property
    def features(self) -> npt.NDArray[np.floating]:
        """What the frozen backbone sees of all patches, in their symmetries."""
        assert isinstance(self.inputs, FeatureInputs)
        return self.inputs.features

    def model(self, settings: nc.TrainingSettings, rows: npt.NDArray[np.intp]) -> nc.CPNN:
        """An untrained model that starts at the mean expression of some spots."""
        chosen = self.prototypes.select(self.data.genes)
        mean = self.data.targets[rows].mean(axis=0)
        return build_model(settings, self.data.genes, chosen.cell_types, chosen.profiles, mean)

    def run(self, settings: nc.TrainingSettings, fold: str, seed: int = 0) -> list[Tested]:
        """Train on the fold's sections; one result per tested section."""
        rows = np.flatnonzero(np.isin(self.data.slide_of, [SECTIONS.index(s) for s in FOLDS[fold][0]]))
        settings = settings.replace(seed=seed)
        patch = self.inputs.patch if isinstance(self.inputs, SurroundedInputs) else self.inputs
        patch.settings = settings  # whether symmetries are averaged at test time
        weights = self.data.gene_weights if settings.gene_weights == "reliability" else None
        data = dataclasses.replace(self.data, train=rows, held_out=np.zeros(0, dtype=np.intp))
        module = CpnnTraining(self.model(settings, rows), self.inputs, settings, "float32", weights)
        trainer = Trainer(
            max_epochs=settings.max_epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
            trainer.fit(module, datamodule=SpotDataModule(data, self.inputs, settings))
        module.chosen_model.eval()
        return [self._test(module, fold, s) for s in FOLDS[fold][1]]

    def _test(self, module: CpnnTraining, fold: str, section: str) -> Tested:
        model = module.chosen_model
        rows = np.flatnonzero(self.data.slide_of == SECTIONS.index(section))
        parts = list(self.inputs.predict(model, rows))
        weights, programs = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        predicted = model.decoder().expression(weights, programs, self.data.genes)
        measured = np.asarray(self.data.targets[rows])
        views = self._views(module, rows, measured) if isinstance(self.inputs, SurroundedInputs) else {}
        shares = pd.DataFrame(weights, columns=list(model.cell_types))
        return Tested(fold, section, predicted, measured, self.depth[rows], rows,
                      self.agreement(shares, rows) if model.cell_types else None, views)  # fmt: skip

    def _views(
        self, module: CpnnTraining, rows: npt.NDArray[np.intp], measured: npt.NDArray[np.float32]
    ) -> dict[str, float]:
        """Mean PCC of what each view of TRIPLEX predicts by its own head, mean over the symmetries."""
        assert isinstance(self.inputs, SurroundedInputs)
        assert isinstance(self.inputs.patch, FeatureInputs)
        seen = self.inputs.patch.features[: 8 if self.inputs.patch.settings.symmetries else 1, rows]
        model = module.chosen_model
        with torch.inference_mode():
            around = model.encode(self.inputs.surroundings.at(rows))
            of_symmetry = []
            for symmetry, tokens in enumerate(seen):
                _, *views = model.views(torch.from_numpy(np.array(tokens, dtype=np.float32)), around.turned(symmetry))
                parts = zip(model.view_heads, views, strict=True)
                of_symmetry.append([module.decode_view(head, view).numpy() for head, view in parts])
        means = (np.mean(values, axis=0) for values in zip(*of_symmetry, strict=True))
        return {name: float(np.nanmean(pearson(p, measured))) for name, p in zip(VIEWS, means, strict=True)}

    def agreement(self, shares: pd.DataFrame, rows: npt.NDArray[np.intp]) -> pd.Series:
        """Correlation with the published shares per major type, of the shares of some spots."""
        summed = shares.T.groupby(lambda name: self.major[name]).sum().T
        published = self.published.iloc[rows]
        types = [name for name in published.columns if name in summed.columns]
        return pd.Series(pearson(summed[types].to_numpy(), published[types].to_numpy()), types)


@dataclass
class Tested:
    """Predictions for one section that the model has not seen."""

    fold: str
    section: str
    predicted: npt.NDArray[np.float32]
    measured: npt.NDArray[np.float32]
    depth: npt.NDArray[np.float64]
    rows: npt.NDArray[np.intp]
    composition: pd.Series | None
    views: dict[str, float] = dataclasses.field(default_factory=dict)

    @cached_property
    def scores(self) -> dict[str, float]:
        """Means over the genes that vary, and over the major types."""
        p, m, d = self.predicted, self.measured, self.depth
        return {
            "pcc": float(np.nanmean(pearson(p, m))),
            "scc": float(np.nanmean(spearman(p, m))),
            "pcc_given_depth": float(np.nanmean(partial_pearson(p, m, d))),
            "scc_given_depth": float(np.nanmean(partial_spearman(p, m, d))),
            "composition": np.nan if self.composition is None else float(self.composition.mean()),
            **self.views,
        }

    def table(self, genes: tuple[str, ...]) -> AnnData:
        """As the comparison of heads takes it."""
        table = AnnData(
            self.predicted,
            obs=pd.DataFrame({"row": self.rows, "total_counts": np.exp(self.depth)}, index=self.rows.astype(str)),
            var=pd.DataFrame(index=list(genes)),
        )
        table.layers["measured"] = self.measured
        return table


def side_by_side(tested: dict[str, list[Tested]], genes: tuple[str, ...]) -> list[HeldOutSlide]:
    """The results of several heads, section by section."""
    first = next(iter(tested.values()))
    return [
        HeldOutSlide(one.fold, one.section, {head: results[i].table(genes) for head, results in tested.items()})
        for i, one in enumerate(first)
    ]
