"""The report: what stands in it, that it needs no network, and that its numbers are those of the tables."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cohort_world import make_cohort, run_settings
from napari_cpnn.cohort_run import slide_tables, write_cohort_report
from napari_cpnn.errors import CohortError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = make_cohort(tmp_path_factory.mktemp("cohort"), n=8, damaged=[7])
    table = pd.read_csv(world.manifest)
    table["note"] = ["<script>alert(1)</script>", *[None] * 7]
    table["status"] = "fixed"
    table["name"] = [f"<b>slide</b> {i}" for i in range(8)]
    table = table.rename(columns={"slide": "path"})
    table.to_csv(world.manifest, index=False)
    world.run(settings=run_settings(genes="ERBB2"))
    return world


@pytest.fixture(scope="module")
def page(world):
    return (world.folder / "out" / "report.html").read_text()


class Seen(HTMLParser):
    """Tags that are open, and everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert tag not in ("link", "iframe", "object")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_one_file_without_a_network(page):
    seen = Seen()
    seen.feed(page)
    assert seen.open == []
    assert len(seen.fetched) == 14  # two pictures of each slide that is done
    assert all(value.startswith("data:image/jpeg;base64,") for value in seen.fetched)
    assert not re.search(r"https?://|//cdn|@import|url\(", page)


def test_slides_unlike_the_training_are_said_beside_the_groups(world, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(world.folder / "out", folder)
    said = "More than half of the tissue of 1 slide is unlike the training"
    write_cohort_report(folder)
    assert said not in (folder / "report.html").read_text()
    summary = next(folder.glob("slides/*/slide.json"))
    facts = json.loads(summary.read_text())
    facts["quality"]["unlike_share"] = 0.7
    summary.write_text(json.dumps(facts))
    write_cohort_report(folder)
    assert said in (folder / "report.html").read_text()


def test_text_of_files_is_no_markup(page):
    assert "<b>slide</b>" not in page
    assert "&lt;b&gt;slide&lt;/b&gt; 3" in page
    assert "alert(1)" not in page.replace("&lt;script&gt;alert(1)&lt;/script&gt;", "")


def test_it_says_what_became_of_the_slides(page):
    assert "8 slides of 4 patients: 7 mapped, 1 failed" in page
    assert re.search(r"Slides that failed \(1\).*s7\.tif", page, re.DOTALL)
    assert "Composition by group" in page
    assert "control (2 patients)" in page


def test_its_numbers_are_those_of_the_tables(world, page):
    out = world.folder / "out"
    tables = slide_tables(out)
    slides = pd.read_csv(out / "slides.csv", index_col=0)
    composition = pd.read_csv(out / "composition.csv")
    groups = pd.read_csv(out / "groups.csv")
    assert list(slides["status"]) == ["done"] * 7 + ["failed"]
    assert list(slides["status (manifest)"]) == ["fixed"] * 8
    np.testing.assert_allclose(slides["share Pink"].to_numpy()[:7], tables.shares["Pink"])
    np.testing.assert_allclose(composition["mean"].to_numpy().reshape(7, 3).sum(axis=1), 1, atol=2e-3)
    mean = groups.query("type == 'Pink' and group == 'treated'").iloc[0]
    assert mean["patients"] == 2
    # a second computation: patients by the number of their patches
    facts = [json.loads((out / "slides" / p.name / "slide.json").read_text()) for p in (out / "slides").iterdir()
             if (p / "slide.json").exists()]  # fmt: skip
    by_slide = {f["slide"][-1]: (f["composition"]["Pink"]["mean"], f["quality"]["patches"]) for f in facts}
    patients = [np.average([by_slide[i][0] for i in ids], weights=[by_slide[i][1] for i in ids]) for ids in ("23", "6")]
    assert mean["mean"] == pytest.approx(np.mean(patients))
    assert f'data-sort="{mean["mean"]:.6f}"' in page


def test_the_same_numbers_as_h5ad_and_parquet(world):
    import anndata

    out = world.folder / "out"
    table = anndata.read_h5ad(out / "cohort.h5ad")
    tables = slide_tables(out)
    np.testing.assert_allclose(table.X, tables.shares, atol=1e-6)
    np.testing.assert_allclose(table.layers["sd"], tables.sds, atol=1e-6)
    assert list(table.obs["patient"]) == ["P0", "P0", "P1", "P1", "P2", "P2", "P3"]
    assert table.uns["napari_cpnn"]["fingerprint"] == "color-model"
    pytest.importorskip("pyarrow")
    pd.testing.assert_frame_equal(pd.read_parquet(out / "composition.parquet"), tables.composition(), check_dtype=False)


def test_custom_content_of_multiqc(world):
    parts = [json.loads(p.read_text()) for p in sorted((world.folder / "out" / "multiqc").glob("*_mqc.json"))]
    assert [part["plot_type"] for part in parts] == ["bargraph", "table"]
    for part in parts:
        assert {"id", "section_name", "description", "pconfig", "data"} <= set(part)
        assert len(part["data"]) == 7


def test_slides_unlike_the_others_are_marked(world, tmp_path):
    import shutil

    shutil.copytree(world.folder / "out", tmp_path / "out")
    for i, path in enumerate(sorted((tmp_path / "out" / "slides").glob("*/slide.json"))):
        facts = json.loads(path.read_text())
        facts["quality"]["eosin"] = 0.1 + 0.01 * i if i else 3.0
        path.write_text(json.dumps(facts))
    flags = slide_tables(tmp_path / "out").slides["flags"]
    assert [any("eosin is far above" in flag for flag in one) for one in flags] == [True, *[False] * 7]


def test_a_report_of_a_run_that_has_only_begun(world, tmp_path):
    (tmp_path / "run.json").write_bytes((world.folder / "out" / "run.json").read_bytes())
    written = write_cohort_report(tmp_path)
    assert "8 not done yet" in written[0].read_text()
    with pytest.raises(CohortError, match=r"no run\.json"):
        write_cohort_report(tmp_path / "nowhere")
