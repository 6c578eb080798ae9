"""Maps of major types: sums of minor types, the same expression, and what is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from map_world import GENES, TYPES, make_world, trust_of
from napari_cpnn.errors import MappingError, SettingsError
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.regions import Region, explain_gene, summarise_regions
from napari_cpnn.settings import RegionSettings

HIERARCHY = {"B cells": "Lymphoid", "T/NK cells": "Lymphoid", "Epithelial": "Epithelial", "CAFs": "Stroma"}
MAJORS = ("Lymphoid", "Epithelial", "Stroma")
#: Minor types of each major type, by hand.
PARTS = {"Lymphoid": [0, 1], "Epithelial": [2], "Stroma": [3]}


@pytest.fixture
def world():
    made = make_world()
    made.cmap.hierarchy = HIERARCHY
    return made


def sums(world):
    """Shares of major types of the done patches ``(n, 3)``, by hand."""
    w = world.weights[world.done].astype(float)
    return np.stack([w[:, parts].sum(axis=1) for parts in PARTS.values()], axis=1)


def test_shares_of_major_types_are_sums(world):
    cmap, wanted = world.cmap, sums(world)
    assert cmap.types_at("major") == MAJORS
    assert cmap.types_at() == TYPES
    for k, name in enumerate(MAJORS):
        np.testing.assert_allclose(cmap.weight(name, "major")[world.done], wanted[:, k], atol=1e-6)
    np.testing.assert_allclose(cmap.mean_weights(level="major"), wanted.mean(axis=0), atol=1e-5)
    rect = Rect(0.0, 0.0, 80.0, 80.0)
    np.testing.assert_allclose(
        cmap.mean_weights(rect, "major"), [cmap.mean_weights(rect)[parts].sum() for parts in PARTS.values()], atol=1e-6
    )


@pytest.mark.parametrize("level", ["minor", "major"])
def test_dominant_type_and_margin(world, level):
    cmap = world.cmap
    shares = sums(world) if level == "major" else world.weights[world.done].astype(float)
    ranked = np.sort(shares, axis=1)
    np.testing.assert_array_equal(cmap.dominant(level)[world.done], shares.argmax(axis=1))
    np.testing.assert_allclose(cmap.margin(level)[world.done], ranked[:, -1] - ranked[:, -2], atol=1e-6)
    assert (cmap.dominant(level)[~world.done] == -1).all()
    assert (cmap.margin(level)[~world.done] == 0).all()


def test_new_patches_count_at_both_levels(world):
    new = np.flatnonzero(world.drawing == "?")
    world.cmap.fill(new, np.tile([0.3, 0.3, 0.4, 0.0], (len(new), 1)), np.zeros((len(new), 2)))
    assert (world.cmap.dominant().ravel()[new] == 2).all()
    assert (world.cmap.dominant("major").ravel()[new] == 0).all()
    np.testing.assert_allclose(world.cmap.margin("major").ravel()[new], 0.2, atol=1e-3)


def test_contributions_of_a_major_type_are_summed(world):
    gene = GENES[2]
    parts = [np.nan_to_num(world.cmap.contribution(gene, name)) for name in TYPES[:2]]
    found = np.nan_to_num(world.cmap.contribution(gene, "Lymphoid", "major"))
    np.testing.assert_allclose(found, sum(parts), rtol=1e-5)


def test_a_map_of_major_types_has_the_same_expression_and_places(world):
    cmap = world.cmap
    major = cmap.at_level("major")
    assert major.cell_types == MAJORS
    np.testing.assert_array_equal(major.state, cmap.state)
    np.testing.assert_allclose(major.weights[world.done], sums(world), atol=1e-3)
    for gene in GENES:
        np.testing.assert_allclose(
            major.expression(gene)[world.done], world.expression(gene), rtol=2e-3, atol=2e-3, err_msg=gene
        )
    # The profile of a major type lies between those of its minor types.
    d = cmap.decoder.prototypes
    low, high = np.minimum(d[0], d[1]), np.maximum(d[0], d[1])
    assert (major.decoder.prototypes[0] >= low - 1e-6).all()
    assert (major.decoder.prototypes[0] <= high + 1e-6).all()
    assert major.at_level("major") is major
    assert cmap.at_level("minor") is cmap


def test_of_a_sum_no_interval_is_known(world):
    cmap = world.cmap
    trust = trust_of([100.0] * (len(GENES) + len(TYPES)))
    trust.pcc.fill_(0.5)
    known = CompositionMap(cmap.grid, cmap.decoder, cmap.tissue, {"hierarchy": HIERARCHY}, trust)
    major = known.at_level("major").trust
    n = len(GENES)
    assert [major.has_interval(n + k) for k in range(3)] == [False, True, True]
    assert np.isnan(major.scale(n))
    assert major.scale(n + 1) == 100.0
    np.testing.assert_array_equal(major.interval(2, [0.5, 1.0]), trust.interval(2, [0.5, 1.0]))


def test_the_hierarchy_is_saved_with_the_map(world, tmp_path):
    world.cmap.save(tmp_path / "map.zarr")
    again = CompositionMap.load(tmp_path / "map.zarr")
    assert again.hierarchy == HIERARCHY
    np.testing.assert_array_equal(again.dominant("major"), world.cmap.dominant("major"))
    assert "hierarchy" not in again.provenance


def test_without_a_hierarchy_both_levels_are_the_types_of_the_model():
    cmap = make_world().cmap
    assert cmap.hierarchy == {}
    assert cmap.types_at("major") == TYPES
    np.testing.assert_array_equal(cmap.dominant("major"), cmap.dominant())
    assert cmap.at_level("major") is cmap


def test_a_hierarchy_of_a_damaged_file_is_none():
    cmap = make_world().cmap
    for odd in (3, [1], {"B cells": 4}, {"other": "x"}, {"B cells": "  "}):
        cmap.hierarchy = odd
        assert cmap.hierarchy == {}


def test_unknown_types_and_levels(world):
    with pytest.raises(MappingError, match="it knows: Lymphoid, Epithelial, Stroma"):
        world.cmap.weight("Nothing", "major")
    with pytest.raises(SettingsError, match="The level is minor or major, not 'middle'"):
        world.cmap.dominant("middle")


def test_regions_at_either_level(world):
    region = Region.from_vertices("all", [(0, 0), (0, 200), (150, 200), (150, 0)])
    tables = {
        level: summarise_regions(world.cmap, [region], settings=RegionSettings(block_um=32, level=level))
        for level in ("minor", "major")
    }
    share = {level: table[table["kind"] == "share"].set_index("name")["value"] for level, table in tables.items()}
    assert tuple(share["major"].index) == MAJORS
    for name, parts in PARTS.items():
        assert share["major"][name] == pytest.approx(share["minor"].iloc[parts].sum())


def test_an_explanation_by_major_types_sums_to_the_same(world):
    region = Region.from_vertices("all", [(0, 0), (0, 200), (150, 200), (150, 0)])
    minor, major = (explain_gene(world.cmap, GENES[0], region, level) for level in ("minor", "major"))
    assert set(major.index[:-2]) == set(MAJORS)
    assert major["value"].sum() == pytest.approx(minor["value"].sum())
    assert major.loc["Lymphoid", "value"] == pytest.approx(minor.loc[list(TYPES[:2]), "value"].sum())
    assert major.loc["Lymphoid", "weight"] == pytest.approx(minor.loc[list(TYPES[:2]), "weight"].sum())
