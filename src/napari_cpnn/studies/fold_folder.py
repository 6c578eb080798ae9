"""Folder of one head and fold, from which an interrupted cross-validation is resumed.

``fold.json``
    Training and test data and settings; written first. A folder belongs to exactly one fold.
``run/``
    The training run (see :mod:`napari_cpnn.training.fit.run_folder`).
``trained.json``
    Written when the run is complete.
``<slide>.h5ad``
    Predicted and measured expression of the tested spots (see :mod:`napari_cpnn.evaluation.predictions`).
``<slide>.csv``, ``scores.json``
    Scores per gene, and scores of whole slides with the evaluation settings used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from napari_cpnn.counts import read_h5ad_table
from napari_cpnn.errors import SettingsError, TrainingError
from napari_cpnn.evaluation import read_table, write_table
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.settings import EvaluationSettings, TrainingSettings
from napari_cpnn.slides import Slide
from napari_cpnn.spots import counts_matrix, with_positions
from napari_cpnn.storage import sweep, whole_file, write_h5ad
from napari_cpnn.studies.folds import folder_names
from napari_cpnn.training.fit import FREE, RUN_FILES
from napari_cpnn.untrusted import read_json, reading

FORMAT = 1

#: Evaluation settings that change the scores of a slide.
_SCORING = ("ceiling_repeats", "spatial", "precision", "ignore_gene_case")


class FoldFolder:
    """Read and write the folder; nothing is created before :meth:`start`.

    Parameters
    ----------
    path
        The folder.
    head, fold
        Names of head and fold.
    slides
        Labels of the tested slides.
    """

    def __init__(self, path: Path, head: str, fold: str, slides: Sequence[str]) -> None:
        self.path, self.head, self.fold = path, head, fold
        self.run_path = path / "run"
        self.model_path = self.run_path / "model.safetensors"
        self._names = dict(zip(slides, folder_names(slides), strict=True))

    @classmethod
    def all_in(cls, out: Path) -> list[FoldFolder]:
        """All fold folders of a cross-validation."""
        found = []
        for path in sorted(out.glob("*/*/fold.json")):
            facts = _read_json(path)
            try:
                found.append(cls(path.parent, facts["head"], facts["fold"], list(facts["tested"])))
            except (KeyError, TypeError, AttributeError) as error:
                raise TrainingError(f"{path} is damaged ({error}); delete its folder to run the fold again.") from error
        return found

    def start(self, settings: TrainingSettings, facts: Mapping[str, Any]) -> None:
        """Create the folder, or check that it was created with these settings and facts.

        Raises
        ------
        TrainingError
            If the folder contains another fold; the message names the differences.
        """
        facts = {"format": FORMAT, "head": self.head, "fold": self.fold, **facts}
        path = self.path / "fold.json"
        if not path.exists():
            _write_json(path, {**facts, "settings": _what_counts(settings)})
            return
        there = _read_json(path)
        changed = [name for name, value in facts.items() if there.get(name) != value]
        try:
            before = _what_counts(TrainingSettings.from_written(there.get("settings", {})))
        except SettingsError as error:
            raise TrainingError(f"{path} was written by another version of napari-cpnn: {error}") from error
        now = _what_counts(settings)
        changed += [name for name in now if now[name] != before[name]]
        if changed:
            raise TrainingError(
                f"{self.path} holds a fold with another {', '.join(changed)}; "
                "choose another folder for this cross-validation, or delete that one."
            )

    @property
    def is_trained(self) -> bool:
        return (self.path / "trained.json").exists()

    def clear_unusable_run(self) -> bool:
        """Delete a run that cannot be resumed; return whether there is one that can."""
        unfinished = (self.run_path / "resume.safetensors").exists()
        if self.run_path.exists() and not unfinished:
            sweep(self.run_path)
            for name in RUN_FILES:
                (self.run_path / name).unlink(missing_ok=True)
        return unfinished

    def finish_training(self) -> bool:
        """Mark the run as complete; return False if it was interrupted."""
        if (self.run_path / "resume.safetensors").exists():
            return False
        _write_json(self.path / "trained.json", {"model": "run/model.safetensors"})
        return True

    def write_predictions(self, slide: str, compared: AnnData) -> None:
        path = self.path / f"{self._names[slide]}.h5ad"
        with whole_file(path, TrainingError) as unfinished:
            write_h5ad(compared, unfinished, compression="gzip")

    def read_predictions(self, slide: str) -> AnnData | None:
        """Read the predictions for a slide; None if there are none yet."""
        path = self.path / f"{self._names[slide]}.h5ad"
        return read_h5ad_table(path, TrainingError) if path.exists() else None

    def write_scores(self, scores: Mapping[str, pd.DataFrame], settings: EvaluationSettings) -> None:
        for slide, table in scores.items():
            write_table(table.reset_index(), self.path / f"{self._names[slide]}.csv")
        slides = {slide: table.attrs for slide, table in scores.items()}
        _write_json(self.path / "scores.json", {"settings": _scoring(settings), "slides": slides})

    def read_scores(self, settings: EvaluationSettings) -> dict[str, pd.DataFrame]:
        """Read the scores by slide, omitting those made with other evaluation settings."""
        path = self.path / "scores.json"
        facts = _read_json(path) if path.exists() else {}
        if facts.get("settings") is None or {**_scoring(EvaluationSettings()), **facts["settings"]} != _scoring(
            settings
        ):
            return {}
        scores = {}
        with reading(path, TrainingError, "delete its folder to run the fold again"):
            for slide, attrs in facts["slides"].items():
                if slide in self._names:
                    scores[slide] = read_table(self.path / f"{self._names[slide]}.csv").set_index("gene")
                    scores[slide].attrs = dict(attrs)
        return scores


def sample_key(slide: Slide, spots: AnnData) -> str:
    """Hash of a slide's name, shape and pixel size, and of its spots' counts, positions and genes."""
    key = hashlib.sha256(repr((slide.name, slide.shape, slide.mpp)).encode())
    counts = counts_matrix(spots)
    for values in (counts.indptr, counts.indices, counts.data):
        key.update(np.asarray(values, dtype=np.float64).tobytes())
    placed = with_positions(spots, f"The table of spots of {slide.name}")
    key.update(np.asarray(placed.obsm.get("spatial", ()), dtype=np.float64).tobytes())
    key.update("\n".join(map(str, spots.var_names)).encode())
    return key.hexdigest()[:16]


def prototypes_key(prototypes: Prototypes) -> str:
    """Hash of profiles and names."""
    key = hashlib.sha256(np.ascontiguousarray(prototypes.profiles).tobytes())
    key.update(repr((prototypes.cell_types, prototypes.genes)).encode())
    return key.hexdigest()[:16]


def _what_counts(settings: TrainingSettings) -> dict[str, Any]:
    """Settings that affect the result of training."""
    return {name: value for name, value in settings.to_dict().items() if name not in FREE}


def _scoring(settings: EvaluationSettings) -> dict[str, Any]:
    return {name: value for name, value in settings.to_dict().items() if name in _SCORING}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path, TrainingError))
    except (TrainingError, ValueError, TypeError) as error:
        raise TrainingError(f"{path} is damaged ({error}); delete its folder to run the fold again.") from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with whole_file(path, TrainingError) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
