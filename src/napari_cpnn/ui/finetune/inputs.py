"""Inputs of a training run: slides with spots, and a start model. No Qt here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.errors import CheckpointError, TrainingError
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.jobs import Matrix, SampleFiles
from napari_cpnn.untrusted import reading

if TYPE_CHECKING:
    from napari_cpnn.spots import SpotFit


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
    """

    files: SampleFiles
    busy: bool = True
    fit: SpotFit | None = None
    problem: str = ""
    n_spots: int = 0
    mpp: tuple[float, float] | None = None

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
    from napari_cpnn.spots import SpotFix, check_fit, open_sample

    slide, spots = open_sample(files.slide, files.spots, files.positions, files.mpp, files.library, check=False)
    with slide:
        if files.moved is not None:
            spots = SpotFix("", np.array(files.moved), np.nan).apply(spots)
        fit = check_fit(slide, spots)
        return SampleRow(files, busy=False, fit=fit, problem=fit.problem, n_spots=spots.n_obs, mpp=slide.mpp)


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


def start_text(settings: TrainingSettings) -> str:
    """Describe what a run starts from."""
    start = Path(settings.weights)
    if start.suffix == ".safetensors":
        patch = settings.patch
        return (
            f"Taken from {start.name}: the image network ({settings.backbone}, {patch.size_px} px at {patch.mpp:g} "
            "µm/px). The head starts from the prototypes below."
        )
    return {
        "none": "The image network starts from random weights.",
        "imagenet": "The image network starts from ImageNet weights, downloaded on first use.",
    }.get(settings.weights, f"The image network starts from {start.name}.")
