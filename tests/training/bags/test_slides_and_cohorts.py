"""From slides on disk to a slide-level model that maps them, in Python and on the command line."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import napari_cpnn as nc
from napari_cpnn.cli import main
from napari_cpnn.errors import CpnnWarning, SettingsError, TrainingError
from napari_cpnn.mapping import DONE, predict_map
from napari_cpnn.regions import Region, explain_gene
from napari_cpnn.settings import MappingSettings, SlideLevelSettings
from napari_cpnn.training.bags import BagReader, cohort_bulk, load_slide_model, read_cohort_bags, train_slides

SETTINGS = SlideLevelSettings(
    encoder="colour", patch=nc.PatchSpec(64, 2.0), hidden=16, epochs=20, device="cpu", validation=0.0
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six copies of the sample slide, their pixels shifted in colour, with bulk counts; two are of one sample."""
    folder, sample = tmp_path_factory.mktemp("cohort"), nc.sample_folder()
    rng = np.random.default_rng(0)
    spots = nc.read_spots(sample / "spots.h5ad")
    names = [f"S{i}" for i in range(5)]
    rows = []
    for i in range(6):
        shutil.copy(sample / "slide.tiff", folder / f"slide{i}.tiff")
        with (folder / f"slide{i}.tiff").open("ab") as file:
            file.write(bytes([i] * (i + 1)))  # an identity of its own
        rows.append({"slide": f"slide{i}.tiff", "sample": names[min(i, 4)], "patient": f"P{min(i, 4)}"})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    counts = np.stack(
        [np.asarray(spots.layers["counts"][rng.choice(spots.n_obs, 100)].sum(axis=0)).ravel() for _ in names]
    )
    table = pd.DataFrame(counts, index=names, columns=list(spots.var_names))
    table.to_csv(folder / "bulk.csv")
    shutil.copy(sample / "prototypes.h5ad", folder)
    return folder


def test_slides_of_a_sample_are_one_bag_on_the_grid_of_the_map(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path))
    cohort = nc.read_cohort(folder / "cohort.csv")
    reader = BagReader(SETTINGS)
    bags = read_cohort_bags(cohort, reader)
    assert bags.names.tolist() == ["S0", "S1", "S2", "S3", "S4"]
    with nc.open_slide(folder / "slide0.tiff") as slide:
        cmap = predict_map(slide, _model_of(folder), settings=MappingSettings(cache=False))
        places = cmap.grid.centers_um(np.argwhere(cmap.tissue))
    np.testing.assert_array_equal(bags.centers_um[: bags.sizes[0]], places)
    assert bags.sizes.tolist() == [len(places)] * 4 + [2 * len(places)]
    # the second time nothing is computed
    monkeypatch.setattr("napari_cpnn.prediction.Predictor.patch_features", None)
    again = read_cohort_bags(cohort, BagReader(SETTINGS))
    np.testing.assert_array_equal(again.features, bags.features)
    assert len(read_cohort_bags(cohort, BagReader(SETTINGS), "slide")) == 6


def _model_of(folder: Path):
    """A model trained on spots of the sample as bags of one patch; the same for the tests of this file."""
    with nc.open_slide(folder / "slide0.tiff") as slide:
        spots = nc.read_spots(nc.sample_folder() / "spots.h5ad")[::6].copy()
        bags_, table = _spot_bags(slide, spots)
        protos = nc.Prototypes.load(folder / "prototypes.h5ad")
        return train_slides(bags_, table, protos, SETTINGS).model


def _spot_bags(slide, spots):
    from napari_cpnn.geometry import spatial_to_um
    from napari_cpnn.training.bags import Bags

    features, places = BagReader(SETTINGS).features(slide, spatial_to_um(spots.obsm["spatial"], slide.mpp))
    names = spots.obs_names.tolist()
    assert len(places) == len(names)
    return Bags.of([one[None] for one in features], names, names, [one[None] for one in places]), spots


def test_a_map_of_a_slide_level_model_is_the_prediction_of_its_slide(folder):
    model = _model_of(folder)
    with nc.open_slide(folder / "slide0.tiff") as slide:
        cmap = predict_map(slide, model, settings=MappingSettings(cache=False, precision="float32"))
        bags = BagReader(model).read({"S0": [slide]})
        from napari_cpnn.training.bags import SlideModel

        whole = SlideModel(model, None, model.genes, "cpnn")
        shares = whole.composition(bags).to_numpy()[0]
        assert (cmap.state[cmap.tissue] == DONE).all()
        np.testing.assert_allclose(cmap.mean_weights(), shares, atol=2e-3)
        outline = [(0.0, 0.0), (0.0, 1e6), (1e6, 1e6), (1e6, 0.0)]
        gene = model.genes[5]
        parts = explain_gene(cmap, gene, Region.from_vertices("slide", outline))
        assert np.log1p(parts.attrs["expression"]) == pytest.approx(whole.predict(bags)[0, 5], abs=5e-3)
        spots = nc.read_spots(nc.sample_folder() / "spots.h5ad")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CpnnWarning)
            scores = nc.evaluate(model, slide, spots)
    assert scores["pcc"].mean() > 0.1  # of spots that took no part, by colour alone


