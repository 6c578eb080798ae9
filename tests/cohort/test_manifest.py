"""Manifests of cohorts: formats, and all problems of a table at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_cpnn.cohort import Cohort, read_cohort
from napari_cpnn.errors import CohortError

GOOD = """slide,patient,mpp,group,age,code
a.svs,P1,0.5,treated,61,007
b.svs,P1,,treated,61,008
sub/c.svs,P2,"0,25",control,,009
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.svs", "b.svs", "sub/c.svs", "d.ome.tiff"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def written(folder: Path, text: str, name: str = "m.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def problems(path: Path, **options: object) -> tuple[str, ...]:
    with pytest.raises(CohortError) as caught:
        read_cohort(path, **options)
    return caught.value.problems


def test_a_manifest_is_read(folder):
    cohort = read_cohort(written(folder, GOOD))
    table = cohort.table
    assert list(table.columns) == ["path", "sample", "patient", "mpp", "bulk", "group", "age", "code"]
    assert cohort.names == ("a", "b", "c")
    assert len(cohort) == 3
    assert list(table["path"]) == [str(folder / n) for n in ("a.svs", "b.svs", "sub/c.svs")]
    np.testing.assert_array_equal(table["mpp"], [0.5, np.nan, 0.25])
    np.testing.assert_array_equal(table["age"], [61, 61, np.nan])
    assert list(table["code"]) == ["007", "008", "009"]  # a code is no number
    assert list(table["sample"]) == ["a", "b", "c"]
    assert set(table["bulk"]) == {""}
    assert cohort.groups == ("group",)
    assert cohort.patients() == {"P1": ("a", "b"), "P2": ("c",)}
    assert cohort.bags("slide")["b"] == ("b",)
    assert cohort.bags() == {"a": ("a",), "b": ("b",), "c": ("c",)}


def test_a_subset_keeps_the_order(folder):
    cohort = read_cohort(written(folder, GOOD))
    assert cohort.subset(["c", "a"]).names == ("a", "c")
    assert cohort.subset("b").groups == ("group",)
    with pytest.raises(CohortError, match="no slide 'x'"):
        cohort.subset(["a", "x"])
    with pytest.raises(CohortError, match="No slides"):
        cohort.subset([])
    with pytest.raises(CohortError, match="not by 'bag'"):
        cohort.bags("bag")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16"), ("\t", "utf-8")],
    ids=["csv", "semicolon-bom", "excel-unicode-text", "tsv"],
)
def test_separators_and_encodings(folder, mark, encoding):
    text = f'slide{mark}patient{mark}note\r\na.svs{mark}Müller{mark}"one, two; three"\r\n'
    table = read_cohort(written(folder, text, "m.txt", encoding)).table
    assert table.loc["a", "patient"] == "Müller"
    assert table.loc["a", "note"] == "one, two; three"


def test_another_encoding_is_refused_with_its_row(folder):
    path = written(folder, "slide,patient\na.svs,Meier\nb.svs,Müller\n", encoding="cp1252")
    with pytest.raises(CohortError, match=r"not UTF-8 text \(row 3\).*CSV UTF-8"):
        read_cohort(path)


def test_excel(folder):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (
        ["Slide", "Patient ID", "MPP", "pCR"],
        ["a.svs", 12, 0.5, True],
        [None] * 4,
        ["b.svs", 13, None, False],
    ):
        book.active.append(row)
    book.save(folder / "m.xlsx")
    table = read_cohort(folder / "m.xlsx").table
    assert list(table["patient"]) == ["12", "13"]
    assert table["mpp"].isna().tolist() == [False, True]
    assert list(table["pCR"]) == ["True", "False"]
    book.active.append(["a.svs", 14, 0.5, True])
    book.save(folder / "m.xlsx")
    assert problems(folder / "m.xlsx") == (
        "row 5: 'a.svs' is the slide of row 2",
        "row 5: 'a' is also the name of row 2; give each slide a name of its own in a column 'name'",
        "row 5: sample 'a' has two patients: '14' here, '12' in row 2",
    )


def test_obs_of_an_h5ad(folder):
    from anndata import AnnData

    obs = pd.DataFrame({"slide": ["a.svs", "d.ome.tiff"], "patient": ["P1", "P2"], "group": pd.Categorical(["x", "y"])})
    obs.index = pd.Index(["first", "second"])
    AnnData(np.zeros((2, 1), np.float32), obs=obs).write_h5ad(folder / "m.h5ad")
    cohort = read_cohort(folder / "m.h5ad")
    assert cohort.names == ("first", "second")
    assert list(cohort.table["group"]) == ["x", "y"]


def test_the_file_may_be_called_path_and_the_name_slide(folder):
    cohort = read_cohort(written(folder, "slide,path,sample\nS1,a.svs,T1\nS2,d.ome.tiff,T1\n"))
    assert cohort.names == ("S1", "S2")
    assert cohort.bags() == {"T1": ("S1", "S2")}
    assert list(cohort.table["patient"]) == ["T1", "T1"]  # without patients, a sample is one
    assert read_cohort(written(folder, "slide\nd.ome.tiff\n")).names == ("d",)


def test_paths_refer_to_the_root(folder):
    path = written(folder / "sub", "slide\na.svs\n")
    assert problems(path) == ("row 2: there is no file a.svs",)
    assert list(read_cohort(path, folder).table["path"]) == [str(folder / "a.svs")]
    absolute = written(folder / "sub", f"slide\n{folder / 'sub' / '..' / 'b.svs'}\n")
    assert list(read_cohort(absolute).table["path"]) == [str(folder / "b.svs")]


