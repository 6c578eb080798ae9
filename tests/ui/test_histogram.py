"""The histogram of the values in view, in a real napari."""

from __future__ import annotations

import numpy as np

from napari_cpnn.ui.explore.histogram import N_BINS


def test_the_histogram_counts_the_patches_in_view(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None and dock.is_settled())
    dock.controller.show_gene("ERBB2")
    dock.controller.state.choose_look(scale_um=0.0)
    dock.finish_drawing()
    bar, state, camera = dock.look.bar, dock.state, dock.session.viewer.scene.camera

    def check():
        cmap, rect = state.map, state.view.rect
        rows, cols = np.indices(cmap.grid.shape)
        y, x = np.moveaxis(cmap.grid.centers_um(np.stack([rows.ravel(), cols.ravel()], axis=1)), -1, 0)
        half = cmap.grid.stride_um / 2  # a patch that is partly in view counts
        seen = (y + half > rect.y0) & (y - half < rect.y1) & (x + half > rect.x0) & (x - half < rect.x1)
        donors = cmap.donors().ravel()
        values = cmap.expression("ERBB2").ravel()[donors[seen & (donors >= 0)]]
        low, high = state.limits
        bar.update_counts()
        assert f"values of {len(values):,} patches in view" in bar.toolTip()
        assert bar._counts.shape == (N_BINS,)
        assert bar._counts.sum() == ((values >= low) & (values <= high)).sum()
        share = np.clip((values - low) / (high - low) * N_BINS, 0, N_BINS - 1e-6)
        inside = (values >= low) & (values <= high)
        expected = np.bincount(share[inside].astype(int), minlength=N_BINS)
        assert np.abs(np.cumsum(bar._counts) - np.cumsum(expected)).max() <= 1  # rounding at the edge of a bar
        return len(values)

    n_all = check()
    camera.zoom *= 4
    dock.session.read_view()
    wait(dock.is_settled)
    dock.finish_drawing()
    assert 0 < check() < n_all
    height = bar.sizeHint().height()
    dock.controller.show_dominant()
    bar.update_counts()
    assert bar._counts is None
    assert bar.sizeHint().height() < height
