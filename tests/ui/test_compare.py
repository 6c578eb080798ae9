"""Spots beside the map: the controller by itself, and the dock in a real napari on the sample section."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from napari.components import ViewerModel
from qtpy.QtCore import QPoint, Qt
from tests.spots.test_folders import hd
from tests.spots.test_libraries import two
from tests.ui.mouse import move_mouse

from napari_cpnn import evaluate, load_model, open_slide, read_spots
from napari_cpnn.errors import CpnnError
from napari_cpnn.evaluation.predictions import predict_expression
from napari_cpnn.export import measured_spots
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.prototypes import Prototypes, deconvolve
from napari_cpnn.regions import Region
from napari_cpnn.samples import sample_folder
from napari_cpnn.slides import Slide
from napari_cpnn.spots import estimate_mpp, expression
from napari_cpnn.ui.compare import spots_controller
from napari_cpnn.ui.compare.controller import CompareController
from napari_cpnn.ui.compare.gene_table import GeneTable
from napari_cpnn.ui.compare.spots_layer import SpotsLayer
from napari_cpnn.ui.compare.words import SEEN
from napari_cpnn.ui.export import marks_on_screen
from napari_cpnn.ui.layers.spot_tables import has_table
from napari_cpnn.ui.viewer.state import ExploreState, Shown


class AtOnce:
    """Runs work where it is asked for; holds it back when told to."""

    def __init__(self) -> None:
        self.held: list | None = None

    def __call__(self, work, done, failed) -> None:
        if self.held is not None:
            self.held.append((work, done, failed))
            return
        try:
            result = work()
        except Exception as error:  # noqa: BLE001
            failed(error)
        else:
            done(result)

    def go(self) -> None:
        held, self.held = self.held, None
        for request in held:
            self(*request)


@pytest.fixture(scope="module")
def sample():
    folder = sample_folder()
    slide = open_slide(folder / "slide.tiff")
    spots = read_spots(folder / "spots.h5ad", slide=slide)
    genes = spots.var_names[np.argsort(-spots.X.sum(axis=0).A1)[:40]]
    return slide, spots[::10, genes].copy(), load_model(folder / "model.safetensors")


@pytest.fixture
def setup():
    state, background, told = ExploreState(), AtOnce(), []
    controller = CompareController(state, background, told.append)
    yield controller, state, background, told
    controller.close()


def test_points_that_the_user_deleted_are_not_taken_for_spots():
    viewer, chosen = ViewerModel(), []
    slide_layer = viewer.add_image(np.zeros((500, 500, 3), np.uint8), rgb=True, scale=(0.5, 0.5), units=("um", "um"))
    spots = SpotsLayer(viewer)
    spots.chosen.connect(chosen.append)
    spots.place(slide_layer, (0.5, 0.5), np.array([[50.0, 50], [50, 100], [100, 50]]), 20.0)
    spots.layer.selected_data = {1}
    assert [list(rows) for rows in chosen] == [[1]]
    spots.layer.remove_selected()
    spots.mark(np.array([2]))
    spots.layer.selected_data = {0}
    assert not [rows for rows in chosen[1:] if len(rows)]
    assert set(spots.layer.border_color[:, 0].round(2)) == {0.12}


def test_it_says_what_to_do_next(setup, sample) -> None:
    controller, state, _, _ = setup
    slide, spots, _ = sample
    assert "No slide yet" in controller.message
    state.set_slide(object(), slide)
    assert "No spots yet" in controller.message
    controller.spots.use(spots)
    assert "No model yet" in controller.message
    assert controller.spots.fit.problem == ""
    assert controller.spots.places.diameter_um == pytest.approx(55, rel=0.2)
    assert len(controller.spots.places.centers_um) == spots.n_obs


def test_many_spots_are_placed_in_the_background(setup, sample, monkeypatch) -> None:
    controller, state, background, _ = setup
    slide, spots, model = sample
    monkeypatch.setattr(spots_controller, "_MANY", spots.n_obs)
    state.set_slide(object(), slide)
    told = []
    controller.spots.spots_changed.connect(lambda: told.append(controller.spots.places))
    background.held = []
    controller.spots.use(spots)
    assert controller.spots.places is None
    assert told == [None]
    messages = [text for _, text in controller.spots.tasks._running.values()]
    assert f"Placing {spots.n_obs:,} spots ..." in messages
    state.set_model(model)  # they are not placed again for that
    assert len([one for one in controller.spots.tasks._running if one == "places"]) == 1
    n_asked = len(background.held)
    controller.spots.check_again()
    assert len(background.held) == n_asked + 1  # the fit
    moved = spots.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"] + 100.0
    controller.spots.use(moved)  # while the first are being placed
    background.go()
    at = controller.spots.places
    assert told[-1] is at
    assert all(one is None or one.table is moved for one in told)
    np.testing.assert_allclose(at.centers_um, spatial_to_um(moved.obsm["spatial"], slide.mpp))
    assert (at.mpp, at.bins) == (slide.mpp, None)
    monkeypatch.setattr(spots_controller, "_MANY", spots.n_obs + 1)
    background.held = []
    controller.spots.use(spots)  # few: at once
    np.testing.assert_allclose(controller.spots.places.centers_um, spatial_to_um(spots.obsm["spatial"], slide.mpp))
    background.go()
    state.set_slide(None, None)
    assert controller.spots.places is None


def test_scores_are_those_of_evaluate(setup, sample, tmp_path: Path) -> None:
    controller, state, _, _ = setup
    slide, spots, model = sample
    state.set_slide(object(), slide)
    state.set_model(model)
    controller.spots.use(spots)
    assert controller.message == ""
    expected = evaluate(model, slide, spots)
    pd.testing.assert_series_equal(controller.comparison.scores["pcc"], expected["pcc"], atol=1e-4)
    best = expected["pcc"].idxmax()
    assert state.shown == Shown("gene", (best,))
    measured, predicted = controller.comparison.values("measured"), controller.comparison.values("predicted")
    assert np.corrcoef(measured, predicted)[0, 1] == pytest.approx(expected.loc[best, "pcc"], abs=1e-4)
    np.testing.assert_allclose(controller.comparison.values("difference"), predicted - measured)
    assert f"PCC {expected.loc[best, 'pcc']:.2f}" in controller.comparison.text()
    assert controller.comparison.text().endswith(SEEN)  # the sample's model has learnt from its slide
    slide.name = "another"
    assert SEEN not in controller.comparison.text()
    slide.name = "slide"
    controller.save_table(tmp_path / "scores.csv")
    assert pd.read_csv(tmp_path / "scores.csv", index_col=0).shape == expected.shape


def test_map_and_spots_have_one_scale_and_give_it_back(compared) -> None:
    controller, state, _ = compared
    low, high = controller.comparison.limits("measured")
    assert controller.comparison.limits("predicted") == (low, high)
    assert (state.look.range_mode, state.look.manual) == ("manual", (low, high))
    assert state.look.fixed(state.shown) == (low, high)
    others = Shown("gene", (state.model.genes[0],)), Shown("type", (state.model.cell_types[0],))
    assert all(other == state.shown or state.look.fixed(other) is None for other in others)
    assert controller.comparison.limits("difference")[0] == -controller.comparison.limits("difference")[1]
    state.set_shown(Shown("dominant"))
    assert state.look.range_mode == "auto"
    assert controller.comparison.gene == ""
    assert not len(controller.comparison.values("measured"))


def test_spots_that_do_not_fit_are_not_compared_before_they_are_fixed(setup, sample) -> None:
    controller, state, _, _ = setup
    slide, spots, model = sample
    wrong = spots.copy()
    wrong.obsm["spatial"] = spots.obsm["spatial"] * 0.1
    state.set_slide(object(), slide)
    state.set_model(model)
    controller.spots.use(wrong)
    assert controller.comparison.scores is None
    assert "would put" in controller.message
    controller.spots.apply_fix(controller.spots.fit.fixes[0])
    assert controller.comparison.scores is not None
    assert controller.message == ""
    assert "scaling" in state.history.text
    state.history.undo()
    assert controller.spots.table is wrong
    assert "would put" in controller.message


def test_a_given_affine_map_moves_the_spots(setup, sample, tmp_path: Path) -> None:
    controller, state, _, told = setup
    slide, spots, _ = sample
    wrong = spots.copy()
    wrong.obsm["spatial"] = spots.obsm["spatial"] * 0.5 - 99
    controller.spots.fix_by("1 0 0 0 1 0")
    assert "open a slide and its spots first" in str(told[-1])
    state.set_slide(object(), slide)
    controller.spots.use(wrong)
    controller.spots.fix_by("2, 0, 198\n0, 2, 198")
    np.testing.assert_allclose(controller.spots.table.obsm["spatial"], spots.obsm["spatial"])
    assert state.history.text == "the given affine map"
    state.history.undo()
    (tmp_path / "back.json").write_text("[[0.5, 0, -99], [0, 0.5, -99], [0, 0, 1]]")  # from slide to spots
    controller.spots.fix_by(tmp_path / "back.json")
    np.testing.assert_allclose(controller.spots.table.obsm["spatial"], spots.obsm["spatial"])
    assert state.history.text == "the affine map of back.json, inverted"
    controller.spots.fix_by("one two")
    assert "has 0 numbers" in controller.message
    np.testing.assert_allclose(controller.spots.table.obsm["spatial"], spots.obsm["spatial"])


def test_whatever_is_opened_by_mistake_is_one_sentence(setup, sample, tmp_path: Path) -> None:
    controller, state, _, told = setup
    slide, spots, _ = sample
    state.set_slide(object(), slide)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "matrix.h5").write_bytes(b"no HDF5")
    (tmp_path / "picture.png").write_bytes(b"")
    nowhere = spots.copy()
    del nowhere.obsm["spatial"]
    nowhere.write_h5ad(tmp_path / "nowhere.h5ad")
    logged = spots.copy()
    del logged.layers["counts"]
    logged.X = logged.X.astype(np.float32).log1p()
    logged.write_h5ad(tmp_path / "logged.h5ad")
    for name, says in (
        ("empty", "The count matrix is missing"),
        ("empty.zarr", "cannot be read as SpatialData"),
        ("matrix.h5", "is no HDF5 file"),
        ("picture.png", "has an unknown format"),
        ("nowhere.h5ad", "has no positions"),
        ("logged.h5ad", "log-transformed"),
        ("gone", "There is no file or folder"),
    ):
        controller.spots.open(tmp_path / name)
        assert says in controller.message
        assert "\n" not in controller.message
        assert str(told[-1]) == controller.message
        assert controller.spots.table is None
    controller.spots.use(spots)
    assert controller.message == "No model yet: choose one in the Explore dock."


@pytest.fixture(scope="module")
def prediction(sample):
    slide, spots, model = sample
    return predict_expression(model, slide, spots)


@pytest.fixture
def compared(setup, sample, prediction):
    """Slide, model and spots, compared; the prediction is made once for all tests, since a copy of it is as good."""
    controller, state, _, told = setup
    slide, spots, model = sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_cpnn.evaluation.predict_expression", lambda *_, **__: prediction.copy())
        state.set_slide(object(), slide)
        state.set_model(model)
        controller.spots.use(spots)
    return controller, state, told


def test_a_cell_type_is_compared_with_its_deconvolved_share(compared, sample) -> None:
    controller, state, _ = compared
    _, spots, model = sample
    gene = controller.comparison.gene
    state.set_shown(Shown("type", (model.cell_types[0],)))
    decoder = model.decoder()
    profiles = decoder.prototypes / decoder.prototypes.sum(axis=1, keepdims=True)
    protos = Prototypes(profiles, decoder.cell_types, decoder.genes, np.zeros(len(profiles)))
    expected = deconvolve(spots, protos)[model.cell_types[0]]
    np.testing.assert_allclose(controller.comparison.values("measured"), expected, atol=1e-5)
    np.testing.assert_allclose(
        controller.comparison.values("predicted"), controller.comparison.compared.obsm["weights"].iloc[:, 0]
    )
    assert controller.comparison.gene == ""
    assert "deconvolved from counts" in controller.comparison.text()
    assert state.look.manual == controller.comparison.limits("measured") == controller.comparison.limits("predicted")
    shares = controller.comparison.shares
    state.set_shown(Shown("type", (model.cell_types[1],)))
    assert controller.comparison.shares is shares  # once is enough
    assert controller.comparison.pair.name == model.cell_types[1]
    state.set_shown(Shown("gene", (gene,)))
    assert controller.comparison.pair.name == gene


def test_a_gene_set_is_compared_over_its_measured_genes(compared, sample, tmp_path: Path) -> None:
    controller, state, told = compared
    table = controller.comparison.compared
    genes = [str(gene) for gene in table.var_names[:3]]
    missing = next(gene for gene in sample[2].genes if gene not in table.var_names)
    state.set_shown(Shown("signature", ("mine", *genes, missing)))
    columns = table.var_names.get_indexer(genes)
    by_hand = [
        np.mean((side[:, columns] - side[:, columns].mean(axis=0)) / side[:, columns].std(axis=0), axis=1)
        for side in (table.layers["measured"].astype(float), np.asarray(table.X, dtype=float))
    ]
    for quantity, values in zip(("measured", "predicted"), by_hand, strict=True):
        np.testing.assert_allclose(controller.comparison.values(quantity), values, atol=1e-4)
    assert controller.comparison.text().startswith(
        f"mine: PCC {np.corrcoef(*by_hand)[0, 1]:z.2f}, SCC "
    )  # fmt: skip
    assert (
        f"of the mean z-scores of 3 of 4 genes without {missing} (not measured here), over"
        in controller.comparison.text()
    )
    assert state.look.manual == controller.comparison.limits("predicted")  # map and spots have one scale
    controller.save_figure(tmp_path / "mine.png")
    assert (tmp_path / "mine.png").stat().st_size > 10_000
    state.set_shown(Shown("signature", ("others", missing)))
    assert controller.comparison.pair is None
    assert not len(controller.comparison.values("measured"))
    assert told == []


def test_counts_and_genes_need_no_model(setup, sample) -> None:
    controller, state, _, _ = setup
    slide, spots, _ = sample
    assert not len(controller.comparison.drawn_values("counts"))
    state.set_slide(object(), slide)
    controller.spots.use(spots)
    np.testing.assert_array_equal(
        controller.comparison.drawn_values("counts"), spots.layers["counts"].toarray().sum(axis=1)
    )
    np.testing.assert_array_equal(
        controller.comparison.drawn_values("genes"), (spots.layers["counts"].toarray() > 0).sum(axis=1)
    )
    assert controller.comparison.limits("counts")[1] > controller.comparison.limits("counts")[0]
    assert not len(controller.comparison.drawn_values("measured"))


def test_genes_can_be_looked_at_before_there_is_a_model(setup, sample) -> None:
    controller, state, _, _ = setup
    slide, spots, model = sample
    controller.spots.use(spots)  # nor a slide
    assert list(controller.measured.index) == list(spots.var_names)
    gene = spots.var_names[7]
    controller.choose_gene(gene)
    assert (controller.comparison.gene_alone, controller.comparison.gene) == (gene, "")
    np.testing.assert_allclose(controller.comparison.drawn_values("measured"), expression(spots, [gene])[:, 0])
    assert not len(controller.comparison.values("predicted"))
    low, high = controller.comparison.limits("measured")
    assert low < high
    assert "there is no prediction yet" in controller.comparison.text()
    assert state.shown is None
    state.set_slide(object(), slide)
    state.set_model(model)
    assert (controller.comparison.gene_alone, controller.comparison.gene) == ("", gene)  # now with its prediction
    assert controller.comparison.pair.name == gene
    state.set_model(None)
    assert controller.comparison.gene_alone == gene


def test_spots_that_were_not_compared_have_no_value(compared) -> None:
    controller, _, _ = compared
    controller.comparison.compared = controller.comparison.compared[3:].copy()
    controller.comparison._pair = None
    values = controller.comparison.drawn_values("measured")
    assert np.isnan(values[:3]).all()
    np.testing.assert_array_equal(values[3:], controller.comparison.values("measured"))


def test_each_may_have_its_own_scale(compared) -> None:
    controller, state, _ = compared
    controller.set_one_scale(False)
    assert controller.comparison.limits("measured") != controller.comparison.limits("predicted")
    assert state.look.manual == controller.comparison.limits("predicted")
    controller.set_one_scale(True)
    assert controller.comparison.limits("measured") == controller.comparison.limits("predicted") == state.look.manual


def test_regions_and_slides(compared, sample, tmp_path: Path) -> None:
    controller, state, told = compared
    slide, _, _ = sample
    y = np.median(controller.spots.places.centers_um[:, 0])
    upper = Region.from_vertices("Upper", [(-9, -9), (-9, 9e4), (y, 9e4), (y, -9)])
    controller.region_scores.score([upper])
    where = controller.region_scores.table()
    assert list(where.index) == [f"All spots of {slide.name}", "Upper"]
    assert where.loc["Upper", "n_spots"] == (controller.spots.places.centers_um[:, 0] < y).sum()
    assert where["gene_pcc"].iloc[0] == controller.comparison.scores.loc[controller.comparison.gene, "pcc"]
    controller.save_region_scores(tmp_path / "where.csv")
    assert pd.read_csv(tmp_path / "where.csv", index_col=0).shape == where.shape
    controller.save_figure(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    (tmp_path / "file").write_text("")
    controller.save_figure(tmp_path / "file" / "figure.png")
    assert "could not be written" in str(told[-1])
    controller.region_scores.score([])
    assert len(controller.region_scores.table()) == 1
    # Another slide: the first one stays in the table, until the model is another.
    other = Slide.from_arrays(slide.levels, slide.mpp, name="second")
    state.set_slide(object(), other)
    assert list(controller.region_scores.table().index) == ["All spots of second", slide.name]
    state.set_model(None)
    assert controller.region_scores.table() is None


def test_more_spots_than_can_be_waited_for_are_thinned(setup, sample, monkeypatch: pytest.MonkeyPatch) -> None:
    controller, state, _, _ = setup
    slide, spots, model = sample
    monkeypatch.setattr("napari_cpnn.ui.compare.controller.ALL_SPOTS", 10)
    monkeypatch.setattr("napari_cpnn.ui.compare.controller.MOST_VALUES", 20 * len(model.genes))
    said: list[str] = []
    controller.message_changed.connect(said.append)
    state.set_slide(object(), slide)
    state.set_model(model)
    controller.spots.use(spots)
    assert f"Predicting at 20 of {spots.n_obs} spots ..." in said
    assert len(controller.comparison.rows()) == 20
    np.testing.assert_array_equal(
        controller.comparison.compared.obs_names, spots.obs_names[controller.comparison.rows()]
    )
    assert np.isfinite(controller.comparison.drawn_values("measured")).sum() == 20


def test_bins_of_visium_hd_are_on_offer(setup, tmp_path: Path) -> None:
    controller, _, _, told = setup
    hd(tmp_path / "Colon")
    controller.spots.open(tmp_path / "Colon")
    assert controller.spots.source.name == "square_016um"
    assert [source.name for source in controller.spots.sources] == ["Colon, 16 µm bins", "Colon, 8 µm bins"]
    controller.spots.open(controller.spots.sources[1].path)
    assert controller.spots.source.name == "square_008um"
    assert told == []


def test_of_several_libraries_one_is_chosen(setup, tmp_path: Path) -> None:
    controller, _, _, told = setup
    two().write_h5ad(tmp_path / "two.h5ad")
    controller.spots.open(tmp_path / "two.h5ad")
    assert controller.spots.table is None
    assert "several sections; choose one: two, A, two, B" in str(told.pop())
    assert [source.library for source in controller.spots.sources] == ["A", "B"]
    controller.spots.open(controller.spots.sources[1].path, library="B")
    assert list(controller.spots.table.uns["spatial"]) == ["B"]
    assert [source.library for source in controller.spots.sources] == ["A", "B"]
    assert told == []


def test_answers_that_nobody_waits_for_are_dropped(setup, sample) -> None:
    controller, state, background, _ = setup
    slide, spots, model = sample
    state.set_slide(object(), slide)
    controller.spots.use(spots)
    background.held = []
    state.set_model(model)
    assert controller.message.startswith("Predicting at")
    state.set_slide(None, None)
    background.go()
    assert controller.comparison.scores is None
    assert "No slide yet" in controller.message


def test_a_prediction_says_how_far_it_is_and_is_cancelled(setup, sample, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_cpnn.ui.compare.prediction_run import PredictionRun

    controller, state, background, told = setup
    slide, spots, model = sample
    heard: list[tuple[str, float]] = []
    report = PredictionRun.report

    def cancels_when_asked(run: PredictionRun, text: str, done: float) -> None:
        heard.append((text, done))
        if len(heard) == 2:
            controller.cancel()
        report(run, text, done)

    state.set_slide(object(), slide)
    controller.spots.use(spots)
    monkeypatch.setattr("napari_cpnn.prediction.places._CPU_BATCH", 10)
    monkeypatch.setattr(PredictionRun, "report", cancels_when_asked)
    state.set_model(model)
    n = spots.n_obs
    assert heard == [(f"0 of {n} spots", 0), (f"10 of {n} spots", 10 / n)]  # and no batch more
    assert told == []
    assert controller.comparison.compared is None
    assert not controller.comparing
    assert (controller.can_compare, controller.message) == (True, "Press Predict to predict at the spots.")
    controller.compare()
    assert (controller.run.text, controller.run.done) == (f"{n} of {n} spots", 1)
    assert controller.comparison.compared.n_obs == n
    assert (controller.can_compare, controller.message) == (False, "")
    # What nobody waits for is ended too, so that it does not stand in the way of what is wanted.
    background.held = []
    controller.compare()
    before = controller.run
    state.set_model(None)
    with pytest.raises(CpnnError, match="cancelled"):
        report(before, "", 0)


def test_bad_files_are_told_and_the_dock_goes_on(setup, sample, tmp_path: Path) -> None:
    controller, state, _, told = setup
    slide, spots, _ = sample
    state.set_slide(object(), slide)
    (tmp_path / "a.txt").write_text("x")
    controller.spots.open(tmp_path / "a.txt")
    assert isinstance(told[-1], CpnnError)
    assert controller.message == str(told[-1])
    stranger = ad.AnnData(sp.csr_matrix(np.ones((9, 2))), var=pd.DataFrame(index=["X1", "X2"]))
    stranger.layers["counts"] = stranger.X
    stranger.obsm["spatial"] = spots.obsm["spatial"][:9]
    state.set_model(sample[2])
    controller.spots.use(stranger)
    assert "share no gene" in controller.message
    controller.spots.use(spots)
    assert controller.message == ""
    controller.save_table(tmp_path / "a.txt" / "scores.csv")
    assert "could not be written" in str(told[-1])


def test_ten_thousand_genes_are_sorted_and_filtered_at_once(qtbot) -> None:
    rng = np.random.default_rng(0)
    scores = pd.DataFrame({"pcc": rng.normal(size=10_000), "scc": 0.0}, index=[f"GENE{i}" for i in range(10_000)])
    scores.iloc[7, 0] = np.nan
    table = GeneTable()
    qtbot.addWidget(table)
    table.set_scores(scores)
    shown = [table.model.gene_at(row) for row in range(3)]
    assert shown == list(scores["pcc"].sort_values(ascending=False).index[:3])
    assert table.model.gene_at(9_999) == "GENE7"  # what is not known comes last
    table.search.setText("gene99")
    assert table.model.rowCount() == 111
    chosen: list[str] = []
    table.chosen.connect(chosen.append)
    table.select("GENE99")
    assert chosen == []
    table.view.setCurrentIndex(table.model.index(5, 0))
    assert chosen == [table.model.gene_at(5)]
    table.set_scores(scores.assign(ceiling=0.5, held_out_pcc=0.1, trusted_um=np.inf))
    table.resize(300, 300)  # a narrow dock: names are read, and the last columns scrolled
    text = table.view.fontMetrics().horizontalAdvance
    assert table.view.columnWidth(0) > text("ERBB2 ")
    assert table.view.columnWidth(4) > text("Held out")
    table.set_scores(None)
    assert table.model.rowCount() == 0


@pytest.mark.slow  # test_stories compares, too
def test_the_dock_on_the_sample_section(explore, wait, sample, qtbot, tmp_path: Path) -> None:
    from napari_cpnn.ui.compare.dock import Compare

    folder = sample_folder()
    _, spots, _ = sample
    spots.write_h5ad(tmp_path / "spots.h5ad")
    dock = explore(folder / "slide.tiff")
    compare = Compare(dock.session.viewer)
    dock.session.viewer.window.add_dock_widget(compare, name="Compare")
    try:
        wait(lambda: dock.state.slide is not None and dock.state.model is not None)
        compare.controller.spots.open(tmp_path / "spots.h5ad")
        wait(lambda: compare.controller.comparing)
        assert (compare.cancel.isHidden(), compare.bar.isHidden(), compare.predict.isHidden()) == (False, False, True)
        compare.cancel.click()
        assert (compare.cancel.isHidden(), compare.bar.isHidden(), compare.predict.isHidden()) == (True, True, False)
        compare.predict.click()
        wait(lambda: f"of {spots.n_obs} spots" in compare.bar.text())
        wait(lambda: compare.controller.comparison.scores is not None)
        assert (compare.cancel.isHidden(), compare.bar.isHidden(), compare.predict.isHidden()) == (True, True, True)
        layer = compare.spots_layer.layer
        assert len(layer.data) == spots.n_obs
        um = compare.controller.spots.places.centers_um
        np.testing.assert_allclose(layer.data, um, atol=1.0)
        assert layer.size[0] == pytest.approx(compare.controller.spots.places.diameter_um, rel=1e-3)
        gene = compare.controller.comparison.gene
        assert layer.name == f"Spots: {gene} measured"
        wait(lambda: dock.session.overlays.layer_of("gene") is not None)
        assert dock.session.viewer.layers[-1] == layer  # the map does not hide the spots
        # Spots with more of the gene have another colour.
        values = compare.controller.comparison.values("measured")
        assert len(np.unique(np.round(layer.face_color, 3), axis=0)) > 3
        # The same spots by a script: positions, sizes and colours.
        shown = compare.painted
        assert (shown.quantity, shown.name) == ("measured", gene)
        table, slide = compare.controller.spots.table, dock.state.slide
        by_script = measured_spots(table, slide, expression(table, [gene])[:, 0], shown.limits, shown.colormap)
        on_screen = marks_on_screen(dock.session.viewer, dock.state.layer, slide.mpp).spots[-1]
        np.testing.assert_allclose(by_script.centers_um, on_screen.centers_um, atol=0.01)
        np.testing.assert_allclose(by_script.diameters_um, on_screen.diameters_um, rtol=1e-4)
        np.testing.assert_allclose(by_script.colors, on_screen.colors, atol=1e-5)
        compare.quantities["difference"].click()
        assert layer.name == f"Spots: {gene} difference"
        low, high = compare.controller.comparison.limits("difference")
        assert layer.face_colorbar.visible
        assert tuple(layer.face_contrast_limits) == pytest.approx((low, high))
        title = dock.session.viewer.canvas.overlays["napari_cpnn_spots_title"]
        assert (title.visible, title.text) == (True, f"spots: {gene} difference · log1p CP10k")
        layer.visible = False
        assert not title.visible
        layer.visible = True
        compare.quantities["predicted"].click()  # in the colours of the map, which has a colour bar
        assert (layer.face_colorbar.visible, title.visible) == (False, False)
        compare.quantities["difference"].click()
        compare.scatter.lasso(np.array([(-1, -1), (-1, 99), (np.median(values), 99), (np.median(values), -1)]))
        assert (layer.border_color[:, 0] > 0.9).sum() == (values < np.median(values)).sum()
        assert compare.chosen.text() == f"{(values < np.median(values)).sum()} of {spots.n_obs} spots selected"
        compare.table.view.setCurrentIndex(compare.table.model.index(3, 0))
        assert dock.state.shown.name == compare.table.model.gene_at(3) == compare.controller.comparison.gene
        wait(lambda: compare.scatter.is_settled)
        # A stroke with the mouse in the picture selects what is drawn there, whatever the screen's scale.
        figure = compare.scatter.figure
        pixel = figure.axes[0].transData.transform(
            (compare.scatter.pair.measured[0], compare.scatter.pair.predicted[0])
        )
        place = np.array([pixel[0], figure.get_figheight() * figure.dpi - pixel[1]]) * 100 / figure.dpi
        qtbot.mousePress(compare.scatter, Qt.MouseButton.LeftButton, pos=QPoint(*np.rint(place - 3).astype(int)))
        for step in ((3, -3), (3, 3), (-3, 3)):
            move_mouse(compare.scatter, QPoint(*np.rint(place + step).astype(int)), Qt.MouseButton.LeftButton)
        qtbot.mouseRelease(compare.scatter, Qt.MouseButton.LeftButton, pos=QPoint(*np.rint(place - 3).astype(int)))
        assert 0 in compare.scatter.rows
        assert len(compare.scatter.rows) < 10
        # Regions of any Shapes layer have a row each.
        compare.tabs.setCurrentIndex(1)
        shapes = dock.session.viewer.add_shapes(name="drawn")
        compare.score_regions.click()
        assert "draw some in the Regions dock" in compare.where_text.text()
        shapes.add([[0, 0], [0, 9000], [3000, 9000], [3000, 0]], shape_type="polygon")
        compare.score_regions.click()
        wait(lambda: compare.where.rowCount() == 2)
        assert compare.where.item(1, 1).text() == str((um[:, 0] < 3000).sum())
        assert compare.where.horizontalHeaderItem(6).text() == compare.controller.comparison.gene
        # A gene set is chosen like a gene; one that Explore has opened is on the list.
        compare.tabs.setCurrentIndex(0)
        two, one = (", ".join(compare.table.model.gene_at(row) for row in rows) for rows in ((0, 1), (2,)))
        dock.signatures.add_list(two, "two genes")
        wait(lambda: compare.signature.sets.currentText() == "two genes")
        assert compare.gene_text.text().startswith("two genes: PCC ")
        assert f"of the mean z-scores of 2 genes, over {spots.n_obs} spots" in compare.gene_text.text()
        dock.signatures.add_list(one, "one gene")
        wait(lambda: compare.signature.sets.currentText() == "one gene")
        assert not compare.table.view.selectionModel().hasSelection()
        qtbot.keyClick(compare.signature.sets, Qt.Key.Key_Down)
        wait(lambda: dock.state.shown.name == "two genes")
        wait(lambda: dock.signature.sets.currentText() == "two genes")  # its genes are chosen in the background
        compare.quantities["predicted"].click()
        assert layer.name == "Spots: two genes predicted"
        assert compare.range_text.text().endswith("mean z-score")
    finally:
        compare.shut_down()
    assert compare.spots_layer.layer is None
    assert dock.state.look.range_mode == "auto"


def test_a_dropped_folder_is_compared_at_once(explore, wait, model_path, tmp_path: Path) -> None:
    """The biologist's story: slide and folder dropped, in a viewer with both docks."""
    from tests.ui.conftest import tissue_image, write_slide
    from tests.ui.layers.test_spots_reader import write_run

    from napari_cpnn.ui.compare.dock import Compare

    write_run(tmp_path / "Breast" / "outs")
    write_slide(tmp_path / "Breast" / "section.tif", tissue_image())
    dock = explore()
    viewer = dock.session.viewer
    dock.controller.choose_model(model_path)
    compare = Compare(viewer)
    viewer.window.add_dock_widget(compare, name="Compare")
    try:
        viewer.open(str(tmp_path / "Breast"), plugin="napari-cpnn")
        wait(lambda: compare.controller.comparison.scores is not None)
        layer = compare.spots_layer.layer
        assert layer.name == f"Breast: {compare.controller.comparison.gene} measured"
        assert not compare.spots.choices.isVisibleTo(compare)  # there is nothing to choose
        # Points that are selected on the slide light up in the chart.
        layer.selected_data = {3, 4}
        np.testing.assert_array_equal(compare.scatter.rows, [3, 4])
        compare.pick.setChecked(True)
        assert (layer.mode, viewer.layers.selection.active) == ("select", layer)
        compare.pick.setChecked(False)
        assert viewer.layers.selection.active == dock.state.layer
        # A move is drawn, can be taken back, and goes with the layer.
        before = layer.data.copy()
        compare.controller.spots.fix_by("1 0 10 0 1 0")
        wait(lambda: not np.allclose(layer.data, before))
        np.testing.assert_allclose(layer.data - before, [[0.0, 5.0]] * 40, atol=1e-3)
        wait(lambda: compare.controller.comparison.scores is not None)
        assert layer.metadata["adata"] is compare.controller.spots.table
        compare.undo.click()
        np.testing.assert_allclose(layer.data, before, atol=1e-3)
        # More of them: the newest is taken, and the others are there to choose.
        write_run(tmp_path / "Other" / "outs", shift=(500.0, 400.0))
        viewer.open(str(tmp_path / "Other"), plugin="napari-cpnn")
        wait(lambda: compare.controller.spots.source == tmp_path / "Other" / "outs")
        assert [compare.spots.choices.itemText(i) for i in range(2)] == ["Breast", "Other"]
        assert compare.spots.choices.currentIndex() == 1
        assert layer.name == "Breast"
        compare.spots._chosen(0)
        wait(lambda: compare.controller.spots.source == tmp_path / "Breast" / "outs")
        assert compare.spots_layer.layer is layer
        wait(lambda: compare.controller.comparison.scores is not None)
        compare.tabs.setCurrentIndex(1)
        compare.score_regions.click()
        assert "draw some in the Regions dock" in compare.where_text.text()
        viewer.layers.remove(layer)
        wait(lambda: compare.controller.spots.table is None)
        assert "No spots yet" in compare.message.text()
    finally:
        compare.shut_down()
    assert [other.name for other in viewer.layers if has_table(other)] == ["Other"]