def test_all_problems_are_said_together(folder):
    (folder / "link.svs").symlink_to(folder / "a.svs")
    text = (
        "slide,sample,patient,mpp,group,bulk\n"
        "a.svs,T1,P1,0.5,x,a.svs\n"
        "no.svs,T2,P1,0.5,y,\n"
        "\n"
        "link.svs,T3,p2,big,x,\n"
        ",T4,P2,50,x,\n"
        "sub/c.svs,T1,P9,0.5,x,b.svs\n"
        "b.svs,T5,,0.5,x,none.tsv\n"
    )
    found = problems(written(folder, text))
    bulks = f"'{shortened(folder / 'b.svs')}' here, '{shortened(folder / 'a.svs')}' in row 2"
    assert found == (
        "row 3: there is no file no.svs",
        "row 3: patient 'P1' has two values of 'group': 'y' here, 'x' in row 2",
        "row 5: 'link.svs' is the slide of row 2",
        "row 5: 'big' is not a pixel size in um",
        "row 6: the slide is missing",
        "row 6: a pixel size of 50 um is not plausible (0.05 to 10)",
        "row 6: patient 'P2' is written 'p2' in row 5",
        "row 7: sample 'T1' has two patients: 'P9' here, 'P1' in row 2",
        f"row 7: sample 'T1' has two bulk tables: {bulks}",
        "row 8: the patient is missing",
        "row 8: there is no file none.tsv",
    )


def shortened(path: Path) -> str:
    from napari_cpnn.texts import shown

    return shown(str(path), 60)


def test_the_message_is_one_sentence_with_the_number_of_problems(folder):
    path = written(folder, "slide\n" + "".join(f"{i}.svs\n" for i in range(9)))
    with pytest.raises(
        CohortError, match=r"has 9 problems: row 2: there is no file 0.svs; .*; and 6 more\.$"
    ) as caught:
        read_cohort(path)
    assert len(caught.value.problems) == 9


def test_names_that_would_be_one_file_are_refused(folder):
    found = problems(written(folder, "name,path\nS/1,a.svs\ns_1,b.svs\n"))
    assert found == ("row 3: 's_1' is also the name of row 2; give each slide a name of its own in a column 'name'",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("slide,patient\n", "headings but no rows"),
        ("patient\nP1\n", "no column 'slide'.*there are patient"),
        ("slide,x,x\na.svs,1,2\n", "two columns are called 'x'"),
        ("slide,Sample,sample\na.svs,1,2\n", "two columns are called 'Sample' and 'sample'"),
        ("slide\nm.csv\n", "row 2: m.csv is a table, not a slide"),
        ("slide\nempty.svs\n", "row 2: empty.svs is empty"),
        (",slide\n2,a.svs\n", "a column has no heading"),
        ("slide,x\na.svs,1,2\n", "row 2: 3 cells, but there are 2 headings"),
        ('slide,x\n"a.svs,1\n', "cannot be read.*quotation mark"),
        ("slide\n" + "x" * 5000 + "\n", "there is no file|not a file name"),
    ],
    ids=[
        "empty",
        "no rows",
        "no slides",
        "twice",
        "twice but for case",
        "itself",
        "an empty file",
        "no heading",
        "ragged",
        "quote",
        "long",
    ],
)
def test_tables_that_cannot_be_used(folder, text, said):
    (folder / "empty.svs").touch()
    with pytest.raises(CohortError, match=said):
        read_cohort(written(folder, text))


def test_a_missing_manifest_and_other_formats(folder):
    with pytest.raises(CohortError, match="does not exist"):
        read_cohort(folder / "none.csv")
    with pytest.raises(CohortError, match="is a folder"):
        read_cohort(folder)
    with pytest.raises(CohortError, match=r"save the table as \.xlsx"):
        read_cohort(written(folder, "x", "m.xls"))
    with pytest.raises(CohortError, match="cannot be read"):
        read_cohort(written(folder, "not a zip", "m.xlsx"))
    with pytest.raises(CohortError, match="no HDF5 file"):
        read_cohort(written(folder, "not HDF5", "m.h5ad"))
    with pytest.raises(CohortError, match=r"not a text table|NUL"):
        read_cohort(written(folder, "a\0b\n"))


def test_columns_to_compare_by(folder):
    path = written(folder, "slide,patient,arm,group_b\na.svs,P1,x,1\nb.svs,P1,y,1\n")
    assert read_cohort(path).groups == ("group_b",)
    assert problems(path, groups=["arm", "none"]) == (
        "there is no column 'none' to compare by",
        "row 3: patient 'P1' has two values of 'arm': 'y' here, 'x' in row 2",
    )


def test_a_group_that_is_missing_for_one_slide_of_a_patient(folder):
    path = written(folder, "slide,patient,group\na.svs,P1,x\nb.svs,P1,NA\n")
    assert problems(path) == ("row 3: patient 'P1' has two values of 'group': none here, 'x' in row 2",)
    alone = read_cohort(written(folder, "slide,patient,group\na.svs,P1,x\nb.svs,P2,NA\n"))
    assert alone.table["group"].isna().tolist() == [False, True]


def test_no_heavy_library_is_needed_for_a_text_table(folder):
    import subprocess
    import sys

    code = (
        "import sys; from napari_cpnn.cohort import read_cohort; "
        f"read_cohort({str(written(folder, GOOD))!r}); "
        "print([m for m in ('torch', 'dask', 'anndata', 'openslide', 'zarr', 'napari') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cohort_of_thousands_is_read_quickly(folder):
    import time

    big = folder / "big"
    big.mkdir()
    for i in range(2000):
        (big / f"{i}.svs").write_bytes(b"x")
    path = written(folder, "slide,patient\n" + "".join(f"big/{i}.svs,P{i // 3}\n" for i in range(2000)))
    start = time.perf_counter()
    assert isinstance(read_cohort(path), Cohort)
    assert time.perf_counter() - start < 10
