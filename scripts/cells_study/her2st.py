"""Cells of patient C of her2st: a section is tested by models that are trained on the other two."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

import napari_cpnn as nc
from her2st_study.data import published_shares, read_prototypes, read_section, start_weights
from napari_cpnn.evaluation import pearson, spearman
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.settings import EvaluationSettings
from napari_cpnn.spots import expression
from napari_cpnn.studies import held_out_slides
from napari_cpnn.training.bags import CellSpots, SlideModel, fit_cells, nuclei_around, read_cell_spots

SECTIONS = ("C2", "C3", "C4")
#: Sections that train and test where something is chosen; C4 takes no part.
INNER = (("C2", "C3"), ("C3", "C2"))
#: Radius of a spot of her2st, and how far around the spots nuclei are looked for, in um.
RADIUS_UM, AROUND_UM = 50.0, 100.0
#: Of every fold, fixed beforehand: no tested spot decides anything.
EPOCHS = 20
#: Genes with the largest variance within the training sections, as sCellST takes.
N_GENES = 1000


@dataclass
class Cells:
    """Sections with their nuclei, and what is learnt from them.

    Parameters
    ----------
    data
        Folder of the real data.
    runs
        Where nuclei and finished folds of the patch model are kept.
    """

    data: Path
    runs: Path

    @cached_property
    def samples(self) -> dict[str, tuple[nc.Slide, AnnData]]:
        return {name: read_section(self.data, name) for name in SECTIONS}

    @cached_property
    def prototypes(self) -> tuple[nc.Prototypes, dict[str, str]]:
        """Minor types of CID4465, and the major type of each in her2st's words."""
        found, names = read_prototypes(self.data)
        return found["celltype_minor"], names["celltype_minor"]

    @cached_property
    def nuclei(self) -> dict[str, nc.Nuclei]:
        """Nuclei around the spots of each section, found once."""
        found = {}
        for name, (slide, spots) in self.samples.items():
            path = self.runs / "nuclei" / f"{name}.zarr"
            if not path.exists():
                centers = spatial_to_um(spots.obsm["spatial"], slide.require_mappable())
                nuclei_around(slide, centers, AROUND_UM).save(path)
            found[name] = nc.Nuclei.load(path)
        return found

    def encoder(self, name: str) -> tuple[str, str]:
        """Name and weights of an encoder."""
        import os

        (nic,) = (self.data / "pretrained-histology" / "nic-histology").glob("*multitask*.safetensors")
        weights = {"squeezenet": start_weights(self.data), "nic": str(nic), "colour": "pretrained"}
        return name, os.pathsep.join(weights[part] for part in name.split("+"))

    def settings(self, encoder: str, patch: nc.PatchSpec, **changes: object) -> nc.CellSettings:
        """Settings of the cells of patient C; all epochs are run."""
        name, weights = self.encoder(encoder)
        start = nc.CellSettings(
            encoder=name, encoder_weights=weights, patch=patch, radius_um=RADIUS_UM, validation="none", device="cpu",
            epochs=EPOCHS, genes="variable", n_genes=N_GENES,
        )  # fmt: skip
        return start.replace(**changes)

    def read(self, settings: nc.CellSettings, train: Sequence[str], test: str) -> CellSpots:
        """Bags of the training sections and of the tested one, which decides nothing: genes are those of the others."""
        names = [*train, test]
        return read_cell_spots(
            [self.samples[name] for name in names], self.prototypes[0], settings.replace(validation=test),
            [self.nuclei[name] for name in names],
        )  # fmt: skip

    def fit(self, read: CellSpots, settings: nc.CellSettings) -> SlideModel:
        """Train on the training sections alone."""
        alone = dataclasses.replace(read, held_out=np.zeros(0, dtype=np.intp), held_out_name="")
        return fit_cells(alone, self.prototypes[0], settings)

    def tested(self, settings: nc.CellSettings, train: Sequence[str], test: str) -> Tested:
        """Train on some sections and test on another."""
        read = self.read(settings, train, test)
        return self.test(self.fit(read, settings), read, test)

    def test(self, made: SlideModel, read: CellSpots, test: str) -> Tested:
        """Score the tested section's spots that have a nucleus."""
        bags = read.labelled.bags.subset(read.held_out)
        spots = self.samples[test][1]
        names = [name.split("/", 1)[1] for name in bags.names.tolist()]
        shares = None
        if made.network is None:
            shares = made.composition(bags).set_axis(names)
        found = self.scores(made.predict(bags), made.genes, spots[names], shares, test)
        return dataclasses.replace(found, exponent=made.exponent or 0.0)

    def scores(
        self, predicted: np.ndarray, genes: Sequence[str], spots: AnnData, shares: pd.DataFrame | None, section: str
    ) -> Tested:
        measured = expression(spots, list(genes))
        pcc, scc = pearson(predicted, measured), spearman(predicted, measured)
        depth = np.log(np.asarray(spots.layers["counts"].sum(axis=1), dtype=float).ravel())
        given = pearson(_without(predicted, depth), _without(measured, depth))
        agreement = np.nan if shares is None else float(self.agreement(shares, section).mean())
        return Tested(
            float(np.nanmean(pcc)), float(np.nanmean(scc)), float(np.nanmean(given)), agreement, len(spots),
            pd.Series(pcc, list(genes)),
        )  # fmt: skip

    def agreement(self, shares: pd.DataFrame, section: str) -> pd.Series:
        """Correlation of shares of spots with stereoscope's, per major type."""
        major = self.prototypes[1]
        summed = shares.T.groupby(lambda name: major[name]).sum().T
        published = published_shares(self.data, section).reindex(shares.index)
        types = [name for name in published.columns if name in summed.columns]
        return pd.Series(pearson(summed[types].to_numpy(), published[types].to_numpy()), types)

    def patch_model(self, encoder: str, seeds: int, genes: Mapping[str, Sequence[str]]) -> dict[str, list[Tested]]:
        """The patch model with the same encoder on the same folds: spots with nuclei, and the genes of each section."""
        name, weights = self.encoder(encoder)
        base = nc.TrainingSettings(
            backbone="frozen", encoder=name, encoder_weights=weights, patch=nc.PatchSpec(224, 1.0), symmetries=True,
            max_epochs=10, validation="none", precision="float32",
        )  # fmt: skip
        found: dict[str, list[Tested]] = {section: [] for section in SECTIONS}
        for seed in range(seeds):
            out = self.runs / "patches" / encoder / f"seed {seed}"
            evaluation = EvaluationSettings(ceiling_repeats=0, bootstraps=0)
            nc.cross_validate(
                list(self.samples.values()), self.prototypes[0], {"ours": base.replace(seed=seed)}, "section", out,
                evaluation, progress=False,
            )  # fmt: skip
            for slide in held_out_slides(out):
                every = slide.heads["ours"]
                table = every[self.with_nuclei(slide.slide, every), list(genes[slide.slide])]
                spots = self.samples[slide.slide][1][table.obs_names]
                one = self.scores(np.asarray(table.X), list(table.var_names), spots, table.obsm["weights"], slide.slide)
                found[slide.slide].append(one)
        return found

    def with_nuclei(self, section: str, table: AnnData) -> np.ndarray:
        """Which spots of a table have a nucleus inside."""
        from scipy.spatial import cKDTree

        slide, spots = self.samples[section]
        centers = spatial_to_um(spots[table.obs_names].obsm["spatial"], slide.require_mappable())
        distance, _ = cKDTree(self.nuclei[section].centers_um).query(centers)
        return distance <= RADIUS_UM


