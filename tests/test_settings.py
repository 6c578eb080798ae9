"""Settings: plain JSON in and out, and no value that makes no sense."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_cpnn.errors import SettingsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings import (
    BenchmarkSettings,
    BulkSettings,
    DeconvolutionSettings,
    EvaluationSettings,
    ExportSettings,
    FigureSettings,
    MappingSettings,
    PrototypeSettings,
    RegionSettings,
    SlideLevelSettings,
    TissueSettings,
    TrainingSettings,
)

ALL = (
    TissueSettings, PrototypeSettings, TrainingSettings, MappingSettings, FigureSettings, ExportSettings,
    SlideLevelSettings, BulkSettings,
)  # fmt: skip


@pytest.mark.parametrize("kind", ALL)
def test_json_round_trip(kind: type[Any]) -> None:
    assert kind.from_dict(json.loads(json.dumps(kind().to_dict()))) == kind()


def test_round_trip_of_changed_values() -> None:
    training = TrainingSettings(patch=PatchSpec(128, 0.25), n_programs=0, validation="C4")
    again = TrainingSettings.from_dict(json.loads(json.dumps(training.to_dict())))
    assert again == training
    assert isinstance(again.patch, PatchSpec)
    mapping = MappingSettings(tissue=TissueSettings(mpp=8.0), stride_um=56.0)
    assert MappingSettings.from_dict(json.loads(json.dumps(mapping.to_dict()))) == mapping


@pytest.mark.parametrize("kind", ALL)
def test_every_setting_has_help_for_the_command_line(kind: type[Any]) -> None:
    for f in dataclasses.fields(kind):
        if f.name not in ("tissue", "figure"):  # groups of their own
            assert f.metadata["help"], f.name


@pytest.mark.parametrize("kind", ALL)
def test_frozen_and_unknown_names(kind: type[Any]) -> None:
    name = dataclasses.fields(kind)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(), name, 1)
    with pytest.raises(SettingsError, match=f"{kind.__name__} has no setting colour, shape"):
        kind.from_dict({"shape": 1, "colour": 2})


def test_a_value_of_the_wrong_type() -> None:
    with pytest.raises(SettingsError, match="TrainingSettings has a value of the wrong type"):
        TrainingSettings.from_dict({"max_epochs": "three"})


@pytest.mark.parametrize("kind", [*ALL, BenchmarkSettings, DeconvolutionSettings, EvaluationSettings, RegionSettings])
def test_no_value_of_any_setting_is_a_bare_error(kind: type[Any]) -> None:
    """Each setting in turn with values of other types: a good value, or one sentence."""
    for field in dataclasses.fields(kind):
        for value in ("x", None, [1], (1, 2), {}, 3, 2.5, True, object(), float("nan")):
            try:
                made = kind(**{field.name: value})
            except SettingsError as error:
                assert str(error).endswith(".")  # noqa: PT017
            else:
                assert type(getattr(made, field.name)) is type(value)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (
            FigureSettings,
            {"scale_um": "400"},
            "The setting scale_um of FigureSettings must be a number or None, not '400' (str).",
        ),
        (FigureSettings, {"dpi": 99.5}, "The setting dpi of FigureSettings must be a whole number, not 99.5 (float)."),
        (FigureSettings, {"smooth": 1}, "The setting smooth of FigureSettings must be True or False, not 1 (int)."),
        (FigureSettings, {"opacity": True}, "The setting opacity of FigureSettings must be a number, not True (bool)."),
        (MappingSettings, {"tissue": 3}, "The setting tissue of MappingSettings must be TissueSettings, not 3 (int)."),
        (
            TrainingSettings,
            {"patch": (224, 1)},
            "The setting patch of TrainingSettings must be a PatchSpec, not (224, 1) (tuple).",
        ),
    ],
)
def test_a_value_of_another_type_names_its_setting(kind: type[Any], values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        kind(**values)
    assert str(caught.value) == message


def test_numbers_of_numpy_and_paths_are_taken() -> None:
    made = FigureSettings(dpi=np.int64(100), scale_um=np.float32(400), smooth=np.bool_(False), opacity=1)
    assert (made.dpi, made.scale_um, made.smooth, made.opacity) == (100, 400, False, 1)
    assert MappingSettings(cache_dir=Path("maps")).to_dict()["cache_dir"] == "maps"


def test_replace_checks_again() -> None:
    assert TrainingSettings().replace(max_epochs=3).max_epochs == 3
    with pytest.raises(SettingsError):
        TrainingSettings().replace(max_epochs=0)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (TissueSettings, {"mpp": 0}),
        (TissueSettings, {"min_coverage": 0}),
        (TissueSettings, {"min_coverage": 1.1}),
        (PrototypeSettings, {"method": "median"}),
        (PrototypeSettings, {"max_mito": 0}),
        (TrainingSettings, {"head": "mlp"}),
        (TrainingSettings, {"loss": "mae"}),
        (TrainingSettings, {"prototype_mode": "none"}),
        (PrototypeSettings, {"min_cells": -1}),
        (TrainingSettings, {"n_programs": -1}),
        (TrainingSettings, {"patience": 0}),
        (TrainingSettings, {"precision": "float8"}),
        (TrainingSettings, {"composition_weight": -1}),
        (TrainingSettings, {"composition_loss": "cosine"}),
        (TrainingSettings, {"max_epochs": 0}),
        (TrainingSettings, {"batch_size": 1}),
        (TrainingSettings, {"min_spot_fraction": 1}),
        (TrainingSettings, {"learning_rate": 0}),
        (MappingSettings, {"max_batch": 0}),
        (MappingSettings, {"coarsest": 12}),
        (MappingSettings, {"coarsest": 0}),
        (MappingSettings, {"stride_um": 0}),
        (MappingSettings, {"batch_seconds": 0}),
        (MappingSettings, {"margin": -1}),
        (MappingSettings, {"precision": "half"}),
    ],
)
def test_values_that_make_no_sense(kind: type[Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        kind(**wrong)


def test_presets() -> None:
    paper = TrainingSettings.paper(max_epochs=5)
    assert (paper.n_programs, paper.composition_weight, paper.head, paper.max_epochs) == (0, 0.0, "cpnn", 5)
    assert TrainingSettings.plain().head == "linear"
    assert TrainingSettings.paper(n_programs=4).n_programs == 4


def test_settings_of_before_a_setting_existed_keep_what_they_meant() -> None:
    written = TrainingSettings(deconvolution="nnls").to_dict()
    del written["composition_loss"]
    assert TrainingSettings.from_written(written).composition_loss == "squares"
    assert TrainingSettings.from_dict(written).composition_loss == TrainingSettings().composition_loss == "pcc"
    assert TrainingSettings.from_written(TrainingSettings().to_dict()) == TrainingSettings()
    with pytest.raises(SettingsError):
        TrainingSettings.from_written([])  # type: ignore[arg-type]
