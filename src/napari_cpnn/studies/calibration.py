"""Calibrate a model by a cross-validation: intervals and trusted scales from slides that were not seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from anndata import AnnData

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import HeldOutSpots, fit_trust
from napari_cpnn.models import CPNN
from napari_cpnn.prototypes import Prototypes, deconvolve
from napari_cpnn.studies.report import held_out_slides
from napari_cpnn.untrusted import reading

#: Least share of genes that a model and those of its cross-validation, with fewer slides, have in common.
_SAME = 0.7


def calibrate(
    model: CPNN,
    run: str | Path,
    prototypes: Prototypes | None = None,
    head: str | None = None,
    patients: Mapping[str, str] | None = None,
) -> CPNN:
    """Calibrate a model, in place, by the predictions of a cross-validation of its settings.

    Intervals then hold for what the cross-validation tested: new slides of known patients if its groups were slides,
    new patients if they were patients.

    Parameters
    ----------
    model
        The model, trained on all slides with the settings of the cross-validation.
    run
        Output folder of :func:`~napari_cpnn.cross_validate`.
    prototypes
        Prototypes by which the tested spots are deconvolved, to calibrate the cell types too.
    head
        Name of the head in the cross-validation; by default its first.
    patients
        Patient of each tested slide; by default each fold is one. Patients have equal weights.

    Returns
    -------
    CPNN
        The same model, with ``trust``.

    Raises
    ------
    TrainingError
        If there is no such cross-validation or head, it is of another model, or fewer than 20 spots were tested.

    Examples
    --------
    >>> from napari_cpnn.studies import calibrate
    >>> settings = nc.TrainingSettings(
    ...     backbone="squeezenet", weights="none", patch=nc.PatchSpec(32, 2.0), max_epochs=1, validation="none"
    ... )
    >>> other = nc.Slide.from_arrays([255 - level for level in slide.levels], slide.mpp, name="other")
    >>> samples = [(slide, spots[::16].copy()), (other, spots[8::16].copy())]
    >>> scores = nc.cross_validate(samples, protos, settings, groups=["1", "2"], out="runs/folds", progress=False)
    >>> trained = nc.train(samples, protos, settings, out="runs/all", progress=False)
    >>> calibrate(trained, "runs/folds").provenance["trust"]["n_slides"]
    2
    """
    slides, names = [], []
    for tested in held_out_slides(run):
        if head is None:
            head = next(iter(tested.heads))
        if head not in tested.heads:
            raise TrainingError(
                f"The cross-validation in {run} has no head {head!r}; it has {', '.join(tested.heads)}."
            )
        table = tested.heads[head]
        patient = tested.fold if patients is None else patients.get(tested.slide, tested.fold)
        with reading(f"The predictions for {tested.slide} in {run}", TrainingError, "run the cross-validation again"):
            _require_same_model(model, table, run)
            shares = None if prototypes is None else _shares(table, prototypes, model.cell_types)
            slides.append(HeldOutSpots.of_table(table, model.genes, patient, shares))
        names.append(tested.slide)
    model.trust = fit_trust(slides, len(model.genes))
    model.provenance["trust"] = {
        "calibrated_on": f"cross-validation, {', '.join(names)}",
        "n_spots": sum(len(slide.places_um) for slide in slides),
        "n_slides": len(slides),
        "n_patients": len({slide.patient for slide in slides}),
    }
    return model


def _require_same_model(model: CPNN, table: AnnData, run: str | Path) -> None:
    """Raise a :class:`TrainingError` unless predictions are of a model with these genes and cell types."""
    types = getattr(table.obsm["weights"], "columns", range(np.shape(table.obsm["weights"])[1]))
    if list(types) != list(model.cell_types):
        raise TrainingError(f"The cross-validation in {run} is of a model with other cell types than this one.")
    if len({*table.var_names} & {*model.genes}) < _SAME * max(len(model.genes), table.n_vars):
        raise TrainingError(f"The cross-validation in {run} is of a model with other genes than this one.")


def _shares(table: AnnData, prototypes: Prototypes, cell_types: tuple[str, ...]) -> FloatArray | None:
    """Deconvolved shares ``(n, C)`` of tested spots, in the order of the model's cell types; NaN for unknown types."""
    if not cell_types:
        return None
    spots = AnnData(
        table.layers["counts"], obs=table.obs[[]], var=table.var[[]], layers={"counts": table.layers["counts"]}
    )
    shares = deconvolve(spots, prototypes)
    return np.asarray(shares.reindex(columns=list(cell_types)), dtype=np.float64)
