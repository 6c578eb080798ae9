"""Description of a training run as one file: data, settings and output folder.

The command line, the dock and cluster schedulers start runs from the same JSON. The run folder stores it as
``job.json``, so that a run can be monitored and resumed given only its folder. torch is not imported here.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from napari_cpnn.errors import TrainingError
from napari_cpnn.geometry import Mpp
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.storage import require_separate, whole_file
from napari_cpnn.untrusted import read_json, reading, to_path

#: Version of the file format.
FORMAT = 1

#: File name of the job in its run folder.
JOB_FILE = "job.json"

#: File name of prototypes estimated by the run.
PROTOTYPES_FILE = "prototypes.h5ad"
#: Other files that a run writes into its folder.
_WRITTEN = (
    "settings.json", "metrics.csv", "curves.png", "model.safetensors", "resume.safetensors", "events.jsonl", "log.txt",
)  # fmt: skip

Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Affine transformation of positions: rows of a ``(2, 3)`` matrix."""


@dataclass(frozen=True)
class SampleFiles:
    """Files of one slide and its spots.

    Attributes
    ----------
    slide, spots, positions, mpp, library
        As for :func:`~napari_cpnn.spots.open_sample`.
    name
        Name of the slide in messages and in the model's card; empty: the file name.
    moved
        New ``(x, y) = moved @ (x, y, 1)`` in level-0 pixels, for spots whose positions do not match the slide
        (see :func:`~napari_cpnn.spots.check_fit`).
    registration
        File of the :class:`~napari_cpnn.registration.Registration` by which the spots come to lie on the slide.
    """

    slide: Path
    spots: Path
    positions: Path | None = None
    mpp: float | Mpp | None = None
    name: str = ""
    moved: Matrix | None = None
    library: str | None = None
    registration: Path | None = None


@dataclass(frozen=True)
class CellsFile:
    """Single-cell file to estimate prototypes from, with the names of its cell type and batch columns.

    ``min_cells`` is that of :class:`~napari_cpnn.PrototypeSettings`.
    """

    path: Path
    cell_type: str
    batch: str | None = None
    min_cells: int | None = None


