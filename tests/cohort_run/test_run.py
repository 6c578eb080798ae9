"""Runs over a cohort in this process: results, bad slides, taking up again, locks, full disks."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import zarr

from cohort_world import ExactModel, make_cohort, results_of, run_settings
from fakes import PATCH, ColorModel, true_weights
from napari_cpnn.cohort_run import CohortProgress, cohort_status, slide_job, slide_tables
from napari_cpnn.cohort_run.slide_job import job_key
from napari_cpnn.errors import CohortError, GenesError
from napari_cpnn.mapping import DONE, CompositionMap
from napari_cpnn.regions import Region, write_regions
from napari_cpnn.slides import open_slide


def test_a_run_maps_every_slide(cohort_world):
    heard: list[CohortProgress] = []
    status = cohort_world.run(on_progress=heard.append)
    assert (status.slides, status.done, status.failed, status.holder, status.waiting) == (4, 4, {}, None, 0)
    assert [p.last.name for p in heard] == ["s0", "s1", "s2", "s3"]
    assert heard[-1].seconds_left == 0
    for name in ("s0", "s3"):
        folder = cohort_world.folder / "out" / "slides" / name
        facts = json.loads((folder / "slide.json").read_text())
        cmap = CompositionMap.load(folder / "map.zarr")
        assert cmap.provenance["slide"] == name
        assert facts["file"]["path"] == str(cohort_world.folder / f"{name}.tif")
        assert facts["model"]["fingerprint"] == "color-model"
        assert facts["run"]["seconds"] > 0
        # a second computation of the composition, from the pixels
        image = open_slide(cohort_world.folder / f"{name}.tif", 1.0).read_region(0, 0, 384, 448)
        done = np.argwhere(cmap.state == DONE)
        truth = np.array([true_weights(image, row, col) for row, col in done])
        assert PATCH.size_px == 32
        for kind, kind_facts in enumerate(facts["composition"].values()):
            assert kind_facts["mean"] == pytest.approx(truth[:, kind].mean(), abs=2e-3)
            assert kind_facts["sd"] == pytest.approx(truth[:, kind].std(), abs=2e-3)
        assert (folder / "thumbnail.jpg").stat().st_size > 100
        assert not (folder / ".work").exists()


@pytest.mark.parametrize("known", ["s1", "s1.tif"])
def test_slides_of_the_training_are_said(cohort_world, known):
    class Trained(ExactModel):
        def has_seen(self, slide):
            return slide == known

    cohort_world.run(model=Trained().eval())
    remarks = slide_tables(cohort_world.folder / "out").slides["flags"]
    assert remarks["s1"][0].startswith("The model was trained on this slide")
    assert not any("was trained on this" in remark for name in ("s0", "s2", "s3") for remark in remarks[name])


def test_a_second_call_does_nothing_again(cohort_world):
    cohort_world.run()
    before = {p: p.stat().st_mtime_ns for p in (cohort_world.folder / "out" / "slides").rglob("*")}
    heard: list[CohortProgress] = []
    status = cohort_world.run(on_progress=heard.append)
    assert heard == []
    assert status.done == 4
    assert {p: p.stat().st_mtime_ns for p in (cohort_world.folder / "out" / "slides").rglob("*")} == before


def test_a_slide_that_changed_is_done_again(cohort_world):
    import tifffile

    from fakes import tissue_image

    cohort_world.run()
    tifffile.imwrite(cohort_world.folder / "s1.tif", tissue_image(12, 14, seed=77), photometric="rgb", tile=(64, 64))
    heard: list[CohortProgress] = []
    cohort_world.run(on_progress=heard.append)
    assert [p.last.name for p in heard] == ["s1"]


def test_a_folder_that_changed_inside_is_another_job(tmp_path):
    """Pixels of an OME-Zarr change files deep in it, not the time of its folder."""
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="w", zarr_format=2)
    array = group.create_array("0", shape=(64, 64, 3), chunks=(64, 64, 3), dtype="u1")
    group.attrs["multiscales"] = [{"axes": [{"name": a} for a in "yxc"], "datasets": [{"path": "0"}]}]
    array[:] = 7
    before = job_key("run", str(tmp_path / "s.zarr"), 0.5, "")
    assert job_key("run", str(tmp_path / "s.zarr"), 0.5, "") == before
    array[:] = 8
    assert job_key("run", str(tmp_path / "s.zarr"), 0.5, "") != before


def test_one_bad_slide_does_not_stop_the_rest(tmp_path):
    world = make_cohort(tmp_path, damaged=[1])
    status = world.run()
    assert status.done == 3
    assert list(status.failed) == ["s1"]
    assert "s1.tif" in status.failed["s1"]
    (tmp_path / "whole").mkdir()
    (tmp_path / "s1.tif").write_bytes((make_cohort(tmp_path / "whole").folder / "s1.tif").read_bytes())
    assert world.run().failed == {}  # tried again, once it is mended


def test_strict_stops_at_the_first_bad_slide(tmp_path):
    world = make_cohort(tmp_path, damaged=[1])
    with pytest.raises(CohortError, match=r"s1\.tif"):
        world.run(strict=True)
    assert (cohort_status(tmp_path / "out").done, cohort_status(tmp_path / "out").waiting) == (1, 2)


def test_a_slide_that_vanished_and_one_without_tissue_are_sentences(cohort_world):
    import tifffile

    cohort = cohort_world.cohort
    (cohort_world.folder / "s0.tif").unlink()
    white = np.full((384, 448, 3), 245, np.uint8)
    tifffile.imwrite(cohort_world.folder / "s2.tif", white, photometric="rgb", tile=(64, 64))
    failed = cohort_world.run(cohort=cohort).failed
    assert list(failed) == ["s0", "s2"]
    assert "There is no file" in failed["s0"]
    assert "No stained tissue" in failed["s2"]


def test_a_network_that_breaks_is_noted_with_its_traceback(cohort_world):
    class Broken(ColorModel):
        def forward(self, x):
            raise ValueError("weights on fire")

    status = cohort_world.run(model=Broken().eval(), cohort=cohort_world.cohort.subset(["s0"]))
    assert "weights on fire" in status.failed["s0"]


def test_another_model_or_other_settings_are_refused_unless_overwritten(cohort_world):
    cohort_world.run()
    changed = run_settings(genes="ERBB2")
    with pytest.raises(CohortError, match=r"another model or other settings.*--overwrite"):
        cohort_world.run(settings=changed)
    assert cohort_world.run(settings=changed, overwrite=True).done == 4
    table = (cohort_world.folder / "out" / "slides" / "s0" / "slide.csv").read_text()
    assert "ERBB2" in table


def test_other_tables_use_the_map_again(cohort_world, monkeypatch):
    cohort_world.run()
    calls = []
    monkeypatch.setattr("napari_cpnn.cohort_run.slide_job.predict_map", lambda *_, **__: calls.append(1))
    cohort_world.run(settings=run_settings(genes="ERBB2"), overwrite=True)
    assert calls == []


def test_a_folder_of_something_else_is_not_touched(cohort_world):
    (cohort_world.folder / "out").mkdir()
    (cohort_world.folder / "out" / "thesis.doc").write_text("mine")
    with pytest.raises(CohortError, match="not empty and no run"):
        cohort_world.run()
    with pytest.raises(CohortError, match="cannot be made"):
        cohort_world.run(out=cohort_world.manifest / "x")


def test_genes_are_checked_before_any_work(cohort_world):
    with pytest.raises(GenesError, match="NOGENE"):
        cohort_world.run(settings=run_settings(genes="NOGENE"))


def test_the_lock_says_who_holds_the_folder(cohort_world):
    out = cohort_world.folder / "out"
    code = (
        "import sys; from napari_cpnn.cohort_run.folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).held():\n print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(CohortError, match=rf"in use by process {other.pid} on .+ since 20\d\d-"):
            cohort_world.run()
        other.kill()
    assert cohort_world.run().done == 4  # a lock of a killed process holds nobody


def test_a_full_disk_ends_the_run_and_it_goes_on_later(cohort_world, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("napari_cpnn.cohort_run.slide_job.write_picture", full)
        with pytest.raises(CohortError, match=r"No space left.*goes on from here"):
            cohort_world.run()
    status = cohort_status(cohort_world.folder / "out")
    assert (status.done, status.failed, status.mapping) == (0, {}, ("s0",))
    assert cohort_world.run().done == 4


def test_a_map_that_was_interrupted_goes_on_where_it_was(cohort_world, monkeypatch):
    """Killed after half of the patches of a slide, which are not computed again."""
    n_computed = []

    class Counting(ExactModel):
        stop_after = 20

        def forward(self, x):
            n_computed.append(len(x))
            if sum(n_computed) > self.stop_after:
                raise KeyboardInterrupt
            return super().forward(x)

    model = Counting().eval()
    one = cohort_world.cohort.subset(["s0"])
    cohort_world.run("reference", cohort=one, model=ExactModel().eval())
    monkeypatch.setattr("napari_cpnn.mapping.live.LiveMapper._guard", _guard)
    status = cohort_world.run(model=model, cohort=one)
    assert "s0" in status.failed
    Counting.stop_after = 10**9
    before = sum(n_computed)
    assert before > 20
    cohort_world.run(model=model, cohort=one)
    n_patches = results_of(cohort_world.folder / "reference")["s0"][0]["quality"]["patches"]
    assert sum(n_computed) - before <= n_patches
    results = [results_of(cohort_world.folder / out)["s0"] for out in ("out", "reference")]
    assert results[0][1] == results[1][1]


def _guard(self, loop):
    """As if the process of a worker had ended: mapping stops, and what is known by then is on disk."""
    try:
        loop()
    except KeyboardInterrupt:
        with self._condition:
            self.error, self._stopped = RuntimeError("killed"), True
            self._condition.notify_all()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("function", "file"), [("remove", "failed.json"), ("remove", ".work"), ("write_json", "slide.json")]
)
def test_a_slide_that_was_killed_at_its_end_leaves_nothing_behind(tmp_path, monkeypatch, function, file, when):
    world, folder = make_cohort(tmp_path, n=1), tmp_path / "out" / "slides" / "s0"
    world.run("reference")
    world.run("out")
    (folder / "failed.json").touch()  # of an earlier attempt
    (folder / "slide.json").unlink()
    step = getattr(slide_job, function)

    def killed(path, *args):
        if when == "before" and path.name == file:
            raise KeyboardInterrupt
        step(path, *args)
        if path.name == file:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(slide_job, function, killed)
        with pytest.raises(KeyboardInterrupt):
            world.run("out")
    world.run("out")
    assert results_of(tmp_path / "out") == results_of(tmp_path / "reference")
    assert not (folder / "failed.json").exists()


def test_regions_of_a_column_are_in_the_table(cohort_world):
    square = Region.from_vertices("margin", [(100, 100), (100, 300), (300, 300), (300, 100)])
    nowhere = Region.from_vertices("elsewhere", [(9000, 0), (9000, 20), (9020, 20), (9020, 0)])
    write_regions([square, nowhere], cohort_world.folder / "r.geojson", (1.0, 1.0))
    text = cohort_world.manifest.read_text().splitlines()
    lines = [f"{text[0]},regions", f"{text[1]},r.geojson", *(f"{line}," for line in text[2:])]
    cohort_world.manifest.write_text("\n".join(lines))
    cohort_world.run()
    table = (cohort_world.folder / "out" / "slides" / "s0" / "slide.csv").read_text()
    assert "margin" in table
    facts = json.loads((cohort_world.folder / "out" / "slides" / "s0" / "slide.json").read_text())
    assert any("elsewhere" in warning for warning in facts["warnings"])


def test_status_of_a_folder_without_a_run(tmp_path):
    with pytest.raises(CohortError, match=r"no run\.json"):
        cohort_status(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(CohortError, match="damaged"):
        cohort_status(tmp_path)


def test_slides_may_be_added_to_a_cohort(cohort_world):
    cohort = cohort_world.cohort
    cohort_world.run(cohort=cohort.subset(["s0", "s1"]))
    heard: list[CohortProgress] = []
    status = cohort_world.run(cohort=cohort, on_progress=heard.append)
    assert [p.last.name for p in heard] == ["s2", "s3"]
    assert status.done == 4
    assert math.isnan(status.seconds_left)
