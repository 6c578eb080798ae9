"""Cross-validate heads on sections of her2st with :func:`napari_cpnn.cross_validate`, and collect what was tested.

Within patient C each section is tested by itself; across patients, B4 and the sections of C in turn. Every fold is
trained for a number of epochs that is fixed beforehand: a tested spot decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

import napari_cpnn as nc
from her2st_study.data import published_shares, read_prototypes, read_section, start_weights
from napari_cpnn.evaluation import pearson
from napari_cpnn.settings import EvaluationSettings
from napari_cpnn.studies import HeldOutSlide, folder_names, held_out_slides

SECTIONS = ("B4", "C2", "C3", "C4")

#: Sections of each protocol, and how they are grouped.
PROTOCOLS = {"within": (("C2", "C3", "C4"), "section"), "across": (SECTIONS, "patient")}

#: Folds as they are called in the tables.
FOLD_NAMES = {"B": "C to B", "C": "B to C"}

SCORES = ["pcc", "scc", "pcc_given_depth", "scc_given_depth", "ceiling", "ceiling_given_depth"]

Heads = Mapping[str, nc.TrainingSettings]


@dataclass
class Study:
    """Cross-validations with the prototypes of one tier."""

    data: Path
    runs: Path
    tier: str
    protocols: tuple[str, ...] = tuple(PROTOCOLS)

    def run(self, heads: Heads, seeds: int = 1) -> dict[str, list[Tested]]:
        """Train and test every head with several seeds; one result per seed and tested section, first seed first."""
        results: dict[str, list[Tested]] = {name: [] for name in heads}
        prototypes, major = self._prototypes
        for seed in range(seeds):
            seeded = {name: one.replace(seed=seed) for name, one in heads.items()}
            for protocol in self.protocols:
                sections, groups = PROTOCOLS[protocol]
                out = self.runs / self.tier / protocol / f"seed {seed}"
                evaluation = EvaluationSettings(ceiling_repeats=5, bootstraps=0)
                samples = [self._samples[name] for name in sections]
                scores = nc.cross_validate(samples, prototypes, seeded, groups, out, evaluation)
                by_slide = scores.groupby(["head", "slide"])[SCORES].mean()
                for slide in held_out_slides(out):
                    for name, table in slide.heads.items():
                        fold = FOLD_NAMES.get(slide.fold, slide.fold)
                        model = out / folder_names([name])[0] / slide.fold / "run" / "model.safetensors"
                        agreement = self._agreement(table, slide.slide, major)
                        means = by_slide.loc[name, slide.slide]
                        results[name].append(Tested(fold, slide.slide, table, means, agreement, model))
        return results

    @cached_property
    def _samples(self) -> dict[str, tuple[nc.Slide, AnnData]]:
        return {name: read_section(self.data, name) for name in SECTIONS}

    @cached_property
    def _prototypes(self) -> tuple[nc.Prototypes, dict[str, str]]:
        prototypes, major = read_prototypes(self.data)
        return prototypes[self.tier], major[self.tier]

    def _agreement(self, table: AnnData, section: str, major: Mapping[str, str]) -> pd.Series | None:
        """Correlation of the predicted with the published shares per major type."""
        weights = table.obsm["weights"]
        if weights.shape[1] == 0:
            return None
        summed = weights.T.groupby(lambda name: major[name]).sum().T
        published = published_shares(self.data, section).reindex(table.obs_names)
        types = [name for name in published.columns if name in summed.columns]
        return pd.Series(pearson(summed[types].to_numpy(), published[types].to_numpy()), types)


@dataclass
class Tested:
    """Predictions for one section that the model has not seen, their mean scores, and the file of the model."""

    fold: str
    section: str
    table: AnnData
    means: pd.Series
    composition: pd.Series | None
    model: Path

    @property
    def scores(self) -> dict[str, float]:
        """Means over the genes that vary, and over the major types."""
        return {**self.means, "composition": np.nan if self.composition is None else float(self.composition.mean())}


def frozen_settings(data: Path, epochs: int) -> nc.TrainingSettings:
    """Settings of our head on frozen SqueezeNet features; every fold is trained on all that is not tested."""
    return nc.TrainingSettings(
        backbone="squeezenet", weights=start_weights(data), patch=nc.PatchSpec(224, 1.0), backbone_learning_rate=0,
        symmetries=True, max_epochs=epochs, validation="none", precision="float32",
    )  # fmt: skip


def mean_scores(results: list[Tested]) -> pd.DataFrame:
    """Means over seeds and sections; rows: ``within`` (patient C), ``C to B``, ``B to C``."""
    rows = [{"fold": r.fold if " " in r.fold else "within", **r.scores} for r in results]
    return pd.DataFrame(rows).groupby("fold", sort=False).mean()


def side_by_side(tested: Mapping[str, list[Tested]], n: int) -> list[HeldOutSlide]:
    """The first ``n`` results of several heads, section by section."""
    first = next(iter(tested.values()))[:n]
    return [
        HeldOutSlide(one.fold, one.section, {head: results[i].table for head, results in tested.items()})
        for i, one in enumerate(first)
    ]
