"""Runs that ``spaceranger aggr`` joined: one library is chosen, else the names are told."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from PIL import Image
from tests.spots.test_overlap import N, section

from napari_cpnn import read_spots
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.slides import Slide
from napari_cpnn.spots import find_spots


def write(folder: Path, names: tuple[str, ...] = ("LV123", "LB456"), n: int = 2) -> Path:
    """The ``outs`` of an aggregated run of ``n`` libraries, which ``aggregation.csv`` calls ``names``."""
    (folder / "spatial").mkdir(parents=True)
    sections = [section((300.0 + 72 * i, 300.0 + 41 * i), seed=i) for i in range(n)]
    barcodes = [name.replace("-1", f"-{i + 1}") for i, one in enumerate(sections) for name in one.obs_names]
    counts = sp.csc_matrix(np.concatenate([one.X for one in sections]).T.astype(np.int32))
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(barcodes, dtype="S20")
        matrix["data"], matrix["indices"], matrix["indptr"] = counts.data, counts.indices, counts.indptr
        matrix["shape"] = np.array(counts.shape, dtype=np.int32)
        features = matrix.create_group("features")
        for key, values in (("id", list("ABCDE")), ("name", list("ABCDE")), ("feature_type", ["Gene Expression"] * 5)):
            features[key] = np.array(values, dtype="S20")
    at = np.concatenate([one.obsm["spatial"] for one in sections])
    table = pd.DataFrame({"barcode": barcodes, "in_tissue": 1, "array_row": np.tile(np.arange(N) // 12, n)})
    table["array_col"] = np.tile(np.arange(N) % 12 * 2 + np.arange(N) // 12 % 2, n)
    table["pxl_row_in_fullres"], table["pxl_col_in_fullres"] = at[:, 1], at[:, 0]
    table.to_csv(folder / "aggr_tissue_positions.csv", index=False)
    if names:
        rows = [f"{name},{name}.h5,{name}.cloupe\n" for name in names]
        (folder / "aggregation.csv").write_text("library_id,molecule_h5,cloupe_file\n" + "".join(rows))
    for i, name in enumerate(names):
        (folder / "spatial" / name).mkdir()
        factors = {"tissue_hires_scalef": 0.1, "spot_diameter_fullres": 50.0 + i}
        (folder / "spatial" / name / "scalefactors_json.json").write_text(json.dumps(factors))
        Image.new("RGB", (30, 20 + i)).save(folder / "spatial" / name / "tissue_hires_image.png")
    return folder


def test_one_library_is_chosen_by_its_name(tmp_path: Path) -> None:
    outs = write(tmp_path / "outs")
    with pytest.raises(SpotsError, match=r"holds the spots of 2 libraries \(LB456, LV123\)"):
        read_spots(outs)
    with pytest.raises(SpotsError, match="has no library 'x'; it has: LB456, LV123"):
        read_spots(outs, library="x")
    spots = read_spots(outs, library="lb456")
    np.testing.assert_array_equal(spots.X.toarray(), section(seed=1).X)
    np.testing.assert_allclose(spots.obsm["spatial"], section((372.0, 341.0)).obsm["spatial"])
    described = spots.uns["spatial"]["LB456"]
    assert described["scalefactors"]["spot_diameter_fullres"] == 51.0
    assert described["images"]["hires"].shape == (21, 30, 3)
    assert spots.uns["napari_cpnn"]["library"] == "LB456"
    assert spots.uns["napari_cpnn"]["dropped"]["other_library"] == N


def test_the_library_that_is_called_as_the_slide(tmp_path: Path) -> None:
    outs = write(tmp_path / "outs")
    slide = Slide.from_arrays([np.full((4000, 4000, 3), 255, np.uint8)], mpp=(0.5, 0.5), name="LV123")
    with pytest.warns(CpnnWarning, match="those of LV123 are read"):
        assert read_spots(outs, slide=slide, check=False).n_obs == N


def test_each_library_can_be_opened(tmp_path: Path) -> None:
    outs = write(tmp_path / "AGG" / "outs")
    for path in (outs.parent, outs, outs / "filtered_feature_bc_matrix.h5"):
        found = find_spots(path)
        assert [(source.name, source.library) for source in found] == [("AGG, LV123", "LV123"), ("AGG, LB456", "LB456")]
        assert read_spots(found[1].path, library=found[1].library).n_obs == N


def test_without_their_names_libraries_are_numbers(tmp_path: Path) -> None:
    outs = write(tmp_path / "outs", names=())
    with pytest.raises(SpotsError, match=r"holds the spots of 2 libraries \(1, 2\)"):
        read_spots(outs)
    assert read_spots(outs, library="2").n_obs == N


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("library_id,molecule_h5\nA,a.h5\n", "names 1 libraries, and barcodes of the matrix end in -2"),
        ("molecule_h5\na.h5\n", "has no column library_id"),
        ("library_id\nA\nA\n", "has a duplicate or missing library name"),
        ("", "has no column library_id"),
    ],
)
def test_names_that_are_not_those_of_the_run(text: str, says: str, tmp_path: Path) -> None:
    outs = write(tmp_path / "outs", names=())
    (outs / "aggregation.csv").write_text(text)
    with pytest.raises(SpotsError, match=says):
        read_spots(outs)


def test_a_library_that_leads_out_of_the_folder(tmp_path: Path) -> None:
    outs = write(tmp_path / "outs", names=())
    (outs / "aggregation.csv").write_text("library_id\n..\nB\n")
    assert read_spots(outs, library="..").uns["spatial"][".."]["images"] == {}


def test_a_run_that_was_not_joined(tmp_path: Path) -> None:
    outs = write(tmp_path / "outs", names=(), n=1)
    assert read_spots(outs).n_obs == N
    with pytest.raises(SpotsError, match="has no library 'A'; it has: outs"):
        read_spots(outs, library="A")
