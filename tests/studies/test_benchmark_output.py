"""Files and page of a benchmark."""

from __future__ import annotations

import importlib.util
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import napari_cpnn as nc
from benchmark_world import GENES, QUICK, known_section
from napari_cpnn.errors import CpnnError
from napari_cpnn.evaluation import pearson, read_table
from napari_cpnn.spots import open_sample
from napari_cpnn.studies import write_benchmark

HOSTILE = '<script>alert("x")</script> & $x_2$'


class Page(HTMLParser):
    """Tags, attributes and tables of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.rows, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []  # every tag is closed

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open[-1:] and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def world():
    return [known_section(seed, rows=7, cols=8) for seed in range(3)]


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "new" / "result"
    predictions = {HOSTILE: [one.truth for one in world], "second": [one.expected for one in world]}
    names = ["A", "B<b>", "C"]
    samples = [one.sample for one in world]
    result = nc.benchmark(predictions, samples, sections=names, out=out, settings=QUICK, progress=False)
    return out, result


def test_tables_are_tidy_and_complete(folder, world):
    out, result = folder
    assert sorted(path.name for path in out.iterdir()) == [
        "benchmark.html",
        "differences.csv",
        "scores.parquet",
        "sections.csv",
        "summary.csv",
    ]
    assert sorted(path.name for path in out.parent.iterdir()) == ["result"]  # no temporary is left
    scores = read_table(out / "scores.parquet")
    assert list(scores) == ["kind", "name", "patient", "section", "gene", "metric", "value"]
    assert not scores.duplicated(["kind", "name", "section", "gene", "metric"]).any()
    of_one = scores.query("kind == 'model' and name == 'second' and section == 'C' and metric == 'pcc'")
    wanted = pearson(world[2].expected.X, world[2].measured)
    np.testing.assert_allclose(of_one.set_index("gene")["value"].loc[GENES], wanted, atol=1e-5)
    assert set(scores["kind"]) == {"model", "baseline", "ceiling", "shifted", "other section"}
    summary = read_table(out / "summary.csv")
    assert set(summary["name"]) >= {HOSTILE, "depth oracle", "colour statistics", "nuclei count", "train mean"}
    np.testing.assert_allclose(summary["mean"], result.summary["mean"], rtol=1e-6)
    assert read_table(out / "sections.csv")["section"].tolist() == ["A", "B<b>", "C"]
    assert len(read_table(out / "differences.csv")) == len(result.differences)


def test_the_page_stands_alone(folder):
    out, result = folder
    text = (out / "benchmark.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "b" not in page.tags
    assert len(page.links) == 3
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"https?://|@import|url\(", text)
    assert HOSTILE in "".join(page.words)
    first = next(rows for rows in [page.rows] if rows)
    names = [row[0] for row in first[1:8]]
    assert names == [
        "noise ceiling",
        HOSTILE,
        "second",
        "depth oracle",
        "colour statistics",
        "nuclei count",
        "train mean",
    ]
    assert first[2][1].startswith(f"{result.mean(HOSTILE):.3f}")
    for note in result.notes:
        assert note in "".join(page.words)


def test_an_existing_folder_is_refused_before_anything_is_computed(folder, world):
    out, result = folder
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for again in (
        lambda: write_benchmark(result, out),
        lambda: nc.benchmark({"m": "nowhere"}, [world[0].sample], out=out),
    ):
        with pytest.raises(CpnnError, match="result exists already; choose another name or delete it"):
            again()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_without_pyarrow_scores_are_csv(folder, tmp_path, monkeypatch):
    _, result = folder
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "pyarrow" else find(name, *a))
    out = write_benchmark(result, tmp_path / "csv")
    scores = read_table(out / "scores.csv")
    assert len(scores) == len(result.scores)
    np.testing.assert_allclose(scores["value"], result.scores["value"])


def test_a_folder_that_cannot_be_written_is_one_sentence_and_leaves_nothing(folder, tmp_path):
    _, result = folder
    (tmp_path / "file").write_text("")
    with pytest.raises(CpnnError, match=r"could not be written|cannot be opened"):
        write_benchmark(result, tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["file"]


def test_a_page_of_one_section_and_flat_predictions(tmp_path, world):
    one = world[0]
    flat = one.table(np.full(one.truth.shape, 1.5))
    found = nc.benchmark({"flat": flat}, [one.sample], out=tmp_path / "out", settings=QUICK, progress=False)
    assert found.mean("flat") == 0
    assert np.isfinite(found.mean("flat", "rmse"))
    page = Page((tmp_path / "out" / "benchmark.html").read_text(encoding="utf-8"))
    assert "There is one section" in "".join(page.words)


def test_the_built_in_model_is_scored_and_said_to_have_seen_its_slide(tmp_path):
    folder = nc.sample_folder()
    slide = nc.open_slide(folder / "slide.tiff")
    spots = nc.read_spots(folder / "spots.h5ad", slide=slide)
    few = spots[::12].copy()
    assert few.n_obs > 20
    predictions = {"built-in": folder / "model.safetensors"}
    with pytest.warns(nc.errors.CpnnWarning, match="built-in names slide.* among the slides it was trained on"):
        found = nc.benchmark(predictions, [(slide, few)], settings=QUICK, progress=False)
    assert 0.1 < found.mean("built-in") < found.mean("noise ceiling")


@pytest.mark.slow  # its siblings write the same for the sample
@pytest.mark.filterwarnings("ignore::napari_cpnn.errors.CpnnWarning")
def test_real_sections_of_breast_cancer(shared_data, tmp_path):
    data = shared_data / "her2st" / "data"
    if not (data / "ST-imgs" / "C").is_dir():
        pytest.skip(f"her2st is not at {data}")
    images = {"C2": "5714_HE_BT_C2.jpg", "C3": "5714_HE_BT_D1.jpg"}
    genes = ["ERBB2", "KRT8", "COL1A1", "IGKC", "CD24", "FN1", "VIM", "ACTB"]
    samples, predictions = [], []
    for name, image in images.items():
        slide, spots = open_sample(
            data / "ST-imgs" / "C" / name / image,
            data / "ST-cnts" / f"{name}.tsv.gz",
            data / "ST-spotfiles" / f"{name}_selection.tsv",
        )
        samples.append((slide, spots[:, [*genes, *(g for g in spots.var_names if g not in genes)]].copy()))
        totals = np.asarray(spots.layers["counts"].sum(axis=1)).ravel()
        guess = np.repeat(np.log10(totals)[:, None], len(genes), axis=1)
        predictions.append(_table(guess, spots.obs_names, genes))
    found = nc.benchmark({"counts": predictions}, samples, sections=list(images), settings=QUICK, progress=False)
    assert list(found.sections["genes"]) == [8, 8]
    assert found.sections["genes_detected"].min() > 14_000
    assert found.mean("noise ceiling") > 0.6
    # A prediction of total counts is the depth oracle, but for slopes that differ in sign.
    oracle = found.scores.query("kind == 'baseline' and name == 'depth oracle' and metric == 'pcc'")["value"]
    plain = found.scores.query("kind == 'model' and metric == 'pcc'")["value"]
    np.testing.assert_allclose(oracle.abs(), plain.abs(), atol=1e-5)
    assert (found.scores.query("kind == 'model' and metric == 'pcc_given_depth'")["value"] == 0).all()
    assert found.mean("colour statistics") > 0.05


def _table(values, names, genes):
    from anndata import AnnData

    return AnnData(values.astype(np.float32), obs=pd.DataFrame(index=names), var=pd.DataFrame(index=genes))
