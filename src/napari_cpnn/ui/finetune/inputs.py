"""Inputs of a training run: slides with spots, and a start model. No Qt here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_cpnn.errors import CheckpointError, TrainingError
from napari_cpnn.settings import TRAINING_PRESETS, TrainingSettings
from napari_cpnn.training.jobs import Matrix, SampleFiles
from napari_cpnn.untrusted import reading

if TYPE_CHECKING:
    from napari_cpnn.spots import SpotFit
    from napari_cpnn.ui.viewer import ModelEntry, Reference


#: A model of fewer genes deserves a warning.
_FEW_GENES = 500


@dataclass(frozen=True, eq=False)
class SampleRow:
    """Slide with its spots in the list of the dock.

    Attributes
    ----------
    files
        Files of the run; a fix of the positions is in ``files.moved``.
    busy
        True while the files are being read.
    fit
        Fit between spots and slide; None while unknown.
    problem
        Why the sample cannot be used, or how spots and slide do not fit; one sentence.
    n_spots, mpp
        Number of spots, and pixel size.
    detected
        Number of spots with a count of each gene.
    """

    files: SampleFiles
    busy: bool = True
    fit: SpotFit | None = None
    problem: str = ""
    n_spots: int = 0
    mpp: tuple[float, float] | None = None
    detected: pd.Series | None = None

    @property
    def usable(self) -> bool:
        """True when the sample can be trained on; a poor fit is only a warning."""
        return self.fit is not None

    @property
    def title(self) -> str:
        return self.files.name or self.files.slide.stem

    @property
    def text(self) -> str:
        """Description, such as ``C4: 176 spots, 97 % on tissue, 0.69 µm/px``."""
        if self.busy:
            return f"{self.title}: reading slide and spots ..."
        if self.fit is None or self.mpp is None:
            return f"{self.title}: cannot be used"
        moved = " when moved" if self.files.moved is not None else ""
        return (
            f"{self.title}: {self.n_spots:,} spots, {self.fit.on_tissue:.0%} on tissue{moved}, {self.mpp[0]:.3g} µm/px"
        )


def inspect_sample(files: SampleFiles) -> SampleRow:
    """Read slide and spots and check their fit.

    Raises
    ------
    CpnnError
        The files cannot be used.
    """
    from napari_cpnn.spots import check_fit, counts_matrix
    from napari_cpnn.training.jobs import open_files

    slide, spots = open_files(files, check=False)
    with slide:
        fit = check_fit(slide, spots)
        found = pd.Series(np.asarray((counts_matrix(spots) > 0).sum(axis=0)).ravel(), index=spots.var_names)
        return SampleRow(files, False, fit, fit.problem, spots.n_obs, slide.mpp, found)


def moved_by(files: SampleFiles, matrix: Any) -> SampleFiles:
    """Return the files with their positions transformed once more."""
    whole = np.vstack([np.asarray(matrix, dtype=float), (0, 0, 1)])
    if files.moved is not None:
        whole = whole @ np.vstack([np.array(files.moved), (0, 0, 1)])
    (a, b, c), (d, e, f) = whole[:2].tolist()
    moved: Matrix = ((a, b, c), (d, e, f))
    return dataclasses.replace(files, moved=moved)


def start_from(path: Path) -> dict[str, Any]:
    """Return the settings of a run whose image network starts as that of a trained model.

    Raises
    ------
    CheckpointError
        The file is not a model.
    TrainingError
        The image network of the model cannot be trained further.
    """
    from napari_cpnn.models import ModelSpec, read_card

    with reading(path, CheckpointError, "get the file again"):
        spec = ModelSpec.from_dict(read_card(path)["model"])
    if spec.backbone in ("frozen", "triplex"):
        raise TrainingError(
            f"{path.name} cannot be a start model: its image network {spec.backbone!r} cannot be trained further; "
            "choose a model with one trained network."
        )
    return {"weights": str(path), "backbone": spec.backbone, "patch": spec.patch}


def why_no_start(entry: ModelEntry) -> str:
    """Say why a run cannot start from a model of the list; empty if it can."""
    return "It has a frozen encoder, which cannot be trained further." if entry.frozen else ""


def start_text(settings: TrainingSettings) -> str:
    """Describe what a run starts from."""
    start = Path(settings.weights)
    if start.suffix == ".safetensors":
        patch = settings.patch
        return (
            f"Taken from {start.name}: the image network ({settings.backbone}, {patch.size_px} px at {patch.mpp:g} "
            "µm/px). The head starts from the cell types above."
        )
    return {
        "none": "The image network starts from random weights.",
        "imagenet": "The image network starts from ImageNet weights, downloaded on first use.",
    }.get(settings.weights, f"The image network starts from the weights in {start.name}.")


def learned_text(rows: Sequence[SampleRow], reference: Reference | None, settings: TrainingSettings) -> str:
    """Say how many genes a run will learn, and where the others are lost; empty while it is not known."""
    tables = [row.detected for row in rows if row.detected is not None]
    if reference is None or len(tables) < max(len(rows), 1) or settings.genes not in ("shared", "variable", "abundant"):
        return ""
    fold = str.upper if settings.ignore_gene_case else str
    known = {fold(gene) for gene in reference.genes}
    named = [table.groupby(table.index.map(fold)).max() for table in tables]
    shared = sorted(known.intersection(*(table.index for table in named)))
    n_spots = sum(row.n_spots for row in rows)
    found = sum(table.reindex(shared).to_numpy() for table in named)
    n = int((np.asarray(found) >= settings.min_spot_fraction * n_spots).sum()) if shared else 0
    text = (
        f"Of {len(known):,} genes in {reference.path.name}, {len(shared):,} were measured in the spots, and {n:,} of "
        f"these in at least {settings.min_spot_fraction:.0%} of them"
    )
    if settings.genes != "shared":
        text, n = f"{text}; the {settings.genes} {min(n, settings.n_genes):,} are kept", min(n, settings.n_genes)
    few = n < _FEW_GENES
    about = "at most" if reference.kind == "cells" else "about"  # cells have filters of their own
    return f"{'⚠ ' if few else ''}{text}: {about} {n:,} genes are learned."


def as_changes(settings: TrainingSettings) -> tuple[str, dict[str, Any]]:
    """The preset that explains settings with the fewest changes, and these."""
    names = [f.name for f in dataclasses.fields(settings)]
    found = []
    for preset, make in TRAINING_PRESETS.items():
        start = make()
        found.append((preset, {n: getattr(settings, n) for n in names if getattr(settings, n) != getattr(start, n)}))
    return min(found, key=lambda item: len(item[1]))
