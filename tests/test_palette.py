"""Colours of cell types follow their names."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import combine_stains, deltaE_ciede2000, hed_from_rgb, lab2rgb, rgb2lab, rgb_from_hed

from napari_cpnn.palette import (
    DIFFERENCE,
    FAMILIES,
    choose_colors,
    colors,
    difference_colors,
    family_of,
    folded,
    reads_as_stain,
    series_colors,
    shades_of,
    type_colors,
)
from napari_cpnn.palette.colors import SERIES, UNKNOWN

#: The nine major and 29 minor types of the breast cancer atlas (Wu et al. 2021).
MAJORS = (
    "B-cells", "CAFs", "Cancer Epithelial", "Endothelial", "Myeloid", "Normal Epithelial", "PVL", "Plasmablasts",
    "T-cells",
)  # fmt: skip
ATLAS = {
    "B-cells": ["B cells Memory", "B cells Naive"],
    "CAFs": ["CAFs MSC iCAF-like", "CAFs myCAF-like"],
    "Cancer Epithelial": [
        "Cancer Basal SC", "Cancer Cycling", "Cancer Her2 SC", "Cancer LumA SC", "Cancer LumB SC",
    ],
    "Endothelial": ["Endothelial ACKR1", "Endothelial CXCL12", "Endothelial Lymphatic LYVE1", "Endothelial RGS5"],
    "Myeloid": ["Cycling_Myeloid", "DCs", "Macrophage", "Monocyte"],
    "Normal Epithelial": ["Luminal Progenitors", "Mature Luminal", "Myoepithelial"],
    "PVL": ["Cycling PVL", "PVL Differentiated", "PVL Immature"],
    "Plasmablasts": ["Plasmablasts"],
    "T-cells": ["Cycling T-cells", "NK cells", "NKT cells", "T cells CD4+", "T cells CD8+"],
}  # fmt: skip
HIERARCHY = {minor: major for major, minors in ATLAS.items() for minor in minors}


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.setattr(colors, "_chosen", {})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=60))
def test_each_type_has_a_colour_of_its_own_whatever_the_order(names: list[str]) -> None:
    found = type_colors(names)
    assert list(found) == names
    assert all(re.fullmatch("#[0-9A-F]{6}", c) for c in found.values())
    assert len(set(found.values())) == len(names)
    assert type_colors(sorted(names, reverse=True)) == found


@pytest.mark.parametrize(
    "spellings",
    [
        ("CAFs", "CAF", "cafs", "Cancer-associated fibroblasts", "Cancer associated fibroblast", "Fibroblasts"),
        ("B-cells", "B cells", "B cell", "Bcells", "b_cell", "B"),
        ("T-cells", "T cells", "T_cells", "Tcell", "T lymphocytes"),
        ("Cancer Epithelial", "cancer", "Tumour", "Tumor cells", "Malignant epithelial cells"),
        ("Plasmablasts", "Plasma cells", "plasma"),
        ("NK cells", "Natural killer cells", "NK"),
        ("PVL", "Pericytes", "Perivascular-like", "Smooth muscle cells"),
    ],
)
def test_synonyms_have_one_colour_in_every_model(spellings):
    assert {type_colors([name, "Something else"])[name] for name in spellings} == {family_of(spellings[0]).color}


@pytest.mark.parametrize("same", [("T-cells CD8+", "CD8+ T cells", "CD8 T"), ("Mature Luminal", "luminal, mature")])
def test_minor_types_are_folded_too(same):
    assert len({folded(name) for name in same}) == 1
    assert len({type_colors([name])[name] for name in same}) == 1


def test_a_colour_does_not_depend_on_the_other_types_or_their_order():
    alone = {name: type_colors([name])[name] for name in MAJORS}
    assert type_colors(MAJORS) == alone
    assert type_colors(MAJORS[2:5]) == {name: alone[name] for name in MAJORS[2:5]}
    minors = list(HIERARCHY)
    found = type_colors(minors, HIERARCHY)
    random.Random(0).shuffle(minors)
    assert type_colors(minors, HIERARCHY) == found


def test_an_unknown_name_has_a_stable_colour_apart_from_those_shown():
    (alone,) = type_colors(["Zellkern 7"]).values()
    with_others = type_colors([*MAJORS, "Zellkern 7"])
    assert with_others["Zellkern 7"] == alone
    many = [f"unknown {i}" for i in range(8)]
    assert least_distance(list(type_colors([*MAJORS, *many]).values()), "normal") > 6


def test_two_spellings_in_one_model_are_two_colours_by_their_names():
    for names in (["CAF", "CAFs"], ["CAFs", "CAF"]):
        found = type_colors(names)
        assert found["CAF"] == family_of("CAFs").color
        assert found["CAFs"] in shades_of(found["CAF"])


def test_the_user_s_colours_win():
    choose_colors({"T-cells": "#123456"})
    assert type_colors(["T cells", "CAFs"])["T cells"] == "#123456"
    assert type_colors(["CD8+ T cells"])["CD8+ T cells"] in shades_of("#123456")


@pytest.mark.parametrize("types", [("CAFs",), ("CAFs", "Stroma"), ("CAFs", "Stroma", "T-cells")])
def test_a_colour_chosen_for_a_relative_leaves_a_type_as_it_is(types):
    """A colour once chosen for *Stroma* made the *CAFs* of every other model navy."""
    before = type_colors(types)
    choose_colors({"Stroma": "#123456"})
    assert type_colors(["Stroma", "stromal cells"])["stromal cells"] in shades_of("#123456")
    assert type_colors(types) == {**before, **({"Stroma": "#123456"} if "Stroma" in types else {})}
    choose_colors({"Cancer-associated fibroblasts": "#884400"})  # the same in other words
    assert type_colors(types)["CAFs"] == "#884400"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_of_a_family_are_in_one_group_each(family):
    assert tuple(name for group in family.same for name in group) == family.own
    assert len(set(family.own)) == len(family.own)


def test_colours_that_read_as_stain_are_told():
    haematoxylin, eosin = lab_to_hex(stained()[[-16 * 4, 8]])
    assert all(map(reads_as_stain, (haematoxylin, eosin, "#123456", "#8467A8", "#E79BC2", "#4B3579")))
    assert not any(map(reads_as_stain, (*(family.color for family in FAMILIES), *UNKNOWN)))


def test_of_more_types_than_colours_none_reads_as_stain():
    found = type_colors([f"unknown {i}" for i in range(200)])
    assert len(set(found.values())) == 200
    assert not any(map(reads_as_stain, found.values()))


def hue(color: str) -> float:
    _, a, b = lab([color])[0]
    return float(np.degrees(np.arctan2(b, a)))


@pytest.mark.parametrize("hierarchy", [HIERARCHY, None], ids=["given", "by name"])
def test_minor_types_have_shades_of_their_major_type(hierarchy):
    majors, minors = type_colors(MAJORS), type_colors(list(HIERARCHY), hierarchy)
    for minor, color in minors.items():
        if hierarchy is None and minor == "NK cells":  # a major type where no hierarchy says otherwise
            continue
        assert abs((hue(color) - hue(majors[HIERARCHY[minor]]) + 180) % 360 - 180) < 15, minor
    assert minors["Plasmablasts"] == majors["Plasmablasts"]
    assert least_distance(list(minors.values()), "normal") > 3


#: Machado, Oliveira, Fernandes 2009, severity 1; they multiply linear RGB.
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(names: Sequence[str], vision: str = "normal") -> np.ndarray:
    rgb = np.array([[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in names])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.asarray(VISION[vision]).T, 0, 1)
    return rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]


def lab_to_hex(values: np.ndarray) -> list[str]:
    return ["#{:02X}{:02X}{:02X}".format(*rgb) for rgb in np.rint(255 * lab2rgb(values[None])[0]).astype(int)]


def least_distance(names: Sequence[str], vision: str) -> float:
    """Smallest CIEDE2000 of two colours as they are seen."""
    values = lab(names, vision)
    pairs = deltaE_ciede2000(values[:, None], values[None])[np.triu_indices(len(names), 1)]
    return float(pairs.min())


def stained() -> np.ndarray:
    """CIELAB colours of haematoxylin and eosin at all densities, by scikit-image's stain matrix."""
    assert np.allclose(rgb_from_hed @ hed_from_rgb, np.eye(3))
    h, e = (values.ravel() for values in np.meshgrid(np.linspace(0, 1.6, 20), np.linspace(0, 1.2, 16)))
    stains = np.stack([h, e, np.zeros_like(h)], axis=-1)[None]
    # skimage's stains are in natural logarithms of 1e-6; ours are optical densities
    return rgb2lab(combine_stains(stains * np.log(10) / -np.log(1e-6), rgb_from_hed))[0]


