"""``--json``: every command has it, and stdout is then one strict JSON object, whatever happens."""

from __future__ import annotations

import json
import logging
import math
import signal
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.mapping.test_signature import world

import napari_cpnn as nc
from cohort_world import make_cohort
from napari_cpnn.cli import _parser, main
from napari_cpnn.cli.console import Console
from napari_cpnn.cli.facts import rows_of
from napari_cpnn.cli.parser import leaves
from napari_cpnn.errors import CohortError, CpnnError, CpnnWarning
from napari_cpnn.texts import json_value

FOLDER = nc.sample_folder()
SLIDE, SPOTS, PROTOTYPES, MODEL = (
    str(FOLDER / name) for name in ("slide.tiff", "spots.h5ad", "prototypes.h5ad", "model.safetensors")
)
PART = ["--region", "1500", "1500", "1620", "1620"]
COMMANDS = dict(leaves(_parser()))


def strict(line: str) -> dict:
    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(line, parse_constant=refuse)


def run(capsys: pytest.CaptureFixture[str], *command: object, code: int = 0) -> dict:
    """Run a command with ``--json``, and return what it printed: one object on one line; stderr has lines of JSON."""
    assert main([*map(str, command), "--json"]) == code
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    assert all(len(strict(one)) >= 1 for one in said.err.splitlines())
    found = strict(line)
    assert isinstance(found["warnings"], list)
    assert code or all(Path(path).exists() for path in found["written"])
    return found


