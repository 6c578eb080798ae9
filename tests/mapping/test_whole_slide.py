from __future__ import annotations

import numpy as np
import pytest

from fakes import ColorModel, settings
from napari_cpnn.errors import CpnnWarning, MappingError, SettingsError
from napari_cpnn.mapping import DONE, predict_map
from napari_cpnn.slides import PatchReader


def test_whole_slide(slide, model):
    heard = []
    cmap = predict_map(slide, model, settings=settings(), on_progress=heard.append)
    assert (cmap.state[cmap.tissue] == DONE).all()
    assert heard[-1].done == heard[-1].wanted == cmap.tissue.sum()


def test_region_is_a_window_of_the_whole(slide, model):
    whole = predict_map(slide, model, settings=settings())
    part = predict_map(slide, model, region=[200, 300, 500, 600], settings=settings())
    row, col = round(part.grid.origin_um[0] / 32), round(part.grid.origin_um[1] / 32)
    window = whole.weights[row : row + part.grid.shape[0], col : col + part.grid.shape[1]]
    # Matrix products round differently in batches of another size.
    np.testing.assert_allclose(part.weights.astype(float), window.astype(float), atol=1e-3)
    assert part.grid.shape == (10, 10)
    with pytest.raises(SettingsError, match="outside the slide"):
        predict_map(slide, model, region=(5000, 5000, 6000, 6000), settings=settings())


def test_stride_sets_the_distance_of_patches(slide, model):
    cmap = predict_map(slide, model, stride_um=16.0, settings=settings())
    assert cmap.grid.stride_um == 16.0
    assert cmap.grid.shape == (48, 60)


def test_failed_patches_are_counted_and_a_slide_that_cannot_be_read_is_an_error(slide, model, monkeypatch):
    read = PatchReader.read
    monkeypatch.setattr(PatchReader, "read", lambda s, c: (read(s, c)[0], c[:, 1] > 200))
    with pytest.warns(CpnnWarning, match="patches of coloured could not be read"):
        predict_map(slide, model, settings=settings(cache=False))
    monkeypatch.setattr(PatchReader, "read", lambda s, c: (read(s, c)[0], np.zeros(len(c), dtype=bool)))
    with pytest.raises(MappingError, match="No patch of coloured could be read"):
        predict_map(slide, model, settings=settings(cache=False))


def test_a_network_that_breaks_is_an_error(slide, caplog):
    class Broken(ColorModel):
        def forward(self, x):
            raise ValueError("weights on fire")

    with pytest.raises(MappingError, match="weights on fire"):
        predict_map(slide, Broken().eval(), settings=settings())


def test_a_reader_that_breaks_is_an_error_not_a_wait_without_end(slide, model, monkeypatch, caplog):
    def broken(*_):
        raise ZeroDivisionError("a bug in a codec")

    monkeypatch.setattr(PatchReader, "read", broken)
    with pytest.raises(MappingError, match="a bug in a codec"):
        predict_map(slide, model, settings=settings(cache=False))


def test_a_cache_that_cannot_be_made_is_one_short_sentence_and_the_map_comes(slide, model, tmp_path):
    (tmp_path / "file").write_text("")
    said = set()
    cmap = predict_map(
        slide,
        model,
        settings=settings(cache_dir=str(tmp_path / "file")),
        on_progress=lambda progress: said.add(progress.message),
    )
    assert (cmap.state[cmap.tissue] == DONE).all()
    assert said == {f"Maps are not kept on disk: {tmp_path / 'file' / 'napari-cpnn' / 'maps'}: Not a directory."}


def test_on_a_cluster_the_map_is_the_same(slide, model):
    distributed = pytest.importorskip("distributed")
    here = predict_map(slide, model, settings=settings(cache=False))
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = predict_map(slide, model, client=client, settings=settings(cache=False))
    np.testing.assert_array_equal(there.state, here.state)
    np.testing.assert_allclose(there.weights.astype(float), here.weights.astype(float), atol=1e-3)
