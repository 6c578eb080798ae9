"""Nuclei found as one looks: in the end those of the whole slide, and kept on disk."""

from __future__ import annotations

import numpy as np
import pytest

import napari_cpnn as nc
from napari_cpnn.errors import NucleiError
from napari_cpnn.geometry import Rect
from napari_cpnn.nuclei import LiveNuclei
from napari_cpnn.progress import CancelledError

SETTINGS = nc.NucleiSettings(method="classical")


def test_all_tiles_in_any_order_are_the_whole_slide(painted):
    whole = nc.detect_nuclei(painted.slide, settings=SETTINGS, progress=False)
    live = LiveNuclei(painted.slide, SETTINGS)
    assert not live.is_complete
    assert len(live.nuclei()) == 0
    first = live.missing(Rect(250, 250, 260, 260))
    assert len(first) == 4  # the corner of four tiles
    live.find(first[:1])
    part = live.nuclei()
    assert 0 < len(part) < len(whole)
    tiles = live.missing()
    assert len(tiles) == live.n_tiles - 1
    live.find(tiles[::-1])
    assert live.is_complete
    found = live.nuclei()
    np.testing.assert_array_equal(found.centers_um, whole.centers_um)
    np.testing.assert_array_equal(found.outlines.vertices_um, whole.outlines.vertices_um)
    assert found.source == whole.source
    assert live.nuclei() is found

    live.keep()
    again = LiveNuclei(painted.slide, SETTINGS)
    assert again.is_complete
    np.testing.assert_array_equal(again.nuclei().centers_um, whole.centers_um)
    assert LiveNuclei(painted.slide, SETTINGS.replace(sensitivity=0.6)).n_done == 0
    assert LiveNuclei(painted.slide, SETTINGS, keep=False).n_done == 0


def test_a_search_can_be_stopped_and_goes_on(painted):
    live = LiveNuclei(painted.slide, SETTINGS, keep=False)

    def stop(_text: str, done: float) -> None:
        if done > 0:
            raise CancelledError("Stopped.")

    with pytest.raises(CancelledError):
        live.find(live.missing(), stop)
    assert live.n_done == 1
    live.find(live.missing())
    assert live.is_complete


def test_what_is_kept_and_damaged_is_found_anew(painted, private_cache):
    live = LiveNuclei(painted.slide, SETTINGS)
    live.find(live.missing()[:1])
    live.keep()
    (kept,) = (private_cache / "nuclei").glob("*.zarr")
    chunk = next(path for path in (kept / "peaks_um").rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(b"no")
    assert LiveNuclei(painted.slide, SETTINGS).n_done == 0


def test_pixels_too_large_for_nuclei():
    slide = nc.Slide.from_arrays([np.full((64, 64, 3), 200, np.uint8)], 2.0, name="coarse")
    with pytest.raises(NucleiError, match="finer scan"):
        LiveNuclei(slide)