def test_every_command_has_it():
    assert {"predict", "train", "cohort run", "doctor"} < set(COMMANDS)
    for name, parser in COMMANDS.items():
        options = {option for action in parser._actions for option in action.option_strings}
        assert "--json" in options, name
    words = {a.help for p in COMMANDS.values() for a in p._actions if "--json" in a.option_strings}
    assert len(words) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_usage_is_an_object_with_the_name_of_the_command(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--json", "--no-such-option"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    found = strict(said.out)
    assert found["command"] in (name, None)  # argparse leaves an option that nobody knows to the first parser
    assert found["error"]["type"] == "UsageError"
    assert said.err == ""


@pytest.mark.parametrize("order", [["--version", "--json"], ["--json", "--version"]])
def test_versions(order, capsys):
    assert main(order) == 0
    versions = strict(capsys.readouterr().out)["versions"]
    assert versions["napari-cpnn"] == nc.__version__
    assert {"python", "torch", "napari", "openslide-python"} <= set(versions)


def test_lists(capsys, tmp_path):
    sets = run(capsys, "signatures")["signatures"]
    assert next(one for one in sets if one["name"] == "Hypoxia")["genes"][0] == "ACOT7"
    models = run(capsys, "models")["models"]
    assert {"breast-her2st", "breast-her2st-without-c4"} <= {one["name"] for one in models}
    assert all(one["patch"]["size_px"] > 0 and Path(one["path"]).is_file() for one in models if one["here"])
    encoders = run(capsys, "encoders")
    assert {one["name"] for one in encoders["encoders"]} >= {"nic", "colour"}
    assert "uni" in {one["name"] for one in encoders["foundation"]}
    source = tmp_path / "none.txt"
    assert run(capsys, "fetch", "hgnc", "--from", source, code=2)["error"]["message"].startswith(
        f"{source} is not a file"
    )


def test_a_map_from_the_slide_to_a_table(tmp_path, capsys):
    out, table = tmp_path / "map.zarr", tmp_path / "map.h5ad"
    predicted = run(capsys, "predict", SLIDE, "--model", MODEL, "--out", out, *PART, "--device", "cpu")
    cmap = nc.CompositionMap.load(out)
    assert predicted["command"] == "predict"
    assert predicted["written"] == [str(out)]
    assert predicted["shape"] == list(cmap.grid.shape)
    assert predicted["n_done"] == predicted["n_tissue"] == int(cmap.tissue.sum())
    assert predicted["shares"] == pytest.approx(dict(zip(cmap.cell_types, cmap.mean_weights(), strict=True)))
    assert run(capsys, "predict", SLIDE, "--model", MODEL, "--out", out, code=2)["error"]["type"] == "CpnnError"
    exported = run(capsys, "export", out, "--out", table, "--genes", "HER2")
    assert (exported["format"], exported["places"], exported["written"]) == ("anndata", [], [str(table)])


def test_what_is_not_known_is_null_and_sets_say_their_genes(tmp_path, capsys):
    cmap = world()
    cmap.provenance["mpp"] = (0.5, 0.5)
    cmap.save(tmp_path / "map.zarr")
    found = run(
        capsys, "export", tmp_path / "map.zarr", "--out", tmp_path / "m.csv", "--signature", "HER2, GRB7, nonsense"
    )
    assert found["unlike_training"]["share"] is None  # the model has no domain
    (one,) = found["signatures"]
    assert one["used"] == ["ERBB2", "GRB7"]
    assert "nonsense" in one["left_out"]


def test_deconvolution_and_prototypes(tmp_path, capsys):
    import anndata as ad

    few = ad.read_h5ad(SPOTS)[:12].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    shares = tmp_path / "shares.csv"
    found = run(capsys, "deconvolve", tmp_path / "few.h5ad", "--prototypes", PROTOTYPES, "--out", shares)
    assert (found["of"], found["n"]) == ("spots", 12)
    assert found["shares"] == pytest.approx(pd.read_csv(shares, index_col=0).mean().to_dict(), abs=1e-5)
    cells = next(FOLDER.glob("*cells*"))
    options = ["--method", "mean", "--out", tmp_path / "p.h5ad", "--markers", tmp_path / "markers.csv"]
    column = next(n for n in ad.read_h5ad(cells, backed="r").obs if "type" in n)
    made = run(capsys, "prototypes", cells, "--cell-type", column, *options)
    (one,) = made["prototypes"]
    protos = nc.Prototypes.load(tmp_path / "p.h5ad")
    assert one["cells"] == dict(zip(protos.cell_types, protos.n_cells.tolist(), strict=True))
    assert len(made["written"]) == 2


def test_a_window_says_what_was_opened(tmp_path, monkeypatch, capsys):
    pytest.importorskip("napari_cpnn.ui.viewer.launch")
    shot = tmp_path / "shot.png"
    monkeypatch.setattr("napari_cpnn.ui.viewer.open_viewer", lambda *_, **more: more["screenshot"].write_text(""))
    found = run(capsys, "open", SLIDE, "--model", MODEL, "--gene", "ERBB2", "--screenshot", shot)
    assert (found["opened"], found["gene"], found["written"]) == (SLIDE, "ERBB2", [str(shot)])
    found = run(capsys, "demo", "--screenshot", shot, "--overwrite")
    assert (found["command"], found["opened"], found["model"]) == ("demo", SLIDE, MODEL)


def test_a_cohort(tmp_path, monkeypatch, capsys):
    from cohort_world import ExactModel

    monkeypatch.setattr("napari_cpnn.models.load_model", lambda *_: ExactModel().eval())
    cohort, out = make_cohort(tmp_path, n=2, damaged=[1]), tmp_path / "out"
    found = run(capsys, "cohort", "check", cohort.manifest)
    assert (found["command"], found["n_slides"]) == ("cohort check", 2)
    options = ["--workers", "0", "--device", "cpu", "--qc-patches", "4", "--model", "m.safetensors"]
    assert main(["cohort", "run", str(cohort.manifest), *options, "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    done, lines = strict(said.out), [strict(line) for line in said.err.splitlines()]
    assert (done["done"], list(done["failed"])) == (1, ["s1"])
    assert any(line.get("note", "").startswith("s1 failed") for line in lines)
    assert lines[-1] == {"progress": "mapping", "done": 1.0, "seconds_left": 0.0}
    assert run(capsys, "cohort", "status", out)["seconds_left"] is None
    assert str(out / "report.html") in run(capsys, "cohort", "report", out)["written"]
    cohort.manifest.write_text("slide\nno.tif\nnot.tif\n")
    error = run(capsys, "cohort", "check", cohort.manifest, code=2)["error"]
    assert (error["type"], len(error["problems"])) == ("CohortError", 2)


def test_errors_have_the_name_of_their_class(tmp_path, capsys):
    image = tmp_path / "white.png"
    from PIL import Image

    Image.new("RGB", (2000, 2000), "white").save(image)
    command = ["predict", image, "--mpp", "0.5", "--model", MODEL, "--out", tmp_path / "m.zarr", "--device", "cpu"]
    found = run(capsys, *command, code=2)
    assert found["error"]["type"] == "NoTissueError"
    assert found["error"]["message"].startswith("No stained tissue was found")
    assert found["command"] == "predict"


class FailsError(CpnnError):
    """An error of a test, with what was found before."""

    facts = {"share": math.nan, "path": Path("a")}  # noqa: RUF012


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            FailsError("Two words."),
            2,
            {"share": None, "path": "a", "error": {"type": "FailsError", "message": "Two words."}},
        ),
        (
            CohortError("It is wrong.", problems=("a", "b")),
            2,
            {"error": {"type": "CohortError", "message": "It is wrong.", "problems": ["a", "b"]}},
        ),
        (KeyboardInterrupt(), 130, {"error": {"type": "KeyboardInterrupt", "message": "interrupted"}}),
    ],
)
def test_exit_codes_and_what_stands_for_the_result(error, code, said, monkeypatch, capsys):
    def fail(_path: Path) -> None:
        raise error

    monkeypatch.setattr("napari_cpnn.cohort_run.write_cohort_report", fail)
    assert main(["cohort", "report", "x"]) == code
    assert capsys.readouterr().out == ""
    assert main(["cohort", "report", "x", "--json"]) == code
    assert strict(capsys.readouterr().out) == {"command": "cohort report", **said, "warnings": []}


