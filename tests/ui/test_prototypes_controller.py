"""The Prototypes dock's controller without Qt; background work runs when the test says so."""

from __future__ import annotations

import errno
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import napari_cpnn as nc
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.progress import CancelledError
from napari_cpnn.ui.finetune.controller import FineTuneController
from napari_cpnn.ui.frame.paper import Paper
from napari_cpnn.ui.prototypes import controller as module
from napari_cpnn.ui.prototypes.controller import PrototypesController
from napari_cpnn.ui.prototypes.marker_chart import heat_map, marker_figure
from napari_cpnn.ui.prototypes.words import Result, left_out_words, level_words, number_words, result_words
from napari_cpnn.ui.viewer.state import ExploreState

N = 90
GENES = [f"G{i}" for i in range(39)] + ["MT-CO1"]


def table(seed: int = 0) -> ad.AnnData:
    """Three types over two patients; the first three genes mark one type each."""
    rng = np.random.default_rng(seed)
    kind = np.arange(N) % 3
    counts = rng.poisson(2.0, (N, len(GENES)))
    for c in range(3):
        counts[kind == c, c] += rng.poisson(20, int((kind == c).sum()))
    obs = pd.DataFrame(
        {
            "cell_type": [f"type {'abc'[k]}" for k in kind],
            "patient": [f"P{i % 2}" for i in range(N)],
            "all": "the same",
            "depth": rng.random(N),
        },
        index=[f"cell{i}" for i in range(N)],
    )
    return ad.AnnData(sp.csr_matrix(counts.astype(np.int32)), obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table().write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


class Later:
    """Background work that waits in a list."""

    def __init__(self):
        self.jobs = []

    def __call__(self, work, done, failed):
        self.jobs.append((work, done, failed))

    def run(self):
        while self.jobs:
            work, done, failed = self.jobs.pop(0)
            future = ThreadPoolExecutor(1).submit(work)
            error = future.exception()
            if error is None:
                done(future.result())
            else:
                failed(error)


@pytest.fixture
def setup():
    background, notes, state = Later(), [], ExploreState()
    controller = PrototypesController(state, background, notes.append)
    return SimpleNamespace(c=controller, notes=notes, state=state, go=background.run, background=background)


@pytest.fixture
def opened(setup, path):
    setup.c.open(path)
    setup.go()
    for name, value in {"min_genes": 1, "min_cells": 1, "device": "cpu"}.items():
        assert setup.c.change(name, value)
    return setup


@pytest.fixture
def done(opened):
    opened.c.run()
    opened.go()
    assert opened.c.result is not None
    return opened


def test_what_is_in_a_file_and_what_is_missing(setup, path):
    c = setup.c
    assert c.message == "Choose single cells that are labelled with their types, or open prototypes."
    c.open(path)
    assert c.message == "Reading cells.h5ad ..."
    setup.go()
    assert c.message == ""
    assert [column.name for column in c.reference.columns] == ["cell_type", "patient", "all"]
    assert (c.cell_type, c.batch) == ("cell_type", None)
    assert [(t.name, t.n_cells, t.thin) for t in c.preview()] == [(f"type {x}", 30, False) for x in "abc"]
    c.change("min_cells_per_type", 31)
    assert all(t.thin for t in c.preview())
    assert c.better_min_cells() is None
    c.change("min_cells", 200)
    assert c.better_min_cells() == 3
    c.change("min_cells", 3)
    assert c.better_min_cells() is None
    c.choose_columns("all")
    assert c.message == "All cells of all are the same: choose a column with at least two cell types."
    c.run()
    assert not c.running
    assert len(setup.notes) == 1


@pytest.mark.parametrize("method", ["mean", "nb"])
def test_the_saved_file_is_what_python_estimates(opened, path, tmp_path, method):
    c = opened.c
    c.choose_columns("cell_type", "patient")
    c.change("method", method)
    c.run()
    assert c.running
    opened.go()
    assert not c.running
    expected = nc.estimate_prototypes(nc.read_cells(path), "cell_type", "patient", c.settings)
    pd.testing.assert_frame_equal(c.result.markers, expected.markers(module.N_MARKERS))
    assert [t.n_cells for t in c.types()] == [30, 30, 30]
    assert c.types()[0].counts == table()[np.arange(N) % 3 == 0].X.sum()
    assert c.preview() == []  # the result shows them
    assert c.result.path is None
    assert "not saved yet" in result_words(c.result)
    c.save(tmp_path / "mine")
    opened.go()
    assert c.result.path == tmp_path / "mine.h5ad"
    assert "mine.h5ad" in result_words(c.result)
    saved = nc.Prototypes.load(tmp_path / "mine.h5ad")
    np.testing.assert_array_equal(saved.profiles, expected.profiles)
    assert saved.cell_types == expected.cell_types
    assert saved.genes == expected.genes
    assert saved.provenance == expected.provenance
    # And opened again, as if it came from elsewhere.
    other = PrototypesController(ExploreState(), opened.background, opened.notes.append)
    other.open(tmp_path / "mine.h5ad")
    opened.go()
    assert other.message == ""
    pd.testing.assert_frame_equal(other.result.markers, c.result.markers)
    assert other.result.path == tmp_path / "mine.h5ad"
    assert [t.n_cells for t in other.types()] == [30, 30, 30]


def test_fine_tune_takes_the_saved_file(done, tmp_path):
    fine_tune = FineTuneController(done.state, done.background, done.notes.append)
    done.c.use_for_finetuning()
    assert done.c.message == "Save the prototypes first: training needs their file."
    done.c.save(tmp_path / "p.h5ad", then=done.c.use_for_finetuning)
    done.go()
    assert fine_tune.reference.kind == "prototypes"
    assert fine_tune.reference.path == tmp_path / "p.h5ad"
    assert done.c.message == ""
    fine_tune.close()
    done.c.use_for_finetuning()
    assert not done.background.jobs


def test_cancel_ends_the_work_and_keeps_what_was_there(done, monkeypatch):
    """In a real thread, that would go on for long."""
    c = done.c
    before, steps = c.result, []
    pool = ThreadPoolExecutor(1)
    futures = []

    def background(work, ready, failed):
        future = pool.submit(work)
        futures.append(future)
        future.add_done_callback(lambda f: ready(f.result()) if f.exception() is None else failed(f.exception()))

    def estimate(cells, columns, batch, settings, progress):
        for i in range(1000):
            steps.append(i)
            progress("Counting", i / 1000)
            time.sleep(0.01)

    monkeypatch.setattr("napari_cpnn.prototypes.estimate_all", estimate)
    c._tasks._background = background
    c.run()
    while len(steps) < 3:
        time.sleep(0.01)
    text, share, seconds = c.progress()
    assert text == "Counting"
    assert share > 0
    assert 0 < seconds < 10
    c.cancel()
    assert not c.running
    start = time.perf_counter()
    assert isinstance(futures[0].exception(timeout=5), CancelledError)
    assert time.perf_counter() - start < 1
    assert len(steps) < 900
    assert c.result is before
    assert c.message == ""
    assert len(done.notes) == 0
    monkeypatch.undo()
    c._tasks._background = done.background
    c.run()
    done.go()
    assert c.result is not before
    pool.shutdown()


def test_a_new_run_ends_the_one_before_and_so_does_closing(opened, path):
    c = opened.c
    c.run()
    first = c._stop
    c.run()
    assert first.is_set()
    assert not c._stop.is_set()
    opened.go()
    assert c.result is not None
    c.close()
    assert c._stop.is_set()


def logged(tmp_path):
    cells = table()
    cells.X = cells.X.log1p()
    cells.write_h5ad(tmp_path / "bad.h5ad")


def with_nan(tmp_path):
    cells = table()
    cells.X = cells.X.toarray().astype(np.float32)
    cells.X[5, 5] = np.nan
    cells.write_h5ad(tmp_path / "bad.h5ad")


def half(tmp_path):
    whole = (tmp_path / "cells.h5ad").read_bytes()
    (tmp_path / "bad.h5ad").write_bytes(whole[: len(whole) // 2])


def empty(tmp_path):
    (tmp_path / "bad.h5ad").write_bytes(b"")


def picture(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")


def folder(tmp_path):
    (tmp_path / "bad").mkdir()


def no_labels_table(tmp_path):
    (tmp_path / "bad.csv").write_text("barcode,label\nnobody,T-cells\n")


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (logged, "bad.h5ad", "holds no raw counts (X: it has fractional values"),
        (with_nan, "bad.h5ad", "there are missing or infinite values"),
        (half, "bad.h5ad", "cannot be read"),
        (empty, "bad.h5ad", "cannot be read"),
        (picture, "bad.png", "has an unknown format"),
        (folder, "bad", "has no matrix.mtx"),
        (no_labels_table, "bad.csv", "contains none of the cells"),
        (None, "nowhere.h5ad", "There is no file"),
    ],
)
def test_bad_files_are_one_sentence_and_change_nothing(opened, tmp_path, make, name, words):
    if make is not None:
        make(tmp_path)
    c = opened.c
    before = c.reference
    c.open(tmp_path / name)
    opened.go()
    assert words in c.message
    assert [str(note) for note in opened.notes] == [c.message]
    assert c.reference is before
    c.run()
    opened.go()
    assert c.result is not None
    assert c.message == ""


def test_a_value_that_is_no_count_far_down_is_found_by_the_run(opened, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_cpnn.prototypes.cells._LOOKED_AT", 10)
    cells = table()
    cells.X = cells.X.astype(np.float32)
    cells.X.data[-1] = 0.5
    cells.write_h5ad(tmp_path / "late.h5ad")
    c = opened.c
    c.open(tmp_path / "late.h5ad")
    opened.go()
    c.run()
    opened.go()
    assert "does not hold raw counts" in c.message
    assert not c.running
    assert c.result is None


def test_cells_without_a_gene_or_without_a_cell(setup, tmp_path):
    table()[:, :0].copy().write_h5ad(tmp_path / "no_genes.h5ad")
    table()[:0].copy().write_h5ad(tmp_path / "no_cells.h5ad")
    for name in ("no_genes", "no_cells"):
        setup.c.open(tmp_path / f"{name}.h5ad")
        setup.go()
        setup.c.run()
        setup.go()
        assert setup.c.message.endswith((".", "first"))
        assert setup.c.result is None
    assert len(setup.notes) >= 2


def test_filters_that_leave_nothing_are_said(opened):
    opened.c.change("min_genes", 5000)
    opened.c.run()
    opened.go()
    assert "No cell is left of 90" in opened.c.message
    opened.c.change("min_genes", 1)
    assert opened.c.message == ""
    opened.c.run()
    opened.go()
    assert opened.c.result is not None


def test_settings_that_make_no_sense_are_refused(opened):
    c = opened.c
    assert not c.change("max_mito", 2.0)
    assert c.message == "The maximum mitochondrial share must be in (0, 1]."
    assert not c.change("min_cells", "many")
    assert c.settings.min_cells == 1
    assert c.change("max_mito", 0.5)
    assert c.message == ""


def test_a_full_disk_is_said_and_the_prototypes_stay(done, tmp_path, monkeypatch):
    def full(*_args, **_keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("napari_cpnn.prototypes.prototypes.write_h5ad", full)
    done.c.save(tmp_path / "p.h5ad")
    done.go()
    assert "p.h5ad could not be written: No space left on device" in done.c.message
    assert done.c.result.path is None
    assert [p.name for p in tmp_path.iterdir()] == ["cells.h5ad"]
    monkeypatch.undo()
    done.c.save(tmp_path / "cells.h5ad")
    assert done.c.message == "cells.h5ad is the file of the single cells; choose another name."
    done.c.write_markers(tmp_path / "cells.h5ad" / "m.csv")
    done.go()
    assert "m.csv could not be written" in done.c.message
    done.c.save(tmp_path / "p.h5ad")
    done.go()
    assert done.c.message == ""
    assert done.c.result.path == tmp_path / "p.h5ad"


def test_a_disk_that_goes_away_and_memory_that_runs_out(opened, monkeypatch):
    for error, words in ((OSError(errno.EIO, "Input/output error"), "Input/output error"), (MemoryError(), "Memory")):

        def broken(*_args, error=error):
            raise error

        monkeypatch.setattr("napari_cpnn.prototypes.estimate_all", broken)
        opened.c.run()
        opened.go()
        assert words in opened.c.message
        assert "cells.h5ad" in opened.c.message


def test_labels_in_a_table_of_their_own(setup, path, tmp_path):
    cells = table()
    cells.obs[["cell_type", "patient"]].to_csv(tmp_path / "labels.csv")
    cells.obs = cells.obs[[]]
    cells.write_h5ad(tmp_path / "bare.h5ad")
    c = setup.c
    c.open(tmp_path / "labels.csv")
    assert c.message == "Open the single cells first: labels.csv has only their labels."
    c.open(tmp_path / "bare.h5ad")
    setup.go()
    assert c.message == "bare.h5ad has no labels: open a table of them (.csv, .tsv) with barcodes in its first column."
    c.open(tmp_path / "labels.csv")
    setup.go()
    assert c.cell_type == "cell_type"
    assert c.message == ""
    again = PrototypesController(ExploreState(), setup.background, setup.notes.append)
    again.open(tmp_path / "labels.csv", tmp_path / "bare.h5ad")
    setup.go()
    assert again.reference.columns == c.reference.columns
    assert again.annotations == tmp_path / "labels.csv"
    c.open(path, tmp_path / "bare.h5ad")
    assert "one file of single cells at a time" in c.message
    for name in ("min_genes", "min_cells"):
        c.change(name, 1)
    c._opened = None  # as after an undo: read again, with the labels
    c.run()
    setup.go()
    assert c.result.prototypes.cell_types == ("type a", "type b", "type c")


def test_choices_are_taken_back(opened):
    c, history = opened.c, opened.state.history
    c.choose_columns("patient", None)
    c.change("method", "mean")
    c.change("method", "nb")
    c.change("method", "mean")
    assert history.text == "setting method"
    history.undo()
    assert c.settings.method == "nb"
    assert c.cell_type == "patient"
    history.undo()
    assert c.cell_type == "cell_type"
    c.run()
    opened.go()
    first = c.result
    c.choose_columns("patient", None)
    c.run()
    opened.go()
    assert c.result.prototypes.cell_types == ("P0", "P1")
    assert history.text == "estimate of prototypes"
    history.undo()
    assert c.result is first
    assert c.selected == "type a"
    c.show_gene("G7")
    c.save(c.reference.path.with_name("p.h5ad"))
    opened.go()
    history.undo()
    assert c.gene == ""
    assert c.result.path is not None  # a file is no choice: it stays


def test_genes_and_markers_on_screen(done):
    c = done.c
    assert c.selected == "type a"
    assert c.values() == {}
    assert list(c.result.markers.query("rank == 1")["gene"]) == ["G0", "G1", "G2"]
    assert "no gene NONE" in c.show_gene("none".upper())
    assert c.show_gene("g7") == ""
    assert c.gene == "G7"
    frame = c.result.prototypes.to_frame()
    assert c.values() == pytest.approx((1e4 * frame["G7"]).to_dict(), rel=1e-5)
    heat = c.heat_map()
    assert heat.genes == ("G7", "G0", "G1", "G2")
    assert heat.marked == ("", "type a", "type b", "type c")
    levels = np.log1p(1e4 * frame[list(heat.genes)].T.to_numpy(dtype=float))
    np.testing.assert_allclose(heat.shades, levels / levels.max(axis=1)[:, None], rtol=1e-5)
    c.show_gene("G1")
    assert c.heat_map().genes == ("G7", "G0", "G1", "G2")  # no row moves under the mouse
    c.show_gene("")
    assert c.gene == ""
    assert c.heat_map().genes == ("G0", "G1", "G2")
    done.state.history.undo()
    assert c.gene == "G1"


def test_figure_and_table_as_files(done, tmp_path):
    c = done.c
    c.write_figure(tmp_path / "f.png")
    c.write_figure(tmp_path / "f.svg")
    c.write_figure(tmp_path / "g")
    c.write_markers(tmp_path / "m.csv")
    done.go()
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (tmp_path / "f.svg").read_text()
    assert (tmp_path / "g.png").is_file()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "m.csv"), c.result.markers)


def test_no_name_of_a_figure_is_cut():
    """30 types with long names, as wide and high as that takes."""
    rng = np.random.default_rng(0)
    names = tuple(f"Endothelial Lymphatic LYVE{i}" for i in range(30))
    genes = tuple(f"HLA-DQB1-LONG{i}" for i in range(200))
    protos = nc.Prototypes(rng.dirichlet(np.full(200, 0.2), 30), names, genes, np.full(30, 50))
    figure = marker_figure(heat_map(protos, protos.markers(5), 5, genes[0]), Paper(source="some cells"))
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    texts = [t for axes in figure.axes for t in (*axes.get_xticklabels(), *axes.get_yticklabels()) if t.get_text()]
    assert len(texts) > 100
    for text in [*texts, *figure.texts]:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_words():
    assert [number_words(v) for v in (np.nan, 812, 12_345, 4_560_000)] == ["–", "812", "12.3 k", "4.56 M"]
    assert [level_words(v) for v in (0.0, 0.001, 3.14159, 1234.5)] == ["0.00", "<0.01", "3.14", "1,234"]
    nothing = pd.DataFrame({"what": ["cells"], "reason": ["without a label"], "n": [0]})
    assert left_out_words(nothing) == "Nothing was left out."
    assert left_out_words(nothing.assign(n=1200)) == "Left out: 1,200 cells without a label."
    assert left_out_words(nothing.iloc[:0]) == ""


def test_no_warning_is_raised_in_the_thread(opened):
    """Few cells and genes are notes of the result; a warning there would be an error of this test."""
    opened.c.change("min_cells_per_type", 31)
    opened.c.run()
    opened.go()
    assert "These prototypes are based on few cells" in opened.c.result.prototypes.provenance["notes"][0]
    with pytest.warns(CpnnWarning, match="few cells"):
        nc.estimate_prototypes(table(), "cell_type", settings=opened.c.settings)
    assert isinstance(opened.c.result, Result)
