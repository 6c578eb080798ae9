"""The picture of a run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_cpnn.training.fit.curves import curves_figure, draw_curves


@pytest.mark.parametrize("held_out", [True, False])
def test_a_picture_is_drawn_with_and_without_held_out_spots(tmp_path, held_out):
    nan = float("nan")
    history = [
        {"epoch": e, "loss": 1 / e, "expression_loss": 0.8 / e, "held_out_pcc": 0.1 * e if held_out else nan,
         "held_out_scc": 0.1 * e if held_out else nan}
        for e in range(1, 5)
    ]  # fmt: skip
    draw_curves(history, tmp_path / "curves.png", "a run")
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).reshape(-1, 3)
    blue = (np.abs(pixels.astype(int) - (0x2F, 0x8F, 0xD0)) < 8).all(axis=1).sum()
    assert (blue > 100) == held_out


@pytest.mark.parametrize("size_in", [(9.0, 3.6), (3.6, 1.75)])
def test_curves_are_those_of_the_history(size_in):
    history = [{"epoch": e, "loss": 2.0 - e, "held_out_pcc": (0.1, 0.3, 0.2)[e]} for e in range(3)]  # an older run
    losses, scores = curves_figure(history, size_in, 100, ink="#FFFFFF").axes
    assert losses.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.0]
    assert scores.lines[0].get_ydata().tolist() == [0.1, 0.3, 0.2]
    assert [text.get_text() for text in scores.texts] == ["0.300"]
    assert losses.title.get_color() == "#FFFFFF"
    assert not curves_figure([], size_in, 100).axes[1].texts


@pytest.mark.parametrize("title", ["$x_{2$ of a run", "\u5b66\u7fd2", "a\nb\x00", "x" * 100_000])
def test_any_title_is_drawn(tmp_path, title):
    draw_curves([{"epoch": 1, "loss": 1.0}], tmp_path / "curves.png", title)
    Image.open(tmp_path / "curves.png").load()
