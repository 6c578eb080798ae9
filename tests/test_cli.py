"""The command line as a user types it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tqdm import tqdm

from fakes import tissue_image
from napari_cpnn.cli import main
from napari_cpnn.errors import CpnnWarning
from small_world import no_curves

__all__ = ["no_curves"]


@pytest.fixture
def slide_path(tmp_path):
    import tifffile

    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, tissue_image(24, 30), tile=(128, 128), compression="zlib", photometric="rgb")
    return path


@pytest.fixture
def prototypes_path(tmp_path):
    import anndata as ad

    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(60, 0.3), 3)
    kinds = np.repeat(["A cell", "B cell", "C cell"], 40)
    counts = np.concatenate([rng.poisson(truth[k] * 2000, (40, 60)) for k in range(3)])
    cells = ad.AnnData(
        counts.astype(np.float32),
        obs=pd.DataFrame({"celltype": kinds}, index=[f"c{i}" for i in range(120)]),
        var=pd.DataFrame(index=[f"GENE{i}" for i in range(60)]),
    )
    cells.write_h5ad(tmp_path / "cells.h5ad")
    out = tmp_path / "prototypes.h5ad"
    options = ["--out", str(out), "--min-genes", "1", "--min-cells", "1"]
    assert main(["prototypes", str(tmp_path / "cells.h5ad"), *options]) == 0
    return out


@pytest.fixture
def spots_paths(tmp_path):
    """Legacy ST: counts and positions on a square array of 64 px."""
    rng = np.random.default_rng(1)
    rows = [(x, y) for x in range(3, 13) for y in range(3, 10)]
    names = [f"{x}x{y}" for x, y in rows]
    counts = pd.DataFrame(rng.poisson(3, (len(rows), 60)), index=names, columns=[f"GENE{i}" for i in range(60)])
    counts.to_csv(tmp_path / "counts.tsv", sep="\t")
    table = pd.DataFrame(rows, columns=["x", "y"])
    table["new_x"], table["new_y"] = table.x, table.y
    table["pixel_x"], table["pixel_y"] = table.x * 64.0, table.y * 64.0
    table["selected"] = 1
    table.to_csv(tmp_path / "positions.tsv", sep="\t", index=False)
    return tmp_path / "counts.tsv", tmp_path / "positions.tsv"


def test_prototypes_prints_the_types(prototypes_path, capsys):
    from napari_cpnn import Prototypes

    protos = Prototypes.load(prototypes_path)
    assert protos.cell_types == ("A cell", "B cell", "C cell")
    np.testing.assert_allclose(protos.profiles.sum(axis=1), 1, rtol=1e-5)


def test_prototypes_of_several_columns_by_regression_over_batches(prototypes_path, tmp_path, capsys):
    import anndata as ad

    from napari_cpnn import Prototypes

    cells = ad.read_h5ad(tmp_path / "cells.h5ad")
    cells.obs["major"] = cells.obs["celltype"].astype(str).str.replace("C cell", "B cell")
    cells.obs["donor"] = [f"D{i % 2}" for i in range(cells.n_obs)]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    columns = ["--cell-type", "celltype", "--cell-type", "major", "--batch", "donor"]
    filters = ["--min-genes", "1", "--min-cells", "1"]
    args = ["prototypes", str(tmp_path / "cells.h5ad"), *columns, *filters, "--out", str(tmp_path / "protos")]
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert "2 cell types x" in printed
    assert "  converged after " in printed
    assert "batch 1: depth " in printed
    assert "D1" not in printed
    assert Prototypes.load(tmp_path / "protos" / "major.h5ad").cell_types == ("A cell", "B cell")
    assert Prototypes.load(tmp_path / "protos" / "celltype.h5ad").dispersion is not None
    assert main(args) == 2
    assert "celltype.h5ad exists already" in capsys.readouterr().err


def test_train_evaluate_predict(slide_path, spots_paths, prototypes_path, tmp_path, capsys):
    """The way from files to a map: every command on what the one before wrote."""
    counts, positions = spots_paths
    pair = ["--slide", str(slide_path), "--spots", str(counts), "--positions", str(positions), "--mpp", "1.0"]
    run = tmp_path / "run"
    options = ["--backbone", "squeezenet", "--weights", "none", "--max-epochs", "1", "--patch", "64", "1.0", "--quiet"]
    options += ["--batch-size", "16", "--device", "cpu", "--n-programs", "2"]
    capsys.readouterr()
    assert main(["train", *pair, "--prototypes", str(prototypes_path), "--out", str(run), *options, "--json"]) == 0
    model = run / "model.safetensors"
    assert model.is_file()
    *events, trained = map(json.loads, capsys.readouterr().out.splitlines())
    assert {"preparing", "step", "epoch", "saved"} <= {one["event"] for one in events}
    assert (trained["event"], trained["command"], trained["written"]) == ("finished", "train", [str(model)])
    assert main(["train", *pair, "--prototypes", str(prototypes_path), "--out", str(run), *options, "--resume"]) == 2
    assert "is finished; its model is" in capsys.readouterr().err
    assert main(["evaluate", *pair, "--model", str(model), "--out", str(tmp_path / "scores.csv")]) == 0
    scores = pd.read_csv(tmp_path / "scores.csv", index_col=0)
    assert {"pcc", "scc", "n_spots"} <= set(scores.columns)
    assert "PCC" in capsys.readouterr().out
    from napari_cpnn.regions import Region, write_regions

    corners = [(0, 0), (0, 9e4), (9e4, 9e4), (9e4, 0)]
    write_regions([Region.from_vertices("All", corners)], tmp_path / "regions.geojson", (1.0, 1.0))
    more = ["--out", str(tmp_path / "parts.csv"), "--regions", str(tmp_path / "regions.geojson"), "--figure", "GENE3"]
    capsys.readouterr()
    assert main(["evaluate", *pair, "--model", str(model), *more, "--json"]) == 0
    (evaluated,) = (found := json.loads(capsys.readouterr().out))["slides"]
    assert [row["region"] for row in evaluated["regions"]] == ["all spots", "All"]
    assert evaluated["scores"]["pcc"] == pytest.approx(scores["pcc"].mean(), abs=1e-3)
    assert len(found["written"]) == 3
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "parts.csv", index_col=0), scores, rtol=1e-4)
    regions = pd.read_csv(tmp_path / "parts_regions.csv", index_col=0)
    assert list(regions.index) == ["all spots", "All"]
    assert regions.loc["All", "n_spots"] == scores["n_spots"].max()
    assert (tmp_path / "parts_GENE3.png").stat().st_size > 10_000
    assert main(["evaluate", *pair, "--model", str(model), *more]) == 2
    assert "parts.csv exists already; choose another name, or replace it with --overwrite" in capsys.readouterr().err
    (tmp_path / "parts.csv").unlink()
    assert main(["evaluate", *pair, "--model", str(model), *more]) == 2
    assert "parts_GENE3.png exists already" in capsys.readouterr().err
    assert not (tmp_path / "parts.csv").exists()
    unknown = ["--out", str(tmp_path / "other.csv"), "--figure", "NONE"]
    assert main(["evaluate", *pair, "--model", str(model), *unknown]) == 2
    assert "The model does not have NONE" in capsys.readouterr().err
    assert main(["evaluate", *pair, "--model", str(model), *more[2:]]) == 2
    assert "give its path with --out" in capsys.readouterr().err
    assert main(["evaluate", *pair, "--model", str(model), *more, "--regions", "a", "b"]) == 2
    assert "a file for each of the 1 slides, not 2" in capsys.readouterr().err
    capsys.readouterr()
    sets = ["--signature", "GENE1, GENE2, NONE", "--out", str(tmp_path / "sets.csv"), "--figure", "GENE1, GENE2"]
    assert main(["evaluate", *pair, "--model", str(model), *sets, "--least-pcc", "-1"]) == 0
    table = pd.read_csv(tmp_path / "sets_signatures.csv", index_col=0)
    assert table.loc["GENE1, GENE2, NONE", "genes"] == "GENE1 GENE2"
    assert f"GENE1, GENE2, NONE: PCC {table['pcc'].iloc[0]:z.3f}, SCC" in (told := capsys.readouterr().out)
    assert "mean z-score over the spots of 2 of 3 genes (GENE1, GENE2)" in told
    assert len(list(tmp_path.glob("sets_*.png"))) == 1
    for options, reason in (
        (["--signature", "Hypoxy"], "There is no gene set 'Hypoxy'"),
        (["--signature", "GENE1, GENE2", "--least-pcc", "2"], "must be between -1 and 1, not 2"),
        (["--least-pcc", "0.2"], "--least-pcc is for --signature"),
    ):
        assert main(["evaluate", *pair, "--model", str(model), *options]) == 2
        assert reason in (told := capsys.readouterr().err)
        assert told.count("\n") == 1
    out = tmp_path / "map.zarr"
    predict = ["predict", str(slide_path), "--mpp", "1.0", "--model", str(model), "--out", str(out), "--quiet"]
    assert main([*predict, "--signature", "GENE1, GENE2", "--signature", "Hypoxy"]) == 2
    assert not out.exists()
    predict += ["--signature", "GENE1, GENE2", "--least-pcc", "-1"]
    assert main(predict) == 0
    assert "GENE1, GENE2: mean z-score over the mapped tissue of " in capsys.readouterr().out
    from napari_cpnn import CompositionMap, signature
    from napari_cpnn.mapping import mean_z

    cmap = CompositionMap.load(out)
    assert np.isfinite(cmap.expression("GENE3")[cmap.tissue]).all()
    scored = pd.read_csv(tmp_path / "map_signatures.csv")["signature GENE1, GENE2"]
    one = signature(cmap, ["GENE1", "GENE2"], least_pcc=-1)
    np.testing.assert_allclose(np.sort(scored), np.sort(mean_z(cmap, one.used)[cmap.tissue]), atol=2e-3)
    out.rename(tmp_path / "before.zarr")
    assert main(predict) == 2
    assert "map_signatures.csv exists already" in capsys.readouterr().err


def test_deconvolve_writes_shares(spots_paths, prototypes_path, tmp_path, capsys):
    counts, positions = spots_paths
    out = tmp_path / "shares.csv"
    args = ["deconvolve", str(counts), "--positions", str(positions), "--prototypes", str(prototypes_path)]
    assert main([*args, "--out", str(out)]) == 0
    shares = pd.read_csv(out, index_col=0)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    said = capsys.readouterr().out
    assert f"-> {out}" in said
    assert "%" in said
    assert main([*args, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    pd.testing.assert_frame_equal(pd.read_csv(out, index_col=0), shares)


def test_deconvolve_takes_settings_and_writes_standard_deviations(spots_paths, prototypes_path, tmp_path, capsys):
    counts, positions = spots_paths
    out, sd = tmp_path / "shares.csv", tmp_path / "sd.csv"
    args = ["deconvolve", str(counts), "--positions", str(positions), "--prototypes", str(prototypes_path)]
    assert main([*args, "--out", str(out), "--sd", str(sd), "--background", "0", "--max-genes", "30"]) == 0
    shares, deviations = pd.read_csv(out, index_col=0), pd.read_csv(sd, index_col=0)
    assert list(deviations.columns) == list(shares.columns)
    assert (deviations.to_numpy() > 0).all()
    others = ["--out", str(tmp_path / "more.csv"), "--sd", str(tmp_path / "more_sd.csv")]
    assert main([*args, *others, "--method", "nnls"]) == 2
    assert "gives no uncertainty" in capsys.readouterr().err


def test_deconvolve_bulk_samples(prototypes_path, tmp_path):
    from anndata import AnnData

    from napari_cpnn import Prototypes

    protos = Prototypes.load(prototypes_path)
    counts = np.random.default_rng(0).poisson(protos.profiles * 1e6)
    AnnData(counts, var=pd.DataFrame(index=list(protos.genes))).write_h5ad(tmp_path / "bulk.h5ad")
    args = ["deconvolve", str(tmp_path / "bulk.h5ad"), "--bulk", "--prototypes", str(prototypes_path)]
    assert main([*args, "--out", str(tmp_path / "shares.csv")]) == 0
    shares = pd.read_csv(tmp_path / "shares.csv", index_col=0)
    assert np.diag(shares).min() > 0.8


def test_a_table_that_cannot_be_written_leaves_no_litter(spots_paths, prototypes_path, tmp_path, capsys):
    out = tmp_path / "results"
    out.write_text("a file where the folder should be")
    args = ["deconvolve", str(spots_paths[0]), "--positions", str(spots_paths[1]), "--prototypes", str(prototypes_path)]
    assert main([*args, "--out", str(out / "shares.csv")]) == 2
    assert "could not be written" in capsys.readouterr().err
    assert out.read_text() == "a file where the folder should be"
    assert not list(tmp_path.glob(".napari-cpnn-*"))


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    args = [sys.executable, "-m", "napari_cpnn.cli", "predict", "nothing.svs", "--model", "none.safetensors"]
    done = subprocess.run([*args, "--out", str(tmp_path / "m.zarr")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("napari-cpnn: ")
    assert "nothing.svs" in lines[0]


def test_what_was_left_out_is_said_on_stderr(spots_paths, prototypes_path, tmp_path, capsys):
    """Not only in a log that nobody sees."""
    counts, positions = spots_paths
    table = pd.read_csv(positions, sep="\t")
    table.loc[:4, "selected"] = 0
    table.to_csv(positions, sep="\t", index=False)
    args = ["deconvolve", str(counts), "--positions", str(positions), "--prototypes", str(prototypes_path)]
    assert main([*args, "--out", str(tmp_path / "shares.csv")]) == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("napari-cpnn: ")
    assert line.endswith("65 spots; 5 left out (5 not selected)")


def test_a_place_that_cannot_be_written_is_found_before_the_work(slide_path, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "map.zarr"
    assert main(["predict", str(slide_path), "--model", "none.safetensors", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith(f"{tmp_path / 'file'} is a file; choose a folder for the results.")


def test_scores_of_slides_with_one_name_are_all_kept(slide_path, spots_paths, tmp_path, monkeypatch, capsys):
    from napari_cpnn import evaluation, models

    scores = iter(pd.DataFrame({"pcc": [r], "scc": [r], "n_spots": 70}, index=["GENE0"]) for r in (0.1, 0.2))
    monkeypatch.setattr(
        models, "load_model", lambda *_: SimpleNamespace(title="m", trust=None, has_seen=lambda _: False)
    )
    monkeypatch.setattr(evaluation, "evaluate", lambda *_: next(scores))
    pair = ["--slide", str(slide_path), "--spots", str(spots_paths[0]), "--positions", str(spots_paths[1])]
    args = ["evaluate", *pair, *pair, "--mpp", "1.0", "--model", "m", "--out", str(tmp_path / "scores")]
    assert main(args) == 0
    tables = [pd.read_csv(tmp_path / "scores" / f"slide{end}.csv") for end in ("", "-2")]
    assert [t.pcc[0] for t in tables] == [0.1, 0.2]


def test_an_existing_result_is_not_overwritten(slide_path, tmp_path, capsys):
    out = tmp_path / "map.zarr"
    out.mkdir()
    assert main(["predict", str(slide_path), "--model", "m.safetensors", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    table = str(tmp_path / "map.h5ad")
    assert main(["predict", str(slide_path), "--model", "m.safetensors", "--out", table]) == 2
    assert "predict writes a map with the extension .zarr; convert it to map.h5ad with export." in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "command",
    [
        "deconvolve SPOTS --positions POSITIONS --prototypes PROTOTYPES --out SPOTS",
        "deconvolve SPOTS --positions POSITIONS --prototypes PROTOTYPES --out new.csv --sd PROTOTYPES",
        "deconvolve SPOTS --positions POSITIONS --prototypes PROTOTYPES --out new.csv --sd new.csv",
        "prototypes CELLS --out CELLS",
        "prototypes CELLS --out new.h5ad --markers new.h5ad",
        "prototypes CELLS --cell-type celltype --cell-type batch --out new --markers new",
        "prototypes CELLS --cell-type a/b --cell-type a:b --out new",
        "evaluate --slide SLIDE --spots SPOTS --positions POSITIONS --model m.safetensors --out POSITIONS.csv",
        "evaluate --slide SLIDE --spots SPOTS --positions POSITIONS --model m.safetensors --out new.txt",
        "train --slide SLIDE --spots SPOTS --positions POSITIONS --prototypes PROTOTYPES --out PROTOTYPES",
        "cross-validate --slide SLIDE --spots SPOTS --prototypes PROTOTYPES --groups a --out new --table new/folds.csv",
        "cross-validate --slide SLIDE --spots SPOTS --prototypes PROTOTYPES --groups a --out new --table new",
        "predict SLIDE --model m.safetensors --out SLIDE/map.zarr",
        "export map.zarr --out map.zarr --overwrite",
        "export map.zarr --out map.zarr/new.csv --overwrite",
        "export map.zarr --slide slide.png --out slide.png --overwrite",
        "export map.zarr --genes list.csv --out ./list.csv --overwrite",
        "open slide.png --screenshot slide.png",
    ],
)
def test_a_result_never_takes_the_place_of_an_input_or_of_another(
    slide_path, spots_paths, prototypes_path, tmp_path, monkeypatch, capsys, command
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.zarr").mkdir()
    for name in ("slide.png", "list.csv", "positions.tsv.csv"):
        (tmp_path / name).write_text("mine")
    names = {"SPOTS": spots_paths[0], "POSITIONS": spots_paths[1], "PROTOTYPES": prototypes_path, "SLIDE": slide_path}
    for word, path in {**names, "CELLS": tmp_path / "cells.h5ad"}.items():
        command = command.replace(word, path.name)
    command = command.replace("--positions positions.tsv", "--positions positions.tsv.csv")

    def content():
        return {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    before = content()
    capsys.readouterr()
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert any(
        words in said
        for words in (
            "by the same task",
            "two results",
            "to be a file",
            "lies in",
            "written as .csv",
            "is a file; choose a folder",
        )
    ), said
    assert content() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_result_never_takes_the_place_of_a_pipe(spots_paths, prototypes_path, tmp_path, capsys):
    os.mkfifo(tmp_path / "out.csv")
    spots = [str(spots_paths[0]), "--positions", str(spots_paths[1]), "--prototypes", str(prototypes_path)]
    assert main(["deconvolve", *spots, "--method", "nnls", "--out", str(tmp_path / "out.csv")]) == 2
    assert "out.csv is a pipe, not a file; choose a file." in capsys.readouterr().err
    assert (tmp_path / "out.csv").is_fifo()


@pytest.mark.parametrize("mpp", ["abc", "1,2,3", "0.0001", "400"])
def test_a_pixel_size_that_makes_no_sense_is_a_sentence(slide_path, tmp_path, mpp, capsys):
    args = ["predict", str(slide_path), "--mpp", mpp, "--model", "m.safetensors", "--out", str(tmp_path / "o.zarr")]
    assert main(args) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_patch_that_makes_no_sense_is_a_sentence(capsys):
    args = ["train", "--slide", "s", "--spots", "t", "--prototypes", "p", "--out", "o", "--patch", "large", "1"]
    assert main(args) == 2
    assert "--patch takes" in capsys.readouterr().err


def test_uneven_pairs_are_counted(slide_path, spots_paths, prototypes_path, tmp_path, capsys):
    args = ["train", "--slide", str(slide_path), "--slide", str(slide_path), "--spots", str(spots_paths[0])]
    assert main([*args, "--prototypes", str(prototypes_path), "--out", str(tmp_path / "run")]) == 2
    assert "2 slides, 1 spot tables" in capsys.readouterr().err


def test_settings_of_the_command_line_reach_the_dataclass():
    from napari_cpnn.cli import _parser
    from napari_cpnn.cli.options import chosen_settings
    from napari_cpnn.cli.science import _training_settings
    from napari_cpnn.geometry import PatchSpec
    from napari_cpnn.settings import MappingSettings, TrainingSettings

    base = ["train", "--slide", "s", "--spots", "t", "--prototypes", "p", "--out", "o"]
    args = _parser().parse_args([*base, "--preset", "paper", "--max-epochs", "3", "--no-augment", "--patch", "96", "1"])
    expected = TrainingSettings.paper(max_epochs=3, augment=False, patch=PatchSpec(96, 1.0))
    assert _training_settings(args) == expected
    assert _training_settings(_parser().parse_args(base)) == TrainingSettings()
    args = _parser().parse_args(["open", "s", "--stride-um", "56", "--no-cache", "--device", "cpu"])
    assert chosen_settings(args, MappingSettings) == MappingSettings(stride_um=56.0, cache=False, device="cpu")


@pytest.mark.slow  # test_cross_validation does it in Python
def test_cross_validate_compares_heads_on_the_same_folds(slide_path, spots_paths, prototypes_path, tmp_path, capsys):
    counts, positions = spots_paths
    pair = ["--slide", str(slide_path), "--spots", str(counts), "--positions", str(positions)]
    out = tmp_path / "cv"
    args = ["cross-validate", *pair, *pair, "--mpp", "1.0", "--prototypes", str(prototypes_path), "--out", str(out)]
    args += [
        "--groups",
        "B",
        "C",
        "--compare",
        "ST-Net=plain,loss=mse",
        "--compare",
        "ours",
        "--backbone",
        "squeezenet",
    ]
    args += ["--weights", "none", "--max-epochs", "1", "--patch", "64", "1.0", "--quiet", "--batch-size", "16"]
    args += ["--device", "cpu", "--n-programs", "2", "--validation", "none", "--backbone-learning-rate", "0"]
    args += ["--ceiling-repeats", "2", "--bootstraps", "20", "--table", str(tmp_path / "scores.parquet")]
    assert main(args) == 0
    said = capsys.readouterr().out
    assert main([*args, "--json", "--overwrite"]) == 0  # folds that are finished are not repeated
    found = json.loads(capsys.readouterr().out)
    assert {(row["head"], row["fold"]) for row in found["folds"]} == {(h, f) for h in ("ST-Net", "ours") for f in "BC"}
    assert {row["head"] for row in found["comparison"]} >= {"ours"}
    assert str(tmp_path / "scores.parquet") in found["written"]
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    places = scores[["head", "fold", "slide"]].drop_duplicates().itertuples(index=False, name=None)
    assert set(places) == {(h, *p) for h in ("ST-Net", "ours") for p in (("B", "slide"), ("C", "slide-2"))}
    assert {p.name for p in out.iterdir()} >= {"scores.csv", "folds.csv", "comparison.csv", "report.png"}
    assert "ST-Net, B: PCC " in said
    assert "noise ceiling" in said
    assert "ours against ST-Net: PCC given depth " in said


@pytest.mark.parametrize(
    ("text", "name", "changes"),
    [
        ("paper", "paper", {"n_programs": 0, "composition_weight": 0.0}),
        ("ST-Net=plain,loss=mse", "ST-Net", {"head": "linear", "loss": "mse"}),
        ("x=ours,n-programs=8,calibrate=false,composition_weight=2", "x",
         {"n_programs": 8, "calibrate": False, "composition_weight": 2.0}),
    ],
)  # fmt: skip
def test_heads_to_compare(text, name, changes):
    from napari_cpnn.cli.evaluation import head_to_compare

    found, settings = head_to_compare(text, {"max_epochs": 3})
    assert found == name
    assert settings.max_epochs == 3
    assert {key: getattr(settings, key) for key in changes} == changes


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (["triplex"], "--compare takes ours, paper or plain"),
        (["x=ours,wings=2"], "Unknown setting 'wings'"),
        (["x=ours,n_programs=many"], "'many' is not a number"),
        (["x=ours,calibrate=perhaps"], "'perhaps' is neither true nor false"),
        (["ours", "ours"], "Two heads have the same name"),
    ],
)
def test_heads_that_cannot_be_compared(heads, message, tmp_path, capsys):
    compare = [word for head in heads for word in ("--compare", head)]
    args = ["--slide", "a", "--spots", "b", "--prototypes", "c", "--out", str(tmp_path / "cv"), "--groups", "section"]
    assert main(["cross-validate", *args, *compare]) == 2
    assert message in capsys.readouterr().err


def test_a_warning_has_a_line_of_its_own_beside_a_progress_bar(capsys):
    from napari_cpnn.cli.console import Console

    with tqdm(total=10, file=sys.stderr) as bar:
        bar.update(3)
        bar.refresh()
        Console(as_json=False)._warn(CpnnWarning("odd tissue"), CpnnWarning)
    # The bar is wiped out first.
    assert re.search(r"\r *\rnapari-cpnn: warning: odd tissue\n", capsys.readouterr().err)


def test_a_run_is_begun_anew_only_if_it_could_be_run(slide_path, spots_paths, prototypes_path, tmp_path, capsys):
    counts, positions = spots_paths
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model.safetensors", "metrics.csv", "notes.txt"):
        (run / name).write_text("earlier")
    pair = ["--slide", str(slide_path), "--spots", str(counts), "--positions", str(positions), "--mpp", "1.0"]
    command = ["train", *pair, "--out", str(run), "--max-epochs", "1", "--overwrite", "--prototypes"]
    assert main([*command, str(tmp_path / "nothing.h5ad")]) == 2
    assert "There is no file" in capsys.readouterr().err
    assert (run / "metrics.csv").read_text() == "earlier"
    assert main([*command, str(prototypes_path), "--resume"]) == 2
    assert "give one of them" in capsys.readouterr().err
    options = ["--backbone", "squeezenet", "--weights", "none", "--patch", "64", "1.0", "--quiet", "--device", "cpu"]
    assert main([*command, str(prototypes_path), *options, "--n-programs", "2"]) == 0
    assert (run / "model.safetensors").stat().st_size > 1000
    assert (run / "notes.txt").read_text() == "earlier"
