"""``napari-cpnn open``, in a process of its own as users start it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
from PIL import Image
from tests.ui.conftest import tissue_image, write_slide


def open_slide_in_napari(*arguments, home):
    env = os.environ | {"NAPARI_CONFIG": str(home / "napari.yaml"), "HOME": str(home)}
    command = [sys.executable, "-m", "napari_cpnn.cli", "open", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)


def test_screenshot_shows_the_map(tmp_path, model_path):
    slide = write_slide(tmp_path / "section.tif", tissue_image(), mpp=None)
    shot = tmp_path / "out" / "shot.png"
    result = open_slide_in_napari(
        slide, "--model", model_path, "--mpp", "0.5", "--screenshot", shot, "--gene", "erbb2", home=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "not kept" not in result.stderr
    assert list((tmp_path / "cache" / "maps").iterdir())  # the map is on disk when the program has ended
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert picture.shape[1] > 1000
    red, green, blue = np.moveaxis(picture, -1, 0)
    greenish = (green > red + 15) & (green > blue + 15)  # viridis over pink; the slide and napari have no green
    assert greenish.sum() > 500


def test_unknown_name_ends_with_one_sentence(tmp_path, model_path, slide_path):
    shot = tmp_path / "shot.png"
    result = open_slide_in_napari(
        slide_path, "--model", model_path, "--screenshot", shot, "--cell-type", "Martian", home=tmp_path
    )
    assert result.returncode == 2
    assert "Martian" in result.stderr.strip().splitlines()[-1]
    assert not shot.exists()
