"""Scores of a model on spots, computed again by hand."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from napari_cpnn import Slide, evaluate, load_model, train
from napari_cpnn.errors import CpnnWarning, GenesError, PixelSizeError, SlideError, SpotsError, TrainingError
from napari_cpnn.evaluation import predict_spots, summarise
from napari_cpnn.evaluation.evaluation import score
from napari_cpnn.evaluation.noise_ceiling import noise_ceilings
from napari_cpnn.evaluation.predictions import predict_expression
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.prediction.predictor import Predictor
from napari_cpnn.settings import EvaluationSettings, TrainingSettings
from napari_cpnn.slides import read_patches
from napari_cpnn.spots import estimate_mpp
from napari_cpnn.studies.fold_folder import sample_key
from napari_cpnn.training.data.spot_samples import check_samples


@pytest.fixture(scope="module")
def model_file(world, quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "run"
    settings = quick.replace(max_epochs=2, validation="none")
    train([world.sample(1)], world.prototypes, settings, folder, progress=False)
    return folder / "model.safetensors"


@pytest.fixture
def model(model_file):
    return load_model(model_file)


def test_scores_are_the_correlations_over_spots(world, model):
    slide, spots = world.sample(5, rows=4)
    scores = evaluate(model, slide, spots)
    images = read_patches(slide, spatial_to_um(spots.obsm["spatial"], slide.mpp), model.patch)
    predicted = model.decoder().expression(*Predictor(model).predict(images)[:2], model.genes)
    counts = pd.DataFrame(spots.layers["counts"].toarray(), columns=spots.var_names)
    measured = np.log1p(counts.div(counts.sum(axis=1), axis=0) * 1e4)
    assert list(scores.index) == list(model.genes)
    assert scores.index.name == "gene"
    for i, gene in enumerate(model.genes):
        assert scores.loc[gene, "pcc"] == pytest.approx(stats.pearsonr(predicted[:, i], measured[gene])[0], abs=1e-4)
        assert scores.loc[gene, "scc"] == pytest.approx(stats.spearmanr(predicted[:, i], measured[gene])[0], abs=1e-3)
    assert set(scores["n_spots"]) == {40}
    assert summarise(scores)["pcc"] == pytest.approx(scores["pcc"].mean())


def test_genes_that_were_not_measured_are_left_out_and_constant_ones_have_no_score(world, model):
    slide, spots = world.sample(5, rows=4)
    counts = spots.layers["counts"].toarray()
    counts[:, list(spots.var_names).index(model.genes[2])] = 0
    spots.layers["counts"] = type(spots.layers["counts"])(counts)
    scores = evaluate(model, slide, spots[:, [g for g in spots.var_names if g != model.genes[0]]].copy())
    assert list(scores.index) == list(model.genes[1:])
    assert np.isnan(scores.loc[model.genes[2], "pcc"])
    assert summarise(scores)["n_genes"] == len(model.genes) - 2


def test_no_shared_gene(world, model):
    slide, spots = world.sample(5)
    spots.var_names = [f"ENSG0000000{i:04d}" for i in range(spots.n_vars)]
    with pytest.raises(GenesError, match="the former has symbols, the latter Ensembl ids"):
        evaluate(model, slide, spots)


def test_genes_in_other_case(world, model):
    slide, spots = world.sample(5)
    expected = evaluate(model, slide, spots, "cpu")
    spots.var_names = [str(gene).capitalize() for gene in spots.var_names]
    with pytest.raises(GenesError, match=r"40 of 40 would be shared: set ignore_gene_case"):
        evaluate(model, slide, spots, "cpu")
    found = evaluate(model, slide, spots, "cpu", settings=EvaluationSettings(ignore_gene_case=True))
    pd.testing.assert_frame_equal(found, expected)


def test_no_spots_and_no_pixel_size(world, model):
    slide, spots = world.sample(5)
    with pytest.raises(SpotsError, match="no spots"):
        evaluate(model, slide, spots[:0].copy())
    with pytest.raises(PixelSizeError):
        evaluate(model, Slide.from_arrays([np.asarray(slide.levels[0])], None), spots)


class Broken(Slide):
    def read_region(self, y, x, height, width, level=0):
        if y < 60:
            raise SlideError("bad tile")
        return super().read_region(y, x, height, width, level)


def test_spots_without_a_patch_or_counts_do_not_count(world, model):
    slide, spots = world.sample(5, rows=6)
    counts = spots.layers["counts"].toarray()
    counts[-3:] = 0
    spots.layers["counts"] = type(spots.layers["counts"])(counts)
    broken = Broken.from_arrays([np.asarray(slide.levels[0])], 0.5, name="broken")
    with pytest.warns(CpnnWarning, match="20 of 57 patches of broken"):
        scores = evaluate(model, broken, spots)
    assert set(scores["n_spots"]) == {60 - 20 - 3}


def test_predictions_are_a_table_of_spots_by_types(world, model):
    slide, spots = world.sample(5)
    weights, programs = predict_spots(model, slide, spots)
    assert list(weights.index) == list(spots.obs_names)
    assert list(weights.columns) == list(world.prototypes.cell_types)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert programs.shape == (90, model.n_programs)


def test_a_prediction_says_how_far_it_is_and_what_it_hears_ends_it(world, model):
    slide, spots = world.sample(5)
    heard = []
    weights, _ = predict_spots(model, slide, spots, progress=lambda *told: heard.append(told))
    assert heard == [("0 of 90 spots", 0), ("64 of 90 spots", 64 / 90), ("90 of 90 spots", 1)]
    pd.testing.assert_frame_equal(weights, predict_spots(model, slide, spots)[0])

    def enough(_text, done):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_expression(model, slide, spots, progress=enough)


def test_symmetries_make_a_turned_slide_the_same(world, model):
    _, spots = world.sample(5, rows=5, cols=5)
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (20, 20, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    upright = Slide.from_arrays([pixels], 0.5, name="upright")
    turned = Slide.from_arrays([pixels[::-1, ::-1]], 0.5, name="turned")
    moved = spots.copy()
    moved.obsm["spatial"] = 160.0 - spots.obsm["spatial"]

    def difference(symmetries):
        tables = [predict_spots(model, *s, symmetries=symmetries)[0] for s in ((upright, spots), (turned, moved))]
        return np.abs(tables[0] - tables[1]).to_numpy().max()

    assert difference(symmetries=True) < 0.1 * difference(symmetries=False)


def test_symmetries_are_those_of_the_training_settings_unless_given(world, model):
    sample = world.sample(5, rows=5, cols=5)
    asked = predict_spots(model, *sample, symmetries=True)[0]
    assert not predict_spots(model, *sample)[0].equals(asked)
    model.provenance["settings"]["symmetries"] = True
    pd.testing.assert_frame_equal(predict_spots(model, *sample)[0], asked)


def test_given_depth_the_line_on_log_totals_is_taken_out(world, model):
    slide, spots = world.sample(5)
    scores = evaluate(model, slide, spots)
    compared = predict_expression(model, slide, spots)
    totals = spots.layers["counts"].toarray().sum(axis=1)
    design = np.column_stack([np.ones(len(totals)), np.log(totals)])
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (compared.X, compared.layers["measured"])]
    for g in (0, 7, 31):
        r = stats.pearsonr(left[0][:, g], left[1][:, g])[0]
        assert scores["pcc_given_depth"].iloc[g] == pytest.approx(r, abs=1e-4)
        depth = stats.pearsonr(compared.layers["measured"][:, g], np.log(totals))[0]
        assert scores["pcc_of_depth"].iloc[g] == pytest.approx(depth, abs=1e-4)
    detected = (spots.to_df()[list(scores.index)] > 0).mean()
    pd.testing.assert_series_equal(scores["detected"], detected, check_names=False)
    np.testing.assert_allclose(scores["mean_expression"], compared.layers["measured"].mean(axis=0), atol=1e-5)


def test_a_prediction_of_depth_alone_is_found_out(world, model):
    """Spots of one composition and very different depth: what looks like skill is depth."""
    slide, spots = world.sample(5, rows=12, cols=14)
    compared = predict_expression(model, slide, spots)
    rng = np.random.default_rng(0)
    depth = rng.uniform(20, 1500, spots.n_obs)
    counts = rng.poisson(depth[:, None] * world.prototypes.profiles[0])
    compared.obs["total_counts"] = counts.sum(axis=1)
    compared.layers["measured"] = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    compared.X = np.log(counts.sum(axis=1, keepdims=True)) + rng.normal(0, 0.3, compared.shape)
    summary = summarise(score(compared, spots))
    assert summary["pcc"] > 0.15
    assert abs(summary["pcc_given_depth"]) < 0.05


def test_noise_ceiling_and_morans_i_come_on_request(world, model):
    slide, spots = world.sample(5)
    plain = evaluate(model, slide, spots, settings=EvaluationSettings(ceiling_repeats=0))
    assert not {"ceiling", "moran_measured"} & set(plain.columns)
    full = evaluate(model, slide, spots, settings=EvaluationSettings(ceiling_repeats=3, spatial=True))
    pd.testing.assert_frame_equal(full[noise_ceilings(spots).columns], noise_ceilings(spots, model.genes, n_repeats=3))
    assert full["moran_measured"].mean() > 0.1
    assert full["moran_predicted"].mean() > full["moran_measured"].mean()  # a prediction has no counting noise
    summary = summarise(full)
    assert summary["ceiling"] == pytest.approx(full["ceiling"].mean())
    assert summary["moran_predicted"] == pytest.approx(full["moran_predicted"].mean())


def test_what_is_left_out_is_counted(world, model):
    slide, spots = world.sample(5)
    counts = spots.layers["counts"].toarray()
    counts[:3] = 0
    counts[:, list(spots.var_names).index(model.genes[2])] = 0
    spots.layers["counts"] = sparse.csr_matrix(counts)
    spots.obsm["spatial"][5] = np.nan
    scores = evaluate(model, slide, spots[:, [g for g in spots.var_names if g != model.genes[0]]].copy())
    expected = {
        "slide": slide.name, "n_spots": 86, "spots_without_counts": 3, "spots_without_place": 1,
        "spots_without_patch": 0, "genes_not_measured": 1, "genes_constant_measured": 1, "genes_constant_predicted": 0,
    }  # fmt: skip
    assert scores.attrs == expected
    summary = summarise(scores)
    assert summary["n_genes"] == len(model.genes) - 2
    assert {key: summary[key] for key in expected if key != "slide"} | {"slide": slide.name} == expected


def test_one_spot_has_no_scores(world, model):
    slide, spots = world.sample(5)
    scores = evaluate(model, slide, spots[:1].copy())
    assert scores["pcc"].isna().all()
    assert summarise(scores)["n_genes"] == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [(0, "No spot of slide5 has counts and a place"), (np.nan, "missing or infinite"), (0.5, "fractional values")],
)
def test_counts_that_nothing_can_be_compared_with(world, model, value, message):
    slide, spots = world.sample(5)
    spots.layers["counts"] = sparse.csr_matrix(np.full(spots.shape, value))
    with pytest.raises(SpotsError, match=message):
        evaluate(model, slide, spots)


def test_spots_without_places(world, model):
    slide, spots = world.sample(5)
    del spots.obsm["spatial"]
    with pytest.raises(SpotsError, match="read them with read_spots"):
        evaluate(model, slide, spots)


def test_names_of_the_columns_of_positions_decide(world, model):
    """At every door that takes spots from memory."""
    slide, spots = world.sample(5, rows=4)
    named = spots.copy()
    del named.obsm["spatial"]
    rows_first = spots.obsm["spatial"][:, ::-1]
    named.obsm["spatial"] = pd.DataFrame(rows_first, columns=["pxl_row", "pxl_col"], index=spots.obs_names)
    pd.testing.assert_frame_equal(evaluate(model, slide, named), evaluate(model, slide, spots))
    for one, other in zip(predict_spots(model, slide, named), predict_spots(model, slide, spots), strict=True):
        np.testing.assert_array_equal(one, other)
    settings = TrainingSettings(validation="none")
    found, given = (check_samples([(slide, table)], settings)[0][0] for table in (named, spots))
    np.testing.assert_array_equal(found.centers_um, given.centers_um)
    assert sample_key(slide, named) == sample_key(slide, spots)
    assert estimate_mpp(named) == estimate_mpp(spots)
    assert isinstance(named.obsm["spatial"], pd.DataFrame)  # the caller's own table stays as it is
    unnamed = named.copy()
    unnamed.obsm["spatial"] = named.obsm["spatial"].set_axis(["a", "b"], axis=1)
    with pytest.raises(SpotsError, match=f"The table of spots of {slide.name} has the columns a, b"):
        evaluate(model, slide, unnamed)


def test_spots_of_two_libraries_are_not_put_on_one_slide(world, model):
    slide, spots = world.sample(5, rows=4)
    both = ad.concat({"A": spots, "B": spots}, label="library_id", index_unique="-")
    message = rf"spots of {slide.name} holds the spots of 2 libraries \(A, B\).*give spots\[spots.obs\['library_id'\]"
    for door in (lambda: evaluate(model, slide, both), lambda: predict_spots(model, slide, both)):
        with pytest.raises(SpotsError, match=message):
            door()
    with pytest.raises(SpotsError, match=message):
        check_samples([(slide, both)], TrainingSettings(validation="none"))
    evaluate(model, slide, both[both.obs["library_id"] == "A"].copy())


def test_summary_of_something_else(world):
    with pytest.raises(TrainingError, match="make it with evaluate"):
        summarise(pd.DataFrame({"pcc": [1.0]}))


@pytest.mark.filterwarnings("error")
def test_scores_on_a_slide_of_the_training_data_say_so(world, model):
    slide, spots = world.sample(1, rows=4)
    with pytest.warns(CpnnWarning, match="slide1 was in the training data of this model; its scores here flatter"):
        evaluate(model, slide, spots)
    evaluate(model, *world.sample(5, rows=4))  # another slide: nothing to say
