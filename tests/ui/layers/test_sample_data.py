from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from anndata import AnnData

from napari_cpnn import samples
from napari_cpnn.errors import CpnnError, DownloadError
from napari_cpnn.models import ZOO
from napari_cpnn.ui.compare import Compare
from napari_cpnn.ui.explore import Explore
from napari_cpnn.ui.frame import seen_text
from napari_cpnn.ui.layers import sample_data
from napari_cpnn.ui.viewer import Shown, recent_models

C4_FILE, B4_FILE = "5714_HE_BT_D2.jpg", "BT10737_D2_HE.jpg"


@pytest.fixture
def sample(slide_path, model_path, tmp_path, monkeypatch):
    """A folder that looks like the packaged sample."""
    folder = tmp_path / "sample_data"
    folder.mkdir()
    slide_path.rename(folder / "slide.tiff")
    (folder / "model.safetensors").write_bytes(model_path.read_bytes())
    monkeypatch.setattr("napari_cpnn.samples.sample_folder", lambda: folder)
    monkeypatch.setattr(recent_models, "sample_folder", lambda: folder)
    return folder


def test_sample_slide_brings_its_model(sample, explore, wait):
    dock = explore()
    ((data, keywords, _),) = sample_data.synthetic()
    dock.session.viewer.add_image(data, **keywords)
    wait(lambda: dock.state.map is not None)
    assert dock.state.slide.path == sample / "slide.tiff"
    assert dock.state.model.genes[0] == "ERBB2"


def test_no_sample_is_said(monkeypatch):
    def missing():
        raise CpnnError("This installation has no sample data.")

    monkeypatch.setattr("napari_cpnn.samples.sample_folder", missing)
    monkeypatch.setattr(recent_models, "sample_folder", missing)
    with pytest.raises(CpnnError, match="no sample data"):
        sample_data.synthetic()
    assert recent_models.sample_model() is None


@pytest.fixture
def section(slide_path, monkeypatch):
    """In place of the real section: a small slide with spots, whose files are already here."""
    spots = AnnData(np.ones((2, 3), dtype=np.float32), obsm={"spatial": np.array([[100.0, 50.0], [150.0, 80.0]])})
    files = (slide_path, slide_path.with_name("C4.tsv.gz"), slide_path.with_name("C4_selection.tsv"))
    monkeypatch.setattr("napari_cpnn.samples.is_her2st_local", lambda **_: True)
    monkeypatch.setattr("napari_cpnn.samples.fetch_her2st", lambda **_: slide_path.parent)
    monkeypatch.setattr("napari_cpnn.samples.her2st_section", lambda *_: files)
    monkeypatch.setattr("napari_cpnn.spots.read_spots", lambda *_: spots)
    monkeypatch.setattr("napari_cpnn.spots.estimate_mpp", lambda _: (0.69, 0.69))
    monkeypatch.setattr(sample_data, "ask", pytest.fail)
    return files


def test_real_sample_is_read_with_the_window_alive(qtbot, section, monkeypatch):
    main, seen = threading.get_ident(), SimpleNamespace(thread=None, sections=None)

    def fetch(sections):
        seen.thread, seen.sections = threading.get_ident(), sections
        return section[0].parent

    monkeypatch.setattr("napari_cpnn.samples.fetch_her2st", fetch)
    (_, slide, _), (places, spots, kind) = sample_data.her2st()
    assert seen.thread not in (None, main)
    assert seen.sections == ["C4"]
    assert slide["scale"] == (0.69, 0.69)
    assert kind == "points"
    np.testing.assert_allclose(places, 0.69 * np.array([[50.0, 100.0], [80.0, 150.0]]))  # (y, x), um
    assert (spots["metadata"]["spots_path"], spots["metadata"]["spots_positions"]) == tuple(map(str, section[1:]))


@pytest.mark.usefixtures("section")
def test_nothing_is_downloaded_unasked(qtbot, monkeypatch):
    asked, answers = [], iter([False, True])

    def ask(_parent, _title, text):
        asked.append(text)
        return next(answers)

    fetch = samples.fetch_her2st
    monkeypatch.setattr("napari_cpnn.samples.is_her2st_local", lambda **_: False)
    monkeypatch.setattr("napari_cpnn.samples.fetch_her2st", pytest.fail)
    monkeypatch.setattr(sample_data, "ask", ask)
    with pytest.raises(
        DownloadError, match=r"not on this computer; run `napari-cpnn fetch her2st`, with --from FOLDER"
    ):
        sample_data.her2st()
    monkeypatch.setattr("napari_cpnn.samples.fetch_her2st", fetch)
    assert len(sample_data.her2st()) == 2
    assert len(asked) == 2
    assert "Download it from github.com/almaan/her2st?" in asked[0]
    assert "CC BY 4.0" in asked[0]


