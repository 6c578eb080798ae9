"""Bags of patch features."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.errors import SettingsError
from napari_cpnn.training.bags import Bags


@pytest.fixture
def bags():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 4)) for n in (3, 1, 5)]
    places, areas = ([np.full((len(x), *end), i) for i, x in enumerate(parts)] for end in ((2,), ()))
    return Bags.of(parts, ["a", "b", "c"], ["p", "p", "q"], places, areas)


def test_a_bag_is_its_own_rows(bags):
    assert bags.features.dtype == np.float32
    assert bags.starts.tolist() == [0, 3, 4, 9]
    assert bags.sizes.tolist() == [3, 1, 5]
    assert bags.owners.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2]
    np.testing.assert_array_equal(bags.bag(2), bags.features[4:])
    np.testing.assert_allclose(bags.means()[0], bags.features[:3].astype(float).sum(axis=0) / 3, rtol=1e-12)
    assert bags.means().dtype == np.float64


@pytest.mark.parametrize("index", [[2, 0], np.array([True, False, True])])
def test_a_subset_keeps_rows_with_their_bag(bags, index):
    part = bags.subset(index)
    for i, name in enumerate(part.names):
        j = bags.names.tolist().index(name)
        np.testing.assert_array_equal(part.bag(i), bags.bag(j))
        assert part.patients[i] == bags.patients[j]
        assert (part.centers_um[part.owners == i] == j).all()
        assert (part.log_areas[part.owners == i] == j).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"starts": [0, 3, 3, 9]}, "No patch is in b"),
        ({"starts": [0, 3, 4, 8]}, "from 0 to 9"),
        ({"names": ["a", "b", "a"]}, "same name"),
        ({"patients": ["p", "q"]}, "one patient per bag"),
        ({"features": np.full((9, 4), np.nan)}, "not finite"),
        ({"centers_um": np.zeros((3, 2))}, "centres"),
        ({"log_areas": np.zeros(3)}, "one finite area for each of 9"),
        ({"log_areas": np.full(9, -np.inf)}, "one finite area for each of 9"),
    ],
)
def test_bags_that_do_not_fit_are_refused_in_a_sentence(bags, change, words):
    fields = {name: getattr(bags, name) for name in ("features", "starts", "names", "patients", "centers_um")}
    with pytest.raises(SettingsError, match=words):
        Bags(**(fields | change))


def test_no_bag_and_unequal_features_are_refused(bags):
    with pytest.raises(SettingsError, match="No bag"):
        bags.subset([])
    with pytest.raises(SettingsError, match="same number"):
        Bags.of([np.zeros((2, 3)), np.zeros((2, 4))], ["a", "b"])