@pytest.mark.parametrize("color", [*(family.color for family in FAMILIES), *UNKNOWN])
def test_no_colour_or_shade_reads_as_haematoxylin_or_eosin(color):
    slide = stained()
    assert deltaE_ciede2000(lab([color]), slide).min() > 18
    for shade in shades_of(color):
        assert deltaE_ciede2000(lab([shade]), slide).min() > 11, shade


@pytest.mark.parametrize("color", [color for color in DIFFERENCE if color != "#FFFFFF"])
def test_no_colour_of_a_difference_reads_as_haematoxylin_or_eosin(color):
    assert deltaE_ciede2000(lab([color]), stained()).min() > 18


def test_colours_of_differences_are_white_at_none_and_as_strong_on_both_sides():
    colors = difference_colors(np.linspace(0, 1, 101))
    assert colors.shape == (101, 4)
    assert colors[50].tolist() == [1, 1, 1, 1]
    light = rgb2lab(colors[None, :, :3])[0, :, 0]
    assert np.all(np.diff(light[:51]) > 0)
    assert np.all(np.diff(light[50:]) < 0)
    assert np.abs(light - light[::-1]).max() < 15
    for vision in VISION:
        low, high = lab([DIFFERENCE[1], DIFFERENCE[-2]], vision)
        assert deltaE_ciede2000(low, high) > 20, vision