def test_spots_that_are_there_are_found_and_the_pitch_says_the_pixel_size(explore, wait, tmp_path: Path) -> None:
    from tests.ui.conftest import tissue_image, write_slide
    from tests.ui.layers.test_spots_reader import annotated, write_run

    from napari_cpnn.ui.compare.dock import Compare

    xy, _ = write_run(tmp_path / "outs")
    dock = explore(write_slide(tmp_path / "section.tif", tissue_image(), mpp=None))
    viewer = dock.session.viewer
    wait(lambda: dock.state.slide is not None)
    layer, _ = annotated(xy, "circles", shuffle=False)
    viewer.add_layer(layer)
    compare = Compare(viewer)
    viewer.window.add_dock_widget(compare, name="Compare")
    try:
        wait(lambda: compare.controller.spots.table is not None)
        assert compare.spots.take_mpp.text() == "Use 0.5 µm/px, by the spots"
        compare.spots.take_mpp.click()
        wait(lambda: compare.controller.spots.fit is not None)
        assert dock.state.slide.mpp == pytest.approx((0.5, 0.5), rel=1e-3)
        wait(lambda: compare.spots_layer.layer is not None)
        assert compare.spots_layer.layer is not layer  # the other plugin's stays as it is
    finally:
        compare.shut_down()


