"""What the Fine-tune dock is given: slides with spots, prototypes or single cells, a start model. No Qt here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cpnn.errors import CellsError, PrototypesError, TrainingError
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.job import Matrix, SampleFiles

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.spots import SpotFit

#: A column with more different values names cells and not types.
_MOST_LABELS = 200


@dataclass(frozen=True, eq=False)
class SampleRow:
    """One slide with its spots in the list of the dock.

    Attributes
    ----------
    files
        As the run gets them; a fix of the positions is in ``files.moved``.
    busy
        Whether it is being looked at.
    fit
        How the spots lie on the slide; None while that is not known.
    problem
        Why it cannot be used as it is, one sentence, or how spots and slide do not fit.
    n_spots, mpp
        What was found.
    """

    files: SampleFiles
    busy: bool = True
    fit: SpotFit | None = None
    problem: str = ""
    n_spots: int = 0
    mpp: tuple[float, float] | None = None

    @property
    def usable(self) -> bool:
        """Whether the run can have it; a misfit is said, but the user decides."""
        return self.fit is not None

    @property
    def title(self) -> str:
        return self.files.name or self.files.slide.stem

    @property
    def text(self) -> str:
        """Such as ``C4: 176 spots, 97 % on tissue, 0.69 µm/px``."""
        if self.busy:
            return f"{self.title}: looking at slide and spots ..."
        if self.fit is None or self.mpp is None:
            return f"{self.title}: cannot be used"
        moved = " when moved" if self.files.moved is not None else ""
        return (
            f"{self.title}: {self.n_spots:,} spots, {self.fit.on_tissue:.0%} on tissue{moved}, {self.mpp[0]:.3g} µm/px"
        )


@dataclass(frozen=True)
class LabelColumn:
    """A column of single cells that can be the cell type or the batch: its labels with their numbers of cells."""

    name: str
    counts: dict[str, int]

    @property
    def text(self) -> str:
        """Such as ``celltype_minor (29): T-cells 2,431, CAFs 1,876, ...``."""
        first = ", ".join(f"{label} {n:,}" for label, n in list(self.counts.items())[:3])
        return f"{self.name} ({len(self.counts)}): {first}{', ...' if len(self.counts) > 3 else ''}"


@dataclass(frozen=True)
class Reference:
    """What cell types are taken from: a file of prototypes, or single cells with their columns.

    Attributes
    ----------
    types
        Prototypes only: number of cells by cell type.
    columns
        Single cells only.
    """

    path: Path
    kind: Literal["prototypes", "cells"]
    n_cells: int
    n_genes: int
    types: dict[str, int] = field(default_factory=dict)
    columns: tuple[LabelColumn, ...] = ()

    @property
    def text(self) -> str:
        if self.kind == "prototypes":
            return f"Prototypes of {len(self.types)} cell types, {self.n_genes:,} genes"
        return f"{self.n_cells:,} single cells, {self.n_genes:,} genes; prototypes are estimated when training starts"

    def likely_column(self) -> str | None:
        """The column that most probably is the cell type."""
        names = [column.name for column in self.columns]
        plain = {name: name.lower().replace("_", "").replace(" ", "").replace(".", "") for name in names}
        for wanted in ("celltype", "type", "annotation", "label", "cluster"):
            found = [name for name in names if wanted in plain[name]]
            if found:
                return found[0]
        return names[0] if names else None


def look_at_sample(files: SampleFiles) -> SampleRow:
    """Open slide and spots and see how they fit.

    Raises
    ------
    CpnnError
        They cannot be used.
    """
    from napari_cpnn.spots import check_fit, open_sample
    from napari_cpnn.spots.fit import SpotFix

    slide, spots = open_sample(files.slide, files.spots, positions=files.positions, mpp=files.mpp)
    with slide:
        if files.moved is not None:
            spots = SpotFix("", np.array(files.moved), np.nan).apply(spots)
        fit = check_fit(slide, spots)
        return SampleRow(files, busy=False, fit=fit, problem=fit.problem, n_spots=spots.n_obs, mpp=slide.mpp)


def moved_by(files: SampleFiles, matrix: Any) -> SampleFiles:
    """The same files with their positions moved once more."""
    whole = np.vstack([np.asarray(matrix, dtype=float), (0, 0, 1)])
    if files.moved is not None:
        whole = whole @ np.vstack([np.array(files.moved), (0, 0, 1)])
    (a, b, c), (d, e, f) = whole[:2].tolist()
    moved: Matrix = ((a, b, c), (d, e, f))
    return dataclasses.replace(files, moved=moved)


def look_at_reference(path: Path) -> Reference:
    """See whether a file holds prototypes or single cells, and what is in it.

    Raises
    ------
    CpnnError
        It holds neither.
    """
    from napari_cpnn.prototypes import Prototypes, read_cells

    if path.is_file() and path.suffix.lower() == ".h5ad":
        try:
            found = Prototypes.load(path)
        except PrototypesError:
            pass  # it may be single cells
        else:
            types = {name: int(n) for name, n in zip(found.cell_types, found.n_cells, strict=True)}
            return Reference(path, "prototypes", sum(types.values()), len(found.genes), types)
    cells = read_cells(path, backed=path.suffix.lower() == ".h5ad")
    columns = tuple(_label_columns(cells.obs))
    if not columns:
        raise CellsError(f"{path} has no column with labels of the cells, and so no cell types.")
    return Reference(path, "cells", cells.n_obs, cells.n_vars, columns=columns)


def _label_columns(obs: pd.DataFrame) -> list[LabelColumn]:
    """Columns of names or whole numbers with a handful of different values, the largest group first."""
    columns = []
    for name in obs.columns:
        values = obs[name]
        if values.dtype.kind == "f" or not 1 <= values.nunique() <= min(_MOST_LABELS, len(values)):
            continue
        counts = {str(label): int(n) for label, n in values.value_counts().items() if n}
        columns.append(LabelColumn(str(name), counts))
    return columns


def start_from(path: Path) -> dict[str, Any]:
    """The settings of a run whose image network starts as that of a trained model.

    Raises
    ------
    CheckpointError
        The file is no model.
    TrainingError
        Nothing of the model can be taken.
    """
    from napari_cpnn.models.card import ModelSpec, read_card

    spec = ModelSpec.from_dict(read_card(path)["model"])
    if spec.backbone in ("frozen", "triplex"):
        raise TrainingError(
            f"{path.name} cannot be a start model: its image network is {spec.backbone!r}, which a run does not go on "
            "with; choose a model with one network that learns."
        )
    return {"weights": str(path), "backbone": spec.backbone, "patch": spec.patch}


def start_text(settings: TrainingSettings) -> str:
    """What a run starts from, in one sentence."""
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