@dataclass(frozen=True)
class Tested:
    """Means over genes of PCC, SCC and PCC given depth; mean r with the published shares; spots; PCC per gene.

    And the exponent of the nuclear area by which cells count, 0 if they count alike.
    """

    pcc: float
    scc: float
    pcc_given_depth: float
    composition: float
    n_spots: int
    per_gene: pd.Series
    exponent: float = 0.0


def kept(path: Path, make: Callable[[], Tested]) -> Tested:
    """What was found before and is in this file, or is found now."""
    if not path.exists():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(found) | {"per_gene": found.per_gene.to_dict()}))
    values = json.loads(path.read_text())
    return Tested(**values | {"per_gene": pd.Series(values["per_gene"])})


def _without(values: np.ndarray, depth: np.ndarray) -> np.ndarray:
    design = np.c_[np.ones(len(depth)), depth]
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def cross_test(
    cells: Cells, variants: Mapping[str, nc.CellSettings], seeds: Mapping[str, int]
) -> dict[str, dict[str, list[Tested]]]:
    """Test every variant on every section: ``[variant][section][seed]``; what is finished is found again."""
    results: dict[str, dict[str, list[Tested]]] = {name: {} for name in variants}
    for name, settings in variants.items():
        for test in SECTIONS:
            tested, others = [], [known for known in SECTIONS if known != test]
            for seed in range(seeds[name]):
                make = partial(cells.tested, settings.replace(seed=seed), others, test)
                tested.append(kept(cells.runs / "folds" / name / f"{test} {seed}.json", make))
            results[name][test] = tested
            print(f"{test} {name}: PCC {np.mean([one.pcc for one in tested]):.4f}", flush=True)
    return results