def test_the_bins_of_a_dropped_hd_run_are_a_choice_in_the_dock(make_napari_viewer_proxy, wait, tmp_path: Path) -> None:
    from napari_cpnn.ui.compare.dock import Compare

    viewer = make_napari_viewer_proxy()
    compare = Compare(viewer)
    viewer.window.add_dock_widget(compare, name="Compare")
    try:
        viewer.open(str(hd(tmp_path / "Colon")), plugin="napari-cpnn")
        wait(lambda: compare.controller.spots.table is not None)
        borrowed = compare.spots_layer.layer
        assert [compare.spots.choices.itemText(i) for i in range(2)] == ["Colon, 16 µm bins", "Colon, 8 µm bins"]
        wait(compare.table.isEnabled)
        compare.table.view.setCurrentIndex(compare.table.model.index(0, 0))  # no slide, no model: as it was measured
        wait(lambda: "there is no prediction yet" in compare.gene_text.text())
        assert compare.quantities["measured"].isEnabled()
        assert not compare.quantities["predicted"].isEnabled()
        assert borrowed.name == f"Colon, 16 µm bins: {compare.controller.comparison.gene_alone} measured"
        compare.spots._chosen(1)
        wait(lambda: compare.controller.spots.source.name == "square_008um")
        assert not borrowed.visible
        assert compare.spots_layer.layer.name.startswith("Colon, 8 µm bins")
        assert [compare.spots.choices.itemText(i) for i in range(2)] == ["Colon, 16 µm bins", "Colon, 8 µm bins"]
        assert compare.spots.choices.currentIndex() == 1
        compare.spots._chosen(compare.spots.choices.findText("Colon, 16 µm bins"))
        wait(lambda: compare.controller.spots.source.name == "square_016um")
        assert [layer.visible for layer in viewer.layers if has_table(layer) and layer is not borrowed] == [False]
        assert borrowed.visible
        assert len([layer for layer in viewer.layers if has_table(layer)]) == 2
    finally:
        compare.shut_down()