def test_train_evaluate_and_predict_a_cohort(folder, tmp_path, capsys):
    cohort, bulk = str(folder / "cohort.csv"), str(folder / "bulk.csv")
    common = ["--encoder", "colour", "--patch", "64", "2.0", "--epochs", "2", "--hidden", "8", "--quiet"]
    runs = {"cpnn": ["--prototypes", str(folder / "prototypes.h5ad")], "ridge": ["--head", "ridge"]}
    for name, more in runs.items():
        out = str(tmp_path / name)
        assert main(["train", "--cohort", cohort, "--bulk", bulk, *common, *more, "--out", out, "--json"]) == 0
        trained = json.loads(capsys.readouterr().out)
        assert (trained["command"], trained["n_bags"], trained["n_patients"]) == ("train-cohort", 5, 5)
        assert main(["train", "--cohort", cohort, "--bulk", bulk, *common, *more, "--out", out]) == 2  # exists
        capsys.readouterr()
    models = [str(tmp_path / name / "model.safetensors") for name in runs]
    table = tmp_path / "scores.csv"
    assert main(["evaluate", "--cohort", cohort, "--bulk", bulk, "--model", *models, "--out", str(table)]) == 0
    said = capsys.readouterr()
    assert said.out.count("PCC") == 2
    assert re.search(r"bag 5 of 5: .*100%.*\[\d\d:\d\d<", said.err)  # the bar of reading them
    assert said.err.count("\n") == 1
    scores = pd.read_csv(table)
    assert len(set(scores.groupby("head").size())) == 1
    shares = tmp_path / "shares.csv"
    genes = list(load_slide_model(models[0]).genes[:2])
    assert (
        main(
            [
                "predict",
                "--slide-level",
                "--cohort",
                cohort,
                "--model",
                models[0],
                "--genes",
                *genes,
                "--out",
                str(shares),
                "--json",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["genes"] == genes
    frame = pd.read_csv(shares, index_col=0)
    assert frame.index.tolist() == ["S0", "S1", "S2", "S3", "S4"]
    of_types = frame[[c for c in frame.columns if c.startswith("share ")]]
    np.testing.assert_allclose(of_types.sum(axis=1), 1, rtol=1e-4)
    assert list(frame.columns[-2:]) == genes


def test_what_is_missing_is_said_in_a_sentence(folder, tmp_path, capsys):
    out = ["--out", str(tmp_path / "x"), "--quiet", "--encoder", "colour"]
    assert main(["train", "--cohort", str(folder / "cohort.csv"), "--bulk", str(folder / "bulk.csv"), *out]) == 2
    assert "needs --prototypes" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="S0 has 0 bulk tables"):
        cohort_bulk(nc.read_cohort(folder / "cohort.csv"))
    with pytest.raises(SettingsError, match="need a frozen encoder"):
        BagReader(nc.load_model(nc.sample_folder() / "model.safetensors"))
    assert not (tmp_path / "x").exists()


def test_bulk_of_the_manifest(folder, tmp_path):
    table = pd.read_csv(folder / "bulk.csv", index_col=0)
    rows = pd.read_csv(folder / "cohort.csv")
    for name in table.index:
        table.loc[[name]].rename(index={name: "whatever"}).T.to_csv(tmp_path / f"{name}.csv")
    rows["slide"] = [str(folder / one) for one in rows["slide"]]
    rows["bulk"] = [str(tmp_path / f"{one}.csv") for one in rows["sample"]]
    rows.to_csv(tmp_path / "with_bulk.csv", index=False)
    bulk = cohort_bulk(nc.read_cohort(tmp_path / "with_bulk.csv"))
    assert isinstance(bulk, ad.AnnData)
    assert bulk.obs_names.tolist() == table.index.tolist()
    np.testing.assert_array_equal(bulk.layers["counts"].toarray(), table[list(bulk.var_names)].to_numpy())


@pytest.mark.slow  # test_slide_level has the same on tissue of a known composition
def test_regions_of_real_tissue_teach_the_spots(shared_data, monkeypatch):
    """Bags of 24 regions keep more than half of the spots' PCC (C3 of her2st from C2; C4 is for the results)."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "scripts"))
    import results_slides as study

    settings = study.base_settings(shared_data, "colour").replace(n_genes=200, hidden=64, encoder_weights="pretrained")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CpnnWarning)
        protos = study.read_prototypes(shared_data)[0]["celltype_major"]
        sections = study.read_sections(shared_data, ["C2", "C3"], settings)
        few = study.retained(sections, ["C2"], "C3", protos, {"cpnn": settings}, 24)["pcc"]["cpnn"]
        all_ = study.retained(sections, ["C2"], "C3", protos, {"cpnn": settings.replace(epochs=20)}, None)["pcc"][
            "cpnn"
        ]
    assert few > 0.5 * all_ > 0.02
