"""The picture of a run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_cpnn.training.curves import draw_curves


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
    blue = (np.abs(pixels.astype(int) - (0, 0x72, 0xB2)) < 8).all(axis=1).sum()
    assert (blue > 100) == held_out