@pytest.mark.usefixtures("section")
def test_offline_is_one_sentence(qtbot, monkeypatch):
    def offline(**_):
        raise DownloadError("C4.jpg could not be fetched; check the network.")

    monkeypatch.setattr("napari_cpnn.samples.fetch_her2st", offline)
    with pytest.raises(DownloadError, match="check the network"):
        sample_data.her2st()


@pytest.mark.slow  # the demo does it, too
def test_the_sample_is_explored_by_a_model_that_has_not_seen_it(make_napari_viewer, wait, shared_data, monkeypatch):
    """As with *File > Open Sample*, on the real section; another slide and another model are on screen."""
    monkeypatch.setenv("NAPARI_CPNN_DATA", str(shared_data))
    viewer = make_napari_viewer()
    viewer.add_image(np.full((300, 200, 3), 240, dtype=np.uint8), name="another", rgb=True)
    viewer.open_sample("napari-cpnn", "her2st")
    (dock,) = (dock for dock in viewer.window.dock_widgets.values() if isinstance(dock, Explore))
    wait(lambda: dock.state.map is not None)
    assert dock.state.layer is viewer.layers["her2st C4"]
    assert dock.state.slide.mpp == pytest.approx((0.686, 0.690), abs=1e-3)
    assert {item["slide"] for item in dock.state.model.provenance["training_data"]} == {"B4", "C2", "C3"}
    assert dock.state.shown == Shown("gene", ("ERBB2",))
    assert dock.gene_note.text().startswith("held-out PCC 0.")
    assert " on C4, which it has not seen" in dock.gene_note.text()
    said = "C4 was not in the training of this model; others of its patient were."
    wait(lambda: dock.message.text() == said)
    spots = viewer.layers["her2st C4, spots"]
    assert len(spots.data) == 184
    assert "ERBB2" in spots.metadata["adata"].var_names

    dock.controller.choose_model("breast-her2st")
    wait(lambda: dock.message.text().startswith("C4 was in the training of this model"))
    viewer.open_sample("napari-cpnn", "her2st")  # again: one dock, and the model that has not seen it
    wait(lambda: dock.message.text() == said)
    assert sum(isinstance(dock, Explore) for dock in viewer.window.dock_widgets.values()) == 1
    assert dock.state.layer is viewer.layers["her2st C4 [1]"]

    compare = Compare(viewer)
    viewer.window.add_dock_widget(compare, name="Compare")
    wait(lambda: compare.controller.spots.table is not None)
    assert [Path(file).name for file in dock.state.memory.spots] == ["C4.tsv.gz", "C4_selection.tsv"]  # for next time
    compare.shut_down()
    dock.shut_down()


def test_what_is_said_of_slides_and_models():
    """Of the four sections only, for others may have the same name; by name of the section or of its file."""
    c4, b4 = (SimpleNamespace(path=Path(f"a/{name}"), name=name) for name in (C4_FILE, B4_FILE))
    seen_c4 = SimpleNamespace(provenance={"training_data": [{"slide": C4_FILE}]})
    assert seen_text(seen_c4, c4).startswith("C4 was in the training of this model")
    assert seen_text(seen_c4, b4) == "B4 was not in the training of this model."
    assert seen_text(seen_c4, SimpleNamespace(path=Path("C4.jpg"), name="C4.jpg")) == ""
    assert seen_text(SimpleNamespace(provenance={}), c4) == seen_text(None, c4) == seen_text(seen_c4, None) == ""


def test_models_of_samples_are_offered_last_even_when_used():
    for name in ("breast-her2st-without-c4", "breast-her2st"):
        recent_models.remember(ZOO[name].path)
    recent_models.remember(ZOO["breast-her2st-without-c4"].path)
    names = [path.name for path in recent_models.known_models()]
    assert names == ["breast-her2st.safetensors", "breast-her2st-without-c4.safetensors", "model.safetensors"]


def test_recent_models_newest_first_and_only_those_that_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(recent_models, "sample_model", lambda: None)
    paths = [tmp_path / f"{i}.safetensors" for i in range(12)]
    for path in paths:
        path.touch()
        recent_models.remember(path)
    paths[-2].unlink()
    assert recent_models.known_models() == [
        paths[-1],
        *reversed(paths[4:-2]),
        *(model.path for model in ZOO.values()),
    ]


def test_damaged_list_of_models_is_an_empty_one(private_cache, monkeypatch):
    monkeypatch.setattr(recent_models, "sample_model", lambda: None)
    private_cache.mkdir(parents=True)
    (private_cache / "recent_models.json").write_text("{not json")
    assert recent_models.known_models() == [model.path for model in ZOO.values()]
