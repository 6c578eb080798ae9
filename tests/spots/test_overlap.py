"""Sections in one table are told by their barcodes and places, whatever the columns are called."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.spots.test_readers import write

from napari_cpnn import read_spots
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.barcodes import barcodes_of
from napari_cpnn.spots.overlap import Places

N = 144


def section(offset: tuple[float, float] = (300.0, 300.0), seed: int = 0, n: int = 12) -> ad.AnnData:
    """A hexagonal array with barcodes, counts from ``seed``, without places in the array."""
    places = np.array([(row, 2 * column + row % 2) for row in range(n) for column in range(n)])
    counts = np.random.default_rng(seed).integers(1, 9, (n * n, 5)).astype(np.float32)
    names = ["".join(letters) + "-1" for letters in itertools.islice(itertools.product("ACGT", repeat=8), n * n)]
    table = ad.AnnData(counts, obs=pd.DataFrame({"in_tissue": 1}, index=names))
    table.var_names = list("ABCDE")
    table.obsm["spatial"] = places[:, ::-1] * [100.0, 100 * np.sqrt(3)] + offset
    return table


def two(offset: tuple[float, float] = (372.0, 341.0), column: str | None = None, names: str = "") -> ad.AnnData:
    both = ad.concat([section(), section(offset, seed=1)], index_unique="/")
    barcodes = [name.split("/")[0] for name in both.obs_names]
    both.obs_names = {
        "suffix": [f"{name}-{'AB'[i >= N]}" for i, name in enumerate(barcodes)],
        "prefix": [f"{'AB'[i >= N]}_{name}" for i, name in enumerate(barcodes)],
        "aggr": [name.replace("-1", f"-{1 + (i >= N)}") for i, name in enumerate(barcodes)],
        "same": barcodes,
    }.get(names) or [f"x{i}" for i in range(2 * N)]
    if column:
        both.obs[column] = ["s1"] * N + ["s2"] * N
    return both


@pytest.mark.parametrize(
    ("names", "called"), [("suffix", "A, B"), ("prefix", "A, B"), ("aggr", "1, 2"), ("same", "1, 1-1")]
)
def test_one_barcode_in_two_names(names: str, called: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique")
        path = write(two((4000, 300), names=names), tmp_path)
    with pytest.raises(SpotsError, match=f"holds the spots of 2 libraries \\({called}\\)"):
        read_spots(path)
    if names != "same":
        assert read_spots(path, library=called[0]).n_obs == N


def test_names_that_were_numbered_do_not_tell_the_sections_apart(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique")
        both = two(names="same")[[*range(100), *range(N, N + 144)]].copy()
    both.obs_names_make_unique()
    with pytest.raises(SpotsError, match=r"spots with the same barcode.*no column assigns"):
        read_spots(write(both, tmp_path))
    both.obs["anything"] = ["s1"] * 100 + ["s2"] * 144
    assert read_spots(write(both, tmp_path), library="s2").n_obs == 144


@pytest.mark.parametrize("column", ["lib", "tissue_section", "fov", "Sample ID (GEO)", "GSM", "region", "condition"])
def test_any_column_whose_groups_lie_among_each_other(column: str, tmp_path: Path) -> None:
    path = write(two(column=column), tmp_path)
    with pytest.raises(SpotsError, match=r"holds the spots of 2 libraries \(s1, s2\)"):
        read_spots(path)
    spots = read_spots(path, library="s2")
    np.testing.assert_array_equal(spots.X.toarray(), section(seed=1).X)


def test_any_column_whose_groups_share_places_of_the_array(tmp_path: Path) -> None:
    both = two((4000, 300), "stage")
    both.obs["array_row"], both.obs["array_col"] = np.tile(np.arange(N) // 12, 2), np.tile(np.arange(N) % 12, 2)
    with pytest.raises(SpotsError, match=r"column stage\) holds the spots of 2 libraries"):
        read_spots(write(both, tmp_path))


@pytest.mark.parametrize("column", ["sample", "sampleID", "orig.ident", "section", "slide_id", "batch", "my_library"])
def test_sections_side_by_side(column: str, tmp_path: Path) -> None:
    path = write(two((4000, 300), column), tmp_path)
    with pytest.warns(CpnnWarning, match=rf"s1, s2 \(column {column}\) do not overlap.*library='s1'") as said:
        assert read_spots(path).n_obs == 2 * N
    assert len(said) == 1
    assert read_spots(path, library="s2").n_obs == N


def test_pieces_of_one_array_are_no_sections(tmp_path: Path) -> None:
    """Two pieces of tissue, far apart on one array, whose places say so."""
    whole = section(n=20)
    whole.obs["array_row"], whole.obs["array_col"] = np.arange(400) // 20, np.arange(400) % 20 * 2
    whole.obs["array_col"] += whole.obs["array_row"] % 2
    pieces = whole[(whole.obs["array_row"] < 7) | (whole.obs["array_row"] > 13)].copy()
    pieces.obs["section"] = np.where(pieces.obs["array_row"] < 10, "upper", "lower")
    assert read_spots(write(pieces, tmp_path)).n_obs == pieces.n_obs


@pytest.mark.parametrize("jitter", [0.0, 5.0])
def test_groups_of_one_array_are_no_sections(jitter: float) -> None:
    rng = np.random.default_rng(0)
    table = section(n=24)
    table.obsm["spatial"] = table.obsm["spatial"] + rng.normal(0, jitter, (576, 2))
    row, column = np.arange(576) // 24, np.arange(576) % 24
    groups = {
        "row": row, "column": column, "parity": row % 2, "third": row % 3, "two": rng.integers(0, 2, 576),
        "many": rng.integers(0, 20, 576), "rare": rng.random(576) < 0.02, "half": row < 12,
    }  # fmt: skip
    places = Places(table)
    for name, labels in groups.items():
        assert not places.are_told_apart(labels.astype(str).astype(object)), name
    cells = section(n=24)
    cells.obsm["spatial"] = rng.uniform(0, 900, (576, 2))
    for name, labels in groups.items():
        assert not Places(cells).are_told_apart(labels.astype(str).astype(object)), name


@pytest.mark.parametrize("n", [2, 5, 12])
def test_many_sections_over_each_other(n: int) -> None:
    offsets = np.random.default_rng(n).uniform(0, 300, (n, 2))
    table = ad.concat([section(tuple(offset)) for offset in offsets], index_unique="/")
    table.obs_names = [f"x{i}" for i in range(table.n_obs)]
    places = Places(table)
    assert places.are_told_apart(np.repeat(np.arange(n), N).astype(str).astype(object))
    assert not places.are_told_apart((np.arange(n * N) % 2).astype(str).astype(object))


@pytest.mark.parametrize(
    ("names", "libraries"),
    [
        (["A_ACGTACGT-1", "B_ACGTACGT-1"], ["A", "B"]),
        (["ACGTACGT-1", "ACGTACGT-10"], ["1", "10"]),
        (["s_016um_00001_00002-1-x", "s_016um_00001_00002-1-y"], ["x", "y"]),
        (["10x12_a", "10x12_b"], ["a", "b"]),
        (["run1_ACGTACGT-1_a", "run1_ACGTACGT-1_b"], ["a", "b"]),
        (["ACGTACGT-1", "ACGTACGT-1_2"], ["1", "1_2"]),
    ],
)
def test_what_stands_around_a_barcode(names: list[str], libraries: list[str]) -> None:
    found = barcodes_of(names)
    assert found is not None
    assert found.cores[0] == found.cores[1]
    assert found.libraries is not None
    assert sorted(found.libraries) == sorted(libraries)


def test_names_without_barcodes() -> None:
    assert barcodes_of(["spot1", "spot2"]) is None
    assert barcodes_of([]) is None
    assert barcodes_of([f"ACGTACGT_{i}" for i in range(500)]) is None
