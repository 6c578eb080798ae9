"""``cohort check``, ``run``, ``status`` and ``report`` in the terminal."""

from __future__ import annotations

import json

import pytest

from cohort_world import ExactModel, make_cohort
from napari_cpnn.cli import main


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_cpnn.models.load_model", lambda *_: ExactModel().eval())
    return make_cohort(tmp_path, n=4, damaged=[2])


def run(world, *more: str) -> int:
    out = str(world.folder / "out")
    fixed = ["--out", out, "--model", "m.safetensors", "--workers", "0", "--device", "cpu", "--qc-patches", "4"]
    return main(["cohort", "run", str(world.manifest), *fixed, "--precision", "float32", "--quiet", *more])


def test_check_says_what_is_there(world, capsys):
    assert main(["cohort", "check", str(world.manifest)]) == 0
    said = capsys.readouterr().out
    assert said == "4 slides, 4 samples, 2 patients\n  group: control (1 patient), treated (1 patient)\n"


def test_check_says_all_problems(world, capsys):
    world.manifest.write_text("slide,patient,arm\ns0.tif,P1,x\nno.tif,P1,y\n")
    assert main(["cohort", "check", str(world.manifest), "--group", "arm"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [
        "row 3: there is no file no.tif",
        "row 3: patient 'P1' has two values of 'arm': 'y' here, 'x' in row 2",
    ]
    assert said[2].endswith("manifest.csv has 2 problems; nothing was done.")


def test_many_problems_are_counted(world, capsys):
    world.manifest.write_text("slide\n" + "".join(f"no{i}.tif\n" for i in range(3000)))
    assert main(["cohort", "check", str(world.manifest)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 52
    assert said[50] == "... and 2,950 more"
    assert said[51].endswith("has 3,000 problems; nothing was done.")


def test_results_do_not_go_to_a_file(world, capsys):
    (world.folder / "out").write_text("mine")
    assert run(world) == 2
    assert "is a file; choose a folder" in capsys.readouterr().err
    assert (world.folder / "out").read_text() == "mine"


def test_run_status_and_report(world, capsys):
    assert run(world) == 0
    said = capsys.readouterr()
    assert "3 of 4 slides mapped, 1 failed" in said.out
    assert "s2 failed" in said.err
    out = str(world.folder / "out")
    assert main(["cohort", "status", out]) == 0
    said = capsys.readouterr().out
    assert "3 of 4 slides done, 1 failed, 0 to do\nfinished\n" in said
    assert "s2: " in said
    assert main(["cohort", "status", out, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["done"], facts["waiting"], facts["holder"], list(facts["failed"])) == (3, 0, None, ["s2"])
    (world.folder / "out" / "report.html").unlink()
    assert main(["cohort", "report", out]) == 0
    assert (world.folder / "out" / "report.html").is_file()
    assert str(world.folder / "out" / "report.html") in capsys.readouterr().out


def test_strict_and_other_settings_are_errors(world, capsys):
    assert run(world, "--strict") == 2
    assert "s2.tif" in capsys.readouterr().err
    assert run(world, "--stride-um", "64") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(world, "--stride-um", "64", "--overwrite") == 0


def test_status_of_no_run(tmp_path, capsys):
    assert main(["cohort", "status", str(tmp_path)]) == 2
    assert "no folder of a run" in capsys.readouterr().err