@dataclass(frozen=True)
class TrainingJob:
    """Training run that can be started in any process.

    Attributes
    ----------
    samples
        Slides with their spots.
    prototypes
        File of prototypes, or of the single cells to estimate them from.
    settings
        Settings of model and training. To start from a trained model, set ``weights`` to its file.
    out
        The run folder.
    resume
        Resume the run in that folder.
    """

    samples: tuple[SampleFiles, ...]
    prototypes: Path | CellsFile
    settings: TrainingSettings
    out: Path
    resume: bool = False

    def replace(self, **changes: Any) -> Self:
        """Return a copy with changed values."""
        return dataclasses.replace(self, **changes)

    def check(self) -> None:
        """Validate the job without opening slides.

        Raises
        ------
        TrainingError
            If there are no samples, a file is missing, the run would overwrite an input file, or its folder contains a
            trained model.
        """
        if not self.samples:
            raise TrainingError("There is nothing to learn from; add a slide with its spots.")
        cells = self.prototypes.path if isinstance(self.prototypes, CellsFile) else self.prototypes
        given = [file for s in self.samples for file in (s.slide, s.spots, s.positions, s.registration)]
        files = [file for file in given if file is not None]
        for file in [*files, cells]:
            if not to_path(file, TrainingError).exists():
                raise TrainingError(f"There is no file or folder {file}.")
        to_path(self.out, TrainingError)
        require_separate([self.out], [*files, cells], TrainingError)
        estimated = [self.out / PROTOTYPES_FILE] if isinstance(self.prototypes, CellsFile) else []
        require_separate([*(self.out / name for name in _WRITTEN), *estimated], [*files, cells], TrainingError)
        model = self.out / "model.safetensors"
        if model.exists() and not self.resume:
            raise TrainingError(f"{self.out} already holds a trained model; choose another folder or resume the run.")

    def remove_earlier_run(self) -> None:
        """Delete the files of an earlier run in the folder, if this job could be run in their place.

        Raises
        ------
        TrainingError
            As :meth:`check`, or if they cannot be deleted.
        """
        self.replace(resume=True).check()
        try:
            for name in _WRITTEN:
                (self.out / name).unlink(missing_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.out} could not be cleared: {error.strerror or error}.") from error

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types, with absolute paths."""
        return {
            "format": FORMAT,
            "samples": [_plain(sample) for sample in self.samples],
            "prototypes": _plain(self.prototypes),
            "settings": self.settings.to_dict(),
            "out": str(self.out.absolute()),
            "resume": self.resume,
        }

    def write(self, path: str | Path) -> None:
        """Write to a file; raise a :class:`TrainingError` if it cannot be written."""
        with whole_file(Path(path), TrainingError) as unfinished:
            unfinished.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> TrainingJob:
        """Read a job; relative paths in it are relative to the file's folder.

        Only ``samples``, ``prototypes`` and ``out`` are required; missing settings have their defaults.

        Raises
        ------
        TrainingError
            If the file is missing or invalid.
        SettingsError
            If a setting is unknown or has an invalid value.
        """
        path = to_path(path, TrainingError)
        data = read_json(path, TrainingError)
        with reading(path, TrainingError, "it describes no training run"):
            if not isinstance(data, dict):
                raise TrainingError(f"{path} describes no training run.")
            if data.get("format", FORMAT) > FORMAT:
                raise TrainingError(f"{path} was written by a newer version of napari-cpnn; update napari-cpnn.")
            missing = next((name for name in ("samples", "prototypes", "out") if name not in data), None)
            if missing is not None:
                raise TrainingError(f"{path} describes no training run: {missing!r} is missing.")
            home = path.absolute().parent
            resume = bool(data.get("resume", False))
            read_settings = TrainingSettings.from_written if resume else TrainingSettings.from_dict
            return cls(
                samples=tuple(_sample(item, home) for item in data["samples"]),
                prototypes=_prototypes(data["prototypes"], home),
                settings=read_settings(_table(data.get("settings", {}))),
                out=home / data["out"],
                resume=resume,
            )


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    found = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    # Defaults are omitted.
    return {k: str(v.absolute()) if isinstance(v, Path) else v for k, v in found.items() if v not in (None, "")}


def _sample(data: Mapping[str, Any], home: Path) -> SampleFiles:
    moved = data.get("moved")
    return SampleFiles(
        slide=home / data["slide"],
        spots=home / data["spots"],
        positions=home / data["positions"] if data.get("positions") else None,
        mpp=_mpp(data.get("mpp")),
        name=str(data.get("name", "")),
        moved=None if moved is None else _matrix(moved),
        library=None if data.get("library") is None else str(data["library"]),
        registration=home / data["registration"] if data.get("registration") else None,
    )


def _table(said: Any) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise TypeError("its settings are no table")
    return said


def _mpp(said: Any) -> float | Mpp | None:
    if said is None:
        return None
    numbers = [float(value) for value in (said if isinstance(said, list) else [said])]
    if not all(math.isfinite(value) and value > 0 for value in numbers) or len(numbers) > 2:
        raise ValueError("'mpp' is no pixel size")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _matrix(rows: Any) -> Matrix:
    first, second = ([float(value) for value in row] for row in rows)
    if len(first) != 3 or len(second) != 3 or not all(map(math.isfinite, [*first, *second])):
        raise ValueError("'moved' is no matrix of two rows with three numbers each")
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])


def _prototypes(data: Any, home: Path) -> Path | CellsFile:
    if isinstance(data, str):
        return home / data
    least = data.get("min_cells")
    if least is not None and (type(least) is not int or least < 0):
        raise ValueError("'min_cells' is no number of cells")
    return CellsFile(home / data["path"], str(data["cell_type"]), data.get("batch"), least)
