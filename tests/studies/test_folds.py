"""What is tested together, and what is said about groups that make no folds."""

from __future__ import annotations

import pandas as pd
import pytest

from napari_cpnn.errors import TrainingError
from napari_cpnn.studies.folds import Fold, distinct, folder_names, make_folds, sample_labels


@pytest.fixture
def samples(world):
    """Sections of three patients: C2, B4, C3, A1."""
    result = [world.sample(i, rows=2, cols=3, name=name) for i, name in enumerate(("C2", "B4.jpg", "C3", "A1"))]
    for _, spots in result:
        spots.obs["nothing"] = None
    for (_, spots), patient in zip(result, "CBCA", strict=True):
        spots.obs["patient"] = patient
        spots.uns["donor"] = patient
    return result


PATIENTS = [Fold("C", (0, 2), (1, 3)), Fold("B", (1,), (3, 0, 2)), Fold("A", (3,), (0, 2, 1))]


@pytest.mark.parametrize(
    "groups", ["patient", "donor", list("CBCA"), {"C2": "C", "C3": "C", "B4": "B", "A1": "A"}], ids=str
)
def test_a_group_is_tested_together_and_never_trained_on(samples, groups):
    assert make_folds(samples, groups) == PATIENTS


def test_every_section_by_itself(samples):
    folds = make_folds(samples, "section")
    assert [fold.name for fold in folds] == ["C2", "B4.jpg", "C3", "A1"]
    assert all(
        set(fold.test) | set(fold.train) == {0, 1, 2, 3} and not set(fold.test) & set(fold.train) for fold in folds
    )


def test_the_last_to_learn_from_is_of_the_group_before(samples):
    """The default of training is to hold out the last slide, so each group serves once."""
    folds = make_folds(samples, "patient")
    assert [samples[fold.train[-1]][0].name for fold in folds] == ["A1", "C3", "B4.jpg"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("batch", r"no 'batch' in obs; give the groups as a list"),
        ("nothing", r"must have one 'nothing' in obs, and there is no value"),
        (["C"] * 4, r"All 4 samples belong to the group 'C'"),
        (["C", "B"], r"There are 2 groups for 4 samples"),
        ({"C2": "C"}, r"No group is given for the slide B4.jpg"),
    ],
    ids=str,
)
def test_groups_that_make_no_folds(samples, groups, message):
    with pytest.raises(TrainingError, match=message):
        make_folds(samples, groups)


def test_spots_of_two_patients_in_one_table(samples):
    spots = samples[0][1]
    spots.obs["patient"] = pd.Categorical(["C", "D"] * 3)
    with pytest.raises(TrainingError, match="and there is C, D; split the table"):
        make_folds(samples, "patient")


def test_no_samples():
    with pytest.raises(TrainingError, match="nothing to cross-validate"):
        make_folds([])


def test_slides_of_one_name(samples, world):
    samples.append(world.sample(9, rows=2, cols=3, name="C2"))
    assert sample_labels(samples) == ["C2", "B4.jpg", "C3", "A1", "C2-2"]
    assert make_folds(samples, "section")[-1].name == "C2-2"


def test_folders_are_distinct_on_every_system():
    assert distinct(["a", "a", "a-2", "a"]) == ["a", "a-2", "a-2-2", "a-3"]
    assert folder_names(["ST-Net/MSE", "ST-Net MSE", "st-net_mse", "..", "β"]) == [
        "ST-Net_MSE",
        "ST-Net_MSE-2",
        "st-net_mse-3",
        "group",
        "β",
    ]
