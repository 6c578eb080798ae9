"""Learn single cells from spots: the counts of a spot are the mean of its cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_cpnn.errors import SettingsError, TrainingError
from napari_cpnn.evaluation import pearson, spearman, summarise_values
from napari_cpnn.models import CPNN, StandardisedEncoder, build_model
from napari_cpnn.progress import Progress, Reporting, reporter
from napari_cpnn.prototypes import Prototypes, variance_between_types
from napari_cpnn.settings import CellSettings, SlideLevelSettings
from napari_cpnn.training.bags.cell_heads import CellCpnn, CellMlp
from napari_cpnn.training.bags.cell_spots import CellSpots, bag_settings, cell_model, read_cell_spots
from napari_cpnn.training.bags.cpnn import BagCpnn, train_cpnn
from napari_cpnn.training.bags.features import model_settings
from napari_cpnn.training.bags.networks import train_network
from napari_cpnn.training.bags.slide_model import CELL_HEAD, EXPONENT, SlideModel

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.nuclei import Nuclei
    from napari_cpnn.slides import Slide

#: Cells whose features tell how far others are from the training tissue.
_MOST_CELLS = 10_000
_LEAST_CELLS = 100
#: The source of labels of :func:`train_cpnn`.
_SPOTS = "spots"


def train_cells(
    samples: Sequence[tuple[Slide, AnnData]],
    prototypes: Prototypes,
    settings: CellSettings | None = None,
    nuclei: Sequence[Nuclei] | None = None,
    *,
    out: str | Path | None = None,
    progress: Reporting = False,
) -> CPNN:
    """Train a model of single cells on spots: of what a spot holds, only the mean over its nuclei is known.

    Parameters
    ----------
    samples
        Slides with their spots, as for :func:`~napari_cpnn.train`.
    prototypes
        As from :func:`~napari_cpnn.estimate_prototypes`.
    settings
        ``settings.validation`` selects what is held out, by which the epoch is chosen: a slide, or a contiguous quarter
        of a single one.
    nuclei
        Nuclei of each slide; by default they are found on the tissue around the spots.
    out
        File of the model, such as ``cells.safetensors``; it appears when it is complete.
    progress
        A function that is called with what is being done and its share.

    Returns
    -------
    CPNN
        Model of nucleus crops for :func:`~napari_cpnn.predict_cells`; maps of patches refuse it. Spots without a
        nucleus are left out with a warning; ``provenance["cells"]["n_spots_left_out"]`` has all reasons.

    Raises
    ------
    TrainingError
        If data or settings do not allow training, or no spot has a nucleus.
    NucleiError, GenesError, PixelSizeError, SlideError, SettingsError, WeightsError
        If nuclei, genes, slides, settings or weights cannot be used.

    Examples
    --------
    >>> settings = nc.CellSettings(encoder="colour", epochs=1, validation="none", genes="variable", n_genes=50)
    >>> near = spots[((spots.obsm["spatial"] - [8950, 10120]) ** 2).sum(axis=1) < 300**2].copy()
    >>> trained = nc.train_cells([(slide, near)], protos, settings)
    >>> trained.input_kind, trained.patch.size_um, trained.provenance["cells"]["n_spots"] > 3
    ('nucleus', 12.0, True)
    """
    settings = settings or CellSettings()
    if settings.head != "cpnn":
        raise SettingsError(
            f"The head {settings.head!r} is a baseline without cell types and maps; fit_cells trains it on bags."
        )
    spots = read_cell_spots(samples, prototypes, settings, nuclei, progress=progress)
    model = fit_cells(spots, prototypes, settings, progress).model
    if out is not None:
        from napari_cpnn.models import save_model

        save_model(model, out)
    return model


def fit_cells(
    spots: CellSpots, prototypes: Prototypes, settings: CellSettings, progress: Reporting = False
) -> SlideModel:
    """Train a head on spots as bags of cells: ``cpnn``, or the baseline ``mlp``.

    Returns
    -------
    SlideModel
        Predicts bags of cells; its ``model`` predicts single cells for the head cpnn.

    Raises
    ------
    TrainingError
        If the loss is not finite, or the spots were read with another ``rna_content``.

    Examples
    --------
    >>> from napari_cpnn.training.bags import fit_cells, read_cell_spots
    >>> settings = nc.CellSettings(head="mlp", encoder="colour", epochs=1, genes="variable", n_genes=50)
    >>> near = spots[((spots.obsm["spatial"] - [8950, 10120]) ** 2).sum(axis=1) < 300**2].copy()
    >>> read = read_cell_spots([(slide, near)], protos, settings.replace(validation="none"))
    >>> fit_cells(read, protos, settings).predict(read.labelled.bags).shape == (len(read.train), len(read.genes))
    True
    """
    report = reporter(progress)
    if (spots.labelled.bags.log_areas is None) != (settings.rna_content == "equal"):
        raise TrainingError(
            f"The spots were read with another rna_content than {settings.rna_content!r}; read them again."
        )
    of_bags = bag_settings(settings)
    protos = prototypes.select(spots.genes)
    if settings.head == "mlp":
        made = _mlp(spots, settings, of_bags, report)
    else:
        made = _cpnn(spots, protos, settings, of_bags, report)
    made.model.provenance.update(_provenance(spots, protos, settings, of_bags))
    if len(spots.held_out):
        made.model.provenance["metrics"] = {"held_out": _held_out_scores(made, spots)}
    return made


def _cpnn(
    spots: CellSpots, protos: Prototypes, settings: CellSettings, of_bags: SlideLevelSettings, report: Progress
) -> SlideModel:
    counts = spots.labelled.counts[spots.train].astype(np.float64)
    mean = (1e4 * counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    model = build_model(
        model_settings(of_bags).replace(tissue=settings.tissue), spots.genes, protos.cell_types, protos.profiles,
        np.maximum(mean, 1e-9), scale="count", sees="nucleus",
    )  # fmt: skip
    kind = BagCpnn if settings.loss == "nb" else CellCpnn
    labelled, held_out = spots.of_training()
    trained = train_cpnn(model, {_SPOTS: labelled}, of_bags, report, kind=kind, held_out=held_out)
    model.provenance["epoch"] = trained.epoch
    if trained.exponent is not None:
        model.provenance[EXPONENT] = round(trained.exponent, 6)
    model = model.eval().requires_grad_(False)
    _fit_domain(model, spots)
    return SlideModel(model, None, spots.genes, "cpnn")


def _mlp(spots: CellSpots, settings: CellSettings, of_bags: SlideLevelSettings, report: Progress) -> SlideModel:
    model = cell_model(settings)
    labelled, held_out = spots.of_training()
    raw = torch.from_numpy(labelled.bags.features)
    if isinstance(model.backbone, StandardisedEncoder):
        model.backbone.standardise(raw)
    seen = dataclasses.replace(
        labelled, bags=dataclasses.replace(labelled.bags, features=model.views(raw)[0].float().numpy())
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = CellMlp(seen.bags.n_features, len(spots.genes), "mse" if settings.loss == "mse" else "pcc")
        train_network(network, seen, of_bags, report, held_out)
    return SlideModel(model, network.eval().requires_grad_(False), spots.genes, CELL_HEAD)


def _fit_domain(model: CPNN, spots: CellSpots) -> None:
    """Learn what crops of the training cells look like, calibrated on held-out cells, or on other spots."""
    from napari_cpnn.training.fit import Axes, calibrated

    labelled = spots.labelled
    with torch.inference_mode():
        views = model.views(torch.from_numpy(labelled.bags.features))[0].numpy()
    owners = labelled.bags.owners
    known, unseen = (np.flatnonzero(np.isin(owners, rows)) for rows in (spots.train, spots.held_out))
    source = spots.held_out_name
    if len(unseen) < _LEAST_CELLS:  # a third of the spots, in their order, is measured against the others
        third = spots.train[: len(spots.train) // 3]
        known, unseen = (
            np.flatnonzero(np.isin(owners, np.setdiff1d(spots.train, third))),
            np.flatnonzero(np.isin(owners, third)),
        )
        source = "training cells, cross-fitted"
    if min(len(known), len(unseen)) < _LEAST_CELLS:
        return
    rng = np.random.default_rng(0)
    known, unseen = (np.sort(rng.choice(rows, min(len(rows), _MOST_CELLS), replace=False)) for rows in (known, unseen))
    axes = Axes.of(views[known])
    model.domain = calibrated(axes, axes.parts(views[unseen]))
    model.provenance["domain"] = {"calibrated_on": source, "n_train": len(known), "n_calibration": len(unseen)}


def _provenance(
    spots: CellSpots, protos: Prototypes, settings: CellSettings, of_bags: SlideLevelSettings
) -> dict[str, Any]:
    known = list(dict.fromkeys(part.patient for part in spots.samples if part.patient))
    slides = spots.labelled.slides
    assert slides is not None  # noqa: S101
    n_train = np.bincount(slides[spots.train], minlength=len(spots.samples))
    data = [
        {
            "slide": part.slide.name,
            **({"patient": f"patient {known.index(part.patient) + 1}"} if part.patient else {}),
            "n_spots": int(n),
        }
        for part, n in zip(spots.samples, n_train, strict=True)
        if n
    ]
    weights = Path(settings.encoder_weights).name
    between = variance_between_types(protos)
    shares = {gene: round(float(r), 4) for gene, r in zip(spots.genes, between, strict=True) if np.isfinite(r)}
    return {
        "training_data": data,
        "held_out": spots.held_out_name,
        "prototypes": protos.provenance,
        "slide_level": {**of_bags.to_dict(), "encoder_weights": weights},
        "cells": {
            **settings.to_dict(), "encoder_weights": weights, "genes": Path(settings.genes).name,
            "radius_um": [round(r, 3) for r in spots.radius_um], "n_cells": int(spots.n_cells.sum()),
            "n_spots": int(spots.n_spots.sum()), "n_spots_without_nuclei": int(spots.n_empty.sum()),
            "n_spots_left_out": spots.left_out,
        },
        **({"between_types": shares} if shares else {}),
        **({"hierarchy": protos.hierarchy} if protos.hierarchy else {}),
    }  # fmt: skip


def _held_out_scores(made: SlideModel, spots: CellSpots) -> dict[str, Any]:
    held = spots.labelled.subset(spots.held_out)
    predicted, measured = made.predict(held.bags), held.expression
    pcc, scc = pearson(predicted, measured), spearman(predicted, measured)
    summary = summarise_values(pcc, scc)
    per_gene = {gene: round(float(r), 3) for gene, r in zip(spots.genes, pcc, strict=True) if np.isfinite(r)}
    return {
        "slide": spots.held_out_name, "pcc_mean": round(summary["pcc"], 4), "scc_mean": round(summary["scc"], 4),
        "n_genes": summary["n_genes"], "per_gene_pcc": per_gene,
    }  # fmt: skip
