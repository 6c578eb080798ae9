from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from napari_cpnn.errors import CpnnError, DownloadError
from napari_cpnn.models import ZOO
from napari_cpnn.ui.layers import sample_data
from napari_cpnn.ui.viewer import recent_models


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


def test_real_sample_is_fetched_with_the_window_alive(qtbot, slide_path, monkeypatch):
    main, seen = threading.get_ident(), SimpleNamespace(thread=None)

    def fetch():
        seen.thread = threading.get_ident()
        return slide_path.parent

    monkeypatch.setattr("napari_cpnn.samples.fetch_her2st", fetch)
    monkeypatch.setattr("napari_cpnn.samples.her2st_section", lambda *_: (slide_path, None, None))
    monkeypatch.setattr("napari_cpnn.spots.read_spots", lambda *_: None)
    monkeypatch.setattr("napari_cpnn.spots.estimate_mpp", lambda _: (0.69, 0.69))
    ((_, keywords, _),) = sample_data.her2st()
    assert seen.thread not in (None, main)
    assert keywords["scale"] == (0.69, 0.69)


def test_offline_is_one_sentence(qtbot, monkeypatch):
    def offline():
        raise DownloadError("C4.jpg could not be fetched; check the network.")

    monkeypatch.setattr("napari_cpnn.samples.fetch_her2st", offline)
    with pytest.raises(DownloadError, match="check the network"):
        sample_data.her2st()


def test_recent_models_newest_first_and_only_those_that_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(recent_models, "sample_model", lambda: None)
    paths = [tmp_path / f"{i}.safetensors" for i in range(12)]
    for path in paths:
        path.touch()
        recent_models.remember(path)
    paths[-2].unlink()
    assert recent_models.known_models() == [paths[-1], *reversed(paths[4:-2]), ZOO["breast-her2st"].path]


def test_damaged_list_of_models_is_an_empty_one(private_cache, monkeypatch):
    monkeypatch.setattr(recent_models, "sample_model", lambda: None)
    private_cache.mkdir(parents=True)
    (private_cache / "recent_models.json").write_text("{not json")
    assert recent_models.known_models() == [ZOO["breast-her2st"].path]