@pytest.mark.parametrize("error", [CohortError("The file is damaged."), TypeError("no object of the type")])
def test_what_a_library_makes_of_an_interruption_is_an_interruption(error, request, monkeypatch, capsys):
    """One that is not written in Python may turn KeyboardInterrupt into an error of its own."""

    def swallow(_path: Path) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.setattr("napari_cpnn.cohort_run.write_cohort_report", swallow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    assert main(["cohort", "report", "x", "--json"]) == 130
    assert strict(capsys.readouterr().out)["error"] == {"type": "KeyboardInterrupt", "message": "interrupted"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_fault_of_the_program_is_an_object_and_a_traceback(monkeypatch, capsys):
    def fail(_path: Path) -> None:
        raise ZeroDivisionError("ouch")

    monkeypatch.setattr("napari_cpnn.cohort_run.write_cohort_report", fail)
    with pytest.raises(ZeroDivisionError):
        main(["cohort", "report", "x", "--json"])
    assert strict(capsys.readouterr().out)["error"] == {"type": "ZeroDivisionError", "message": "ouch"}


def test_nothing_else_reaches_stdout_and_warnings_are_in_the_result(monkeypatch, capsys):
    def report(_path: Path) -> list[Path]:
        print("a library talks")  # noqa: T201
        logging.getLogger("napari_cpnn.spots").info("3 spots left out")
        for _ in range(2):
            warnings.warn("odd tissue", CpnnWarning, stacklevel=2)
        return []

    monkeypatch.setattr("napari_cpnn.cohort_run.write_cohort_report", report)
    assert main(["cohort", "report", "x", "--json"]) == 0
    said = capsys.readouterr()
    assert strict(said.out) == {"command": "cohort report", "written": [], "warnings": ["odd tissue"]}
    assert [strict(line) for line in said.err.splitlines()] == [{"note": "3 spots left out"}, {"warning": "odd tissue"}]


def test_progress_is_said_once_a_second(monkeypatch, capsys):
    assert Console(as_json=True).progress(quiet=True) is False
    now = [0.0]
    monkeypatch.setattr("napari_cpnn.cli.console.time.monotonic", lambda: now[0])
    step = Console(as_json=True).progress()
    for i in range(11):
        step("reading", i / 10)
        now[0] += 0.3
    step("writing", 0.0)
    lines = [strict(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["progress"], line["done"]) for line in lines] == [
        ("reading", 0.0), ("reading", 0.4), ("reading", 0.8), ("reading", 1.0), ("writing", 0.0),
    ]  # fmt: skip
    assert [line["seconds_left"] for line in lines] == [None, 1.8, 0.6, 0.0, None]


def test_rows_and_values():
    table = pd.DataFrame({"pcc": [0.5, np.nan], "n": [3, 4]}, index=pd.Index(["A", "B"], name="gene"))
    assert json_value(rows_of(table)) == [{"gene": "A", "pcc": 0.5, "n": 3}, {"gene": "B", "pcc": None, "n": 4}]
    assert json_value(np.array([[np.inf, 1.0]])) == [[None, 1.0]]
    assert json_value(np.float32(0.25)) == 0.25
