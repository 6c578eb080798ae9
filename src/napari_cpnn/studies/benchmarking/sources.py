"""Find and read the predictions of a model for each section: model files, tables, folders of tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from napari_cpnn.counts import read_h5ad_table
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import predict_expression
from napari_cpnn.models import CPNN, ZOO, load_model, model_file
from napari_cpnn.settings import BenchmarkSettings
from napari_cpnn.studies.benchmarking.sections import Section
from napari_cpnn.studies.folds import folder_names
from napari_cpnn.untrusted import to_path

Prediction: TypeAlias = CPNN | AnnData | str | os.PathLike[str]
"""A model, a table of predictions, or the path of either."""

Predictions: TypeAlias = Prediction | Sequence[Prediction] | Mapping[str, Prediction]
"""Predictions for all sections: one model or folder, or one prediction per section, in order or by name."""

MODEL_SUFFIX, TABLE_SUFFIX = ".safetensors", ".h5ad"


def find_predictions(name: str, given: Predictions, sections: Sequence[Section]) -> list[CPNN | AnnData | Path]:
    """Find the prediction for each section, without reading tables.

    Parameters
    ----------
    name
        Name of the model, for messages.
    given
        A model or the path of its file, used for all sections; a folder with one ``.h5ad`` (or ``.safetensors``) per
        section, named as the section, at any depth; a table or its path, if there is one section; or a sequence or
        mapping of these per section.

    Raises
    ------
    TrainingError
        If a section has no prediction, or several.
    """
    if isinstance(given, Mapping):
        return [_one(name, _of_section(name, given, section), section) for section in sections]
    if isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != len(sections):
            raise TrainingError(f"There are {len(given)} predictions of {name} for {len(sections)} sections.")
        return [_one(name, value, section) for value, section in zip(given, sections, strict=True)]
    if isinstance(given, CPNN):
        return [given] * len(sections)
    if not isinstance(given, AnnData):
        path = _path(name, given)
        if path.is_dir():
            return [_one(name, _in_folder(name, path, section), section) for section in sections]
        if path.suffix == MODEL_SUFFIX:
            model = load_model(path)
            return [model] * len(sections)
    if len(sections) > 1:
        raise TrainingError(
            f"{name} has one table for {len(sections)} sections; give a folder with one .h5ad per section, named as "
            f"the section ({', '.join(section.name for section in sections[:3])})."
        )
    return [_one(name, given, sections[0])]


def read_prediction(name: str, found: CPNN | AnnData | Path, section: Section, settings: BenchmarkSettings) -> AnnData:
    """Table of predictions ``(spots, genes)`` for one section; a model is applied to its slide."""
    if isinstance(found, Path):
        found = load_model(found) if found.suffix == MODEL_SUFFIX else read_h5ad_table(found, TrainingError)
    if isinstance(found, CPNN):
        compared = predict_expression(
            found,
            section.slide,
            section.spots,
            precision=settings.precision,
            ignore_gene_case=settings.ignore_gene_case,
        )
        return AnnData(np.asarray(compared.X), obs=compared.obs[[]], var=compared.var[[]])
    matrix: Any = found.X
    if matrix is None or matrix.dtype.kind not in "biuf" or not min(found.shape):
        raise TrainingError(
            f"The predictions of {name} for {section.name} have no numbers in X; X must be predicted expression, spots "
            "by genes."
        )
    values = matrix if sp.issparse(matrix) else np.asarray(matrix)
    first = ~found.var_names.duplicated()  # of genes with one name, as elsewhere
    return AnnData(values[:, first], obs=found.obs[[]], var=found.var[first])


def _of_section(name: str, given: Mapping[str, Prediction], section: Section) -> Prediction:
    for key in _names_of(section):
        if key in given:
            return given[key]
    raise TrainingError(
        f"{name} has no predictions for {section.name}; there are some for {', '.join(given) or 'none'}."
    )


def _in_folder(name: str, folder: Path, section: Section) -> Path:
    """Return the only file in a folder that is named as the section."""
    wanted = _names_of(section)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (TABLE_SUFFIX, MODEL_SUFFIX)]
    for key in wanted:
        same = [path for path in files if path.stem == key]
        if len(same) > 1:
            raise TrainingError(
                f"{folder} has {len(same)} files of {name} for {section.name}, such as {same[0].relative_to(folder)} "
                f"and {same[1].relative_to(folder)}; keep one."
            )
        if same:
            return same[0]
    there = ", ".join(path.name for path in files[:3]) or "none"
    raise TrainingError(
        f"{folder} has no predictions of {name} for {section.name}: there must be a file {wanted[0]}.h5ad, and there "
        f"is {there}."
    )


def _names_of(section: Section) -> list[str]:
    """Names under which a section may be found: its own, without extension, and as :func:`cross_validate` writes it."""
    names = [section.name, section.name.rsplit(".", 1)[0], *folder_names([section.name])]
    slide = section.slide.name
    return list(dict.fromkeys([*names, slide, slide.rsplit(".", 1)[0], *folder_names([slide])]))


def _one(name: str, value: Prediction, section: Section) -> CPNN | AnnData | Path:
    if isinstance(value, CPNN | AnnData):
        return value
    path = _path(name, value)
    if path.suffix not in (TABLE_SUFFIX, MODEL_SUFFIX) or not path.is_file():
        raise TrainingError(
            f"{path} is not the prediction of {name} for {section.name}: it must be a table (.h5ad) or a model "
            "(.safetensors)."
        )
    return path


def _path(name: str, value: Any) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise TrainingError(
            f"The predictions of {name} are of type {type(value).__name__}; give models, AnnData or paths."
        )
    path = to_path(value, TrainingError)
    # A model of the package by its name.
    return model_file(str(value)) if str(value) in ZOO and not path.exists() else path