@pytest.mark.slow  # test_stories has the same steps in one story
def test_the_story_of_a_biologist_on_a_real_section(explore, wait, shared_data: Path, tmp_path: Path) -> None:
    """Spots and slide of her2st C4 in one folder, dropped; a gene typed; measured and predicted side by side."""
    from napari_cpnn.ui.compare.dock import Compare

    data = shared_data / "her2st" / "data"
    real = read_spots(data / "ST-cnts/C4.tsv.gz", positions=data / "ST-spotfiles/C4_selection.tsv")
    real = real[np.argsort(real.obsm["spatial"][:, 1])[:70]].copy()  # the upper part is quicker
    folder = tmp_path / "C4"
    folder.mkdir()
    real.write_h5ad(folder / "spots.h5ad")
    (folder / "C4.jpg").symlink_to(data / "ST-imgs/C/C4/5714_HE_BT_D2.jpg")
    dock = explore()
    viewer = dock.session.viewer
    dock.controller.choose_model(sample_folder() / "model.safetensors")
    compare = Compare(viewer)
    viewer.window.add_dock_widget(compare, name="Compare")
    controller = compare.controller
    try:
        slide, spots = viewer.open(str(folder / "spots.h5ad"), plugin="napari-cpnn")
        assert slide.scale == pytest.approx(estimate_mpp(real))  # a JPEG says nothing; the array does
        wait(lambda: controller.comparison.scores is not None)
        assert controller.spots.fit.on_tissue > 0.9
        dock.controller.show_gene("ERBB2")
        pair = controller.comparison.pair
        assert controller.comparison.scores.loc["ERBB2", "pcc"] == pytest.approx(
            np.corrcoef(pair.predicted, pair.measured)[0, 1], abs=1e-4
        )
        np.testing.assert_allclose(pair.measured, expression(real, ["ERBB2"])[:, 0], atol=1e-5)
        # The spots that are high in the chart are the yellow ones on the slide, and they lie on dark tissue.
        high = pair.measured >= np.quantile(pair.measured, 0.95)
        assert spots.face_color[high, 0].min() > spots.face_color[~high, 0].mean()
        index = np.rint([slide.world_to_data(point) for point in spots.data]).astype(int)
        pixels = np.asarray(slide.data[0][index[:, 0].min() :, :])[index[:, 0] - index[:, 0].min(), index[:, 1]]
        assert pixels.mean() < 215 < np.asarray(slide.data[0][:200, :200]).mean()
        controller.save_figure(tmp_path / "ERBB2.svg")
        wait((tmp_path / "ERBB2.svg").exists)
    finally:
        compare.shut_down()
