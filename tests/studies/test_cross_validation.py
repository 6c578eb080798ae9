"""Cross-validation on the small world: no leak, no work done twice, and folds that cannot be tested."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from napari_cpnn import Slide, cross_validate, estimate_prototypes, evaluate, open_slide, read_cells, read_spots, train
from napari_cpnn.errors import CpnnWarning, SettingsError, TrainingError
from napari_cpnn.evaluation.metrics import pearson
from napari_cpnn.models import load_model
from napari_cpnn.settings import EvaluationSettings, PrototypeSettings, TrainingSettings
from napari_cpnn.spots import estimate_mpp
from napari_cpnn.studies import cross_validation
from napari_cpnn.studies.report import held_out_slides, write_report
from napari_cpnn.studies.twins import warn_of_twins
from small_world import draw_nothing

SETTINGS = EvaluationSettings(ceiling_repeats=1, precision="float32")


@pytest.fixture(scope="module")
def samples(world):
    """Two sections of patient C, one of B."""
    result = [world.sample(i, rows=6, cols=6, name=name) for i, name in enumerate(("C2", "C3", "B4"))]
    for (_, spots), patient in zip(result, "CCB", strict=True):
        spots.obs["patient"] = patient
    return result


@pytest.fixture(scope="module")
def heads(quick):
    one = quick.replace(max_epochs=1, batch_size=36)
    return {"ours": one, "plain head": one.replace(head="linear", composition_weight=0.0, n_programs=0)}


@pytest.fixture(scope="module")
def finished(world, samples, heads, tmp_path_factory):
    """A cross-validation that ran in one go."""
    out = tmp_path_factory.mktemp("cv")
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        return out, cross_validate(samples, world.prototypes, heads, out=out, evaluation=SETTINGS, progress=False)


@pytest.fixture
def trained(monkeypatch):
    """Folders that were trained into."""
    calls = []

    def spy(*args, **kwargs):
        calls.append("/".join(args[3].parts[-3:-1]))
        return train(*args, **kwargs)

    monkeypatch.setattr(cross_validation, "train", spy)
    return calls


def test_every_slide_is_tested_once_per_head(finished, samples):
    out, table = finished
    assert list(table.columns[:6]) == ["head", "fold", "slide", "gene", "pcc", "scc"]
    found = table.groupby(["head", "fold", "slide"], sort=False).size()
    assert list(found.index) == [
        (head, fold, slide)
        for fold, slides in (("C", ("C2", "C3")), ("B", ("B4",)))
        for head in ("ours", "plain head")
        for slide in slides
    ]
    assert (table["n_spots"] == 36).all()
    folds = pd.read_csv(out / "folds.csv")
    means = table.groupby(["head", "slide"])["pcc"].mean()
    for row in folds.itertuples():
        assert row.pcc == pytest.approx(means[row.head, row.slide])
    assert (folds["spots_without_counts"] == 0).all()
    pd.testing.assert_frame_equal(pd.read_csv(out / "scores.csv"), table, check_exact=False)


def test_a_fold_is_a_training_on_the_others(finished, world, samples, heads, tmp_path):
    _, table = finished
    c2, c3, b4 = samples
    model = train([c2, c3], world.prototypes, heads["ours"], tmp_path / "run", progress=False)
    assert model.provenance["held_out"] == "C3"
    expected = evaluate(model, *b4, settings=SETTINGS)
    rows = table[(table["head"] == "ours") & (table["fold"] == "B")].set_index("gene")
    pd.testing.assert_frame_equal(rows[expected.columns], expected, check_exact=True)


@pytest.fixture
def no_report(monkeypatch):
    """The report has its own tests; drawing it takes a second."""
    monkeypatch.setattr(cross_validation, "write_report", lambda *_: None)


@pytest.mark.usefixtures("no_report")
def test_finished_folds_are_not_run_again(finished, world, samples, heads, trained, tmp_path):
    out, table = finished
    again = cross_validate(samples, world.prototypes, heads, out=out, evaluation=SETTINGS, progress=False)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    other = EvaluationSettings(ceiling_repeats=0, spatial=True, precision="float32")
    copy = shutil.copytree(out, tmp_path / "copy")
    more = cross_validate(samples, world.prototypes, heads, out=copy, evaluation=other, progress=False)
    assert "moran_predicted" in more
    assert "ceiling" not in more
    pd.testing.assert_series_equal(more["pcc"], table["pcc"], check_exact=True)
    assert trained == []


@pytest.mark.usefixtures("no_report")
def test_predictions_have_the_precision_of_the_evaluation(finished, world, samples, heads, trained, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "copy")
    coarse = SETTINGS.replace(precision="bfloat16")
    ours = {"ours": heads["ours"]}
    table = cross_validate(samples, world.prototypes, ours, out=out, evaluation=coarse, progress=False)
    expected = evaluate(load_model(out / "ours" / "B" / "run" / "model.safetensors"), *samples[2], settings=coarse)
    rows = table[table["fold"] == "B"].set_index("gene")
    pd.testing.assert_frame_equal(rows[expected.columns], expected, check_exact=True)
    before = finished[1].query("head == 'ours' and fold == 'B'")
    assert not np.array_equal(rows["pcc"], before["pcc"])
    assert trained == []


@pytest.mark.usefixtures("no_report")
def test_a_killed_run_goes_on_where_it_was(finished, world, samples, heads, trained, tmp_path):
    done, table = finished
    out = shutil.copytree(done, tmp_path / "killed")
    for name in ("scores.json", "B4.csv", "B4.h5ad"):  # killed after its training
        (out / "ours" / "B" / name).unlink()
    shutil.rmtree(out / "plain_head" / "B")  # killed in its first epoch
    (out / "plain_head" / "B" / "run").mkdir(parents=True)
    (out / "plain_head" / "B" / "run" / "model.safetensors").write_bytes(b"half a model")
    shutil.rmtree(out / "ours" / "C")  # never begun
    resumed = cross_validate(samples, world.prototypes, heads, out=out, evaluation=SETTINGS, progress=False)
    assert trained == ["ours/C", "plain_head/B"]
    pd.testing.assert_frame_equal(resumed, table, check_exact=True)


def test_an_interrupted_training_ends_it_all(world, samples, heads, tmp_path, monkeypatch):
    def interrupted(*args, **_):
        args[3].mkdir(parents=True)
        (args[3] / "resume.safetensors").touch()

    monkeypatch.setattr(cross_validation, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(samples, world.prototypes, heads, out=tmp_path, progress=False)


@pytest.mark.usefixtures("no_report")
def test_a_folder_keeps_to_its_settings_and_data(finished, world, samples, heads, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "copy")
    ours = heads["ours"]
    with pytest.raises(TrainingError, match=r"holds a fold with another max_epochs, learning_rate;"):
        cross_validate(samples, world.prototypes, {"ours": ours.replace(max_epochs=9, learning_rate=0.1)}, out=out)
    cross_validate(samples, world.prototypes, {"ours": ours.replace(device="auto")}, out=out, evaluation=SETTINGS)
    path = out / "ours" / "C" / "fold.json"
    facts = json.loads(path.read_text())
    del facts["settings"]["n_genes"]  # of a version that had no such setting
    path.write_text(json.dumps(facts))
    cross_validate(samples, world.prototypes, {"ours": ours}, out=out, evaluation=SETTINGS)
    facts["settings"]["wings"] = 2
    path.write_text(json.dumps(facts))
    with pytest.raises(TrainingError, match="another version of napari-cpnn: TrainingSettings has no setting wings"):
        cross_validate(samples, world.prototypes, {"ours": ours}, out=out)
    del facts["settings"]["wings"]
    path.write_text(json.dumps(facts))
    changed = replaced(samples, 0, lambda spots: spots[:20].copy())
    with pytest.raises(TrainingError, match=r"ours.C holds a fold with another tested;"):
        cross_validate(changed, world.prototypes, {"ours": ours}, out=out)


def replaced(samples, i, change):
    slide, spots = samples[i]
    spots = spots.copy()
    spots = change(spots)
    return [*samples[:i], (slide, spots), *samples[i + 1 :]]


def with_counts(spots, values):
    spots.layers["counts"] = sparse.csr_matrix(np.broadcast_to(values, spots.shape))
    return spots


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spots: spots[:1].copy(), "B4 has one spot with counts and a place, and a correlation needs two"),
        (lambda spots: with_counts(spots, 0), "No spot of B4 has counts and a place"),
        (lambda spots: with_counts(spots, 3), "No gene of the prototypes varies over the 36 spots of B4"),
    ],
    ids=["one spot", "all-zero spots", "constant genes"],
)
def test_a_fold_that_cannot_be_tested_is_said_and_the_others_go_on(world, samples, heads, change, message, tmp_path):
    changed = replaced(samples, 2, change)
    settings = {"ours": heads["ours"].replace(validation="none", backbone_learning_rate=0.0)}
    evaluation = EvaluationSettings(ceiling_repeats=0, precision="float32")
    with pytest.warns(CpnnWarning) as caught:
        table = cross_validate(changed, world.prototypes, settings, "section", tmp_path, evaluation, progress=False)
    assert any(message in str(w.message) and "is not tested with ours" in str(w.message) for w in caught)
    assert list(dict.fromkeys(table["slide"])) == ["C2", "C3"]
    folds = pd.read_csv(tmp_path / "folds.csv").set_index("slide")
    assert message in folds.loc["B4", "not_tested"]
    assert folds.loc[["C2", "C3"], "not_tested"].isna().all()


def test_no_fold_can_be_tested(world, samples, heads, tmp_path):
    changed = []
    for slide, spots in samples[:2]:
        renamed = spots.copy()
        renamed.var_names = [f"ENSG0000000{i:04d}" for i in range(spots.n_vars)]
        changed.append((slide, renamed))
    with pytest.warns(CpnnWarning), pytest.raises(TrainingError, match=r"No fold could be tested; C2: .* Ensembl ids"):
        cross_validate(changed, world.prototypes, heads, "section", tmp_path, progress=False)


def test_settings_that_no_fold_can_have(world, samples, heads, tmp_path):
    named = heads["ours"].replace(validation="C2")
    with pytest.raises(SettingsError, match="hold out C2 for validation, but each slide is tested"):
        cross_validate(samples, world.prototypes, named, out=tmp_path)
    with pytest.raises(SettingsError, match="prototypes for random and settings for ours, plain head"):
        cross_validate(samples, {"random": world.prototypes}, heads, out=tmp_path)
    with pytest.raises(SettingsError, match="no head to train"):
        cross_validate(samples, world.prototypes, {}, out=tmp_path)


def test_the_report_is_made_from_the_folder(finished, samples, tmp_path, real_curves):
    out, table = finished
    both = list(held_out_slides(out))
    assert [(one.fold, one.slide, list(one.heads)) for one in both] == [
        (fold, slide, ["ours", "plain head"]) for fold, slide in (("C", "C2"), ("C", "C3"), ("B", "B4"))
    ]
    compared = both[2].heads["ours"]
    assert list(compared.obs["row"]) == list(range(36))
    rows = table[(table["head"] == "ours") & (table["slide"] == "B4")].set_index("gene")
    np.testing.assert_allclose(pearson(compared.X, compared.layers["measured"]), rows["pcc"], atol=1e-12)
    comparison = pd.read_csv(out / "comparison.csv")
    assert set(comparison["fold"]) == {"C", "B", "all"}
    copy = shutil.copytree(out, tmp_path / "copy")
    (copy / "report.png").unlink()
    again = write_report(copy)
    pd.testing.assert_frame_equal(again, comparison, check_exact=False)
    assert (copy / "report.png").stat().st_size > 20_000
    next((copy / "ours" / "B").glob("*.h5ad")).unlink()
    with pytest.raises(TrainingError, match="no predictions of ours for B4"):
        list(held_out_slides(copy))


def test_a_damaged_folder_is_a_sentence(finished, world, samples, heads, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "copy")
    (out / "ours" / "B" / "fold.json").write_text("{")
    with pytest.raises(TrainingError, match=r"fold.json is damaged"):
        cross_validate(samples, world.prototypes, heads, out=out, progress=False)
    with pytest.raises(TrainingError, match="cannot be read"):
        write_report(tmp_path / "nothing")


@pytest.mark.slow
def test_real_sections_from_files_to_report(shared_data, tmp_path, real_curves):
    """A few spots of two patients; numbers mean nothing after one epoch, but all of them are there."""
    folder = shared_data / "her2st" / "data"
    images = {"B4": "B/B4/BT10737_D2_HE.jpg", "C4": "C/C4/5714_HE_BT_D2.jpg"}
    samples = []
    for section, image in images.items():
        spots = read_spots(folder / f"ST-cnts/{section}.tsv.gz", folder / f"ST-spotfiles/{section}_selection.tsv")
        slide = open_slide(folder / "ST-imgs" / image, mpp=estimate_mpp(spots))
        most = np.asarray(spots.X.sum(axis=0)).ravel().argsort()[-400:]
        spots = spots[np.arange(100, 150), np.sort(most)].copy()
        spots.obs["patient"] = section[0]
        samples.append((slide, spots))
    cells = read_cells(shared_data / "derived" / "wu2021_CID4465_counts.h5ad")
    prototypes = estimate_prototypes(cells, "celltype_major", settings=PrototypeSettings(method="mean", min_cells=5))
    settings = TrainingSettings(
        backbone="squeezenet", weights="none", hidden=32, max_epochs=1, validation="none", backbone_learning_rate=0.0,
        device="cpu", precision="float32", seed=0,
    )  # fmt: skip
    evaluation = EvaluationSettings(ceiling_repeats=2, spatial=True, precision="float32")
    table = cross_validate(samples, prototypes, settings, out=tmp_path, evaluation=evaluation, progress=False)
    assert list(dict.fromkeys(table["fold"])) == ["B", "C"]
    means = table.groupby("fold").mean(numeric_only=True)
    assert np.isfinite(means[["pcc", "scc", "pcc_given_depth", "moran_measured", "moran_predicted"]]).all().all()
    assert means["ceiling"].between(0.2, 0.9).all()
    assert means.loc["B", "pcc_of_depth"] > 0.1  # B4 is shallow, so its normalised values follow depth
    assert (tmp_path / "report.png").is_file()


def test_one_slide_in_two_groups_is_noticed_by_picture_or_spots(samples, world):
    """The same section under two names would be tested by models that have learnt from it."""
    labels = ["C2", "C3", "B4"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_twins(samples, labels, ["C", "C", "B"])
        warn_of_twins([*samples, samples[0]], [*labels, "again"], ["C", "C", "B", "C"])  # in one group it may be
    slide, spots = samples[0]
    unlike, other = world.sample(9, rows=6, cols=6)
    shuffled = spots[::-1, np.random.default_rng(0).permutation(spots.n_vars)].copy()
    with pytest.warns(CpnnWarning, match="C2 and again have the same measured spots but are in different groups"):
        warn_of_twins([*samples, (unlike, shuffled)], [*labels, "again"], ["C", "C", "B", "X"])
    level = np.asarray(slide.levels[0])
    larger = Slide.from_arrays([level.repeat(2, axis=0).repeat(2, axis=1)], slide.mpp, name="scanned again")
    with pytest.warns(CpnnWarning, match="C2 and again show the same picture") as caught:
        warn_of_twins([*samples, (larger, other)], [*labels, "again"], ["C", "C", "B", "X"])
    assert len(caught) == 1