@pytest.mark.parametrize("color", [family.color for family in FAMILIES])
def test_a_colour_over_nuclei_does_not_read_as_haematoxylin(color):
    nuclei = np.array([0xA9, 0x8B, 0xC0]) / 255  # the mean of cellular tissue
    rgb = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    seen = 0.65 * np.array(rgb) + 0.35 * nuclei  # at the default opacity
    assert deltaE_ciede2000(rgb2lab(seen[None, None])[0], stained()).min() > 14


def test_colours_of_stains_are_found():
    for seen in ("#8467A8", "#E79BC2", "#ECD6E2", "#FFFFFF", "#4B3579"):
        assert deltaE_ciede2000(lab([seen]), stained()).min() < 11


@pytest.mark.parametrize(
    ("vision", "least"), [("normal", 15), ("deuteranopia", 9), ("protanopia", 9), ("tritanopia", 6)]
)
def test_major_types_can_be_told_apart(vision, least):
    assert least_distance(list(type_colors(MAJORS).values()), vision) > least


def test_families_have_colours_of_their_own_and_grey_is_kept_for_no_type():
    all_colors = [*(family.color for family in FAMILIES), *UNKNOWN]
    assert least_distance(all_colors, "normal") > 8
    for color in [*all_colors, *(shade for one in all_colors for shade in shades_of(one))]:
        values = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
        assert max(values) - min(values) > 20


@pytest.mark.parametrize(
    ("n", "normal", "deficient"), [(8, 21, 10.5), (12, 21, 10), (16, 18, 9), (22, 17, 7.5), (25, 16, 7.5)]
)
def test_series_of_charts_can_be_told_apart(n: int, normal: float, deficient: float) -> None:
    assert list(series_colors(range(n)).values()) == list(SERIES[:n])
    for vision in VISION:
        least = least_distance(SERIES[:n], vision)
        assert least >= (normal if vision == "normal" else deficient), f"{vision}: {least:.1f}"
