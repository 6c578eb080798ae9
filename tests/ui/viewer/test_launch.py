"""``napari-cpnn open``, in a process of its own as users start it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tests.ui.conftest import tissue_image, write_slide

from napari_cpnn.cli import main


def open_slide_in_napari(*arguments, home, command="open", **more):
    env = os.environ | {"NAPARI_CONFIG": str(home / "napari.yaml"), "HOME": str(home)} | more
    env = {name: value for name, value in env.items() if value is not None}
    command = [sys.executable, "-m", "napari_cpnn.cli", command, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)


@pytest.mark.slow  # the test of the legend makes a screenshot, too
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


@pytest.mark.parametrize(
    ("option", "name"), [pytest.param("--cell-type", "Martian", marks=pytest.mark.slow), ("--signature", "Hypoxia")]
)
def test_what_the_model_does_not_have_ends_with_one_sentence(
    make_napari_viewer, capsys, tmp_path, model_path, slide_path, option, name
):
    """In this process: to start one takes most of the time, and the tests of the screenshots do."""
    shot = tmp_path / "shot.png"
    assert main(["open", *map(str, (slide_path, "--model", model_path, "--screenshot", shot, option, name))]) == 2
    assert name in capsys.readouterr().err.strip().splitlines()[-1]
    assert not shot.exists()


def test_a_screenshot_of_a_slide_without_pixel_size_does_not_wait_for_ever(tmp_path, model_path):
    slide = write_slide(tmp_path / "bare.tif", tissue_image(), mpp=None)
    shot = tmp_path / "shot.png"
    result = open_slide_in_napari(slide, "--model", model_path, "--screenshot", shot, home=tmp_path)
    assert result.returncode == 2
    assert "bare.tif has no pixel size" in result.stderr.strip().splitlines()[-1]
    assert not shot.exists()


NO_DISPLAY = {"DISPLAY": None, "WAYLAND_DISPLAY": None, "QT_QPA_PLATFORM": None}

linux = pytest.mark.skipif(sys.platform != "linux", reason="the display of other systems is always there")


@linux
@pytest.mark.parametrize(
    ("command", "screenshot"),
    [
        ("open", True),
        pytest.param("open", False, marks=pytest.mark.slow),
        pytest.param("demo", False, marks=pytest.mark.slow),
        ("demo", True),
    ],
)
def test_without_a_display_there_is_a_sentence(tmp_path, command, screenshot):
    slide = [write_slide(tmp_path / "a section.tif", tissue_image())] if command == "open" else []
    shot = ["--screenshot", tmp_path / "shot.png"] if screenshot else []
    result = open_slide_in_napari(*slide, *shot, home=tmp_path, command=command, **NO_DISPLAY)
    assert result.returncode == 2, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"napari-cpnn: There is no display: run 'xvfb-run -a napari-cpnn {command} ")
    assert ("a section.tif' --screenshot" in last) == (command == "open")


@linux
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"DISPLAY": ":7654"}, "The display :7654 cannot be used"),
        pytest.param(
            {"WAYLAND_DISPLAY": "wayland-7654"}, "The display wayland-7654 cannot be used", marks=pytest.mark.slow
        ),
        pytest.param({"QT_QPA_PLATFORM": "nonsense"}, "Qt's platform nonsense cannot be used", marks=pytest.mark.slow),
    ],
)
def test_a_display_that_does_not_answer_is_a_sentence(slide_path, tmp_path, environment, reason):
    result = open_slide_in_napari(slide_path, home=tmp_path, **{**NO_DISPLAY, **environment})
    assert result.returncode == 2, result.stderr
    assert f"napari-cpnn: {reason}" in result.stderr.strip().splitlines()[-1]


def test_a_name_that_is_no_picture_is_refused_at_once(slide_path, tmp_path):
    for name, reason in (("shot.txt", "not the name of a picture"), (f"{'x' * 300}.png", "File name too long")):
        result = open_slide_in_napari(slide_path, "--screenshot", tmp_path / name, home=tmp_path)
        assert result.returncode == 2
        assert reason in result.stderr.strip().splitlines()[-1]


NAMES_ON_CANVAS = """
import sys
from pathlib import Path
from napari_cpnn.settings import MappingSettings
from napari_cpnn.ui.viewer import launch
from napari_cpnn.painting import PALE
from napari_cpnn.ui.explore import legend
legend.STEP_MS = 60_000  # as on a slow computer, where no name is written in time
wait, early = launch.FirstFrame.wait, []

def waited(frame):
    early.append([name for name in HEAVY if name in sys.modules])
    wait(frame)
    early.append(frame.is_drawn)

HEAVY = ("torch", "matplotlib.figure", "scipy.signal", "lightning", "anndata", "napari_cpnn.ui.regions.dock")
launch.FirstFrame.wait = waited
slide, model, shot = sys.argv[1:]
viewer, dock = launch.start_viewer(slide, model_path=model, settings=MappingSettings(device="cpu", cache=False))
launch.wait_until_mapped(viewer, dock)
assert early == [[], True], early  # the window is drawn before anything is loaded for its model
overlays, rows = viewer.canvas.overlays, dock.controller.legend_rows()
ours = [overlays[name] for name in overlays if name.startswith("napari_cpnn_") and overlays[name].visible]
written = [overlay.text for overlay in ours if overlay.color[3] > 0]  # texts that warm up are clear
assert written == [*(row.name for row in rows), PALE], (written, rows)
launch.save_screenshot(viewer, Path(shot))
print(*[row.color for row in rows])
dock.end(viewer_lives=False)
viewer.close()
"""


@pytest.mark.parametrize("scale", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_a_screenshot_has_every_name_of_the_legend(slide_path, model_path, tmp_path, scale):
    env = os.environ | {"NAPARI_CONFIG": str(tmp_path / "napari.yaml"), "QT_SCALE_FACTOR": scale}
    command = [sys.executable, "-c", NAMES_ON_CANVAS, *map(str, (slide_path, model_path, tmp_path / "shot.png"))]
    result = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    colors = [tuple(bytes.fromhex(color[1:])) for color in result.stdout.splitlines()[-1].split()]
    assert colors
    picture = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))
    canvas = picture[: picture.shape[0] // 2, picture.shape[1] // 5 : picture.shape[1] * 3 // 5]
    for color in colors:  # each name stands on its colour, which the map itself only has mixed with the tissue
        assert (canvas == color).all(axis=-1).sum() > 100, color


SIGNATURE = """
import sys
from napari_cpnn import cli
from napari_cpnn.ui.viewer import launch
save = launch.save_screenshot

def seen(viewer, path):
    overlays = viewer.canvas.overlays
    ours = [overlays[name] for name in overlays if name.startswith("napari_cpnn_") and overlays[name].visible]
    print([overlay.text for overlay in ours if overlay.color[3] > 0 and overlay.position == "top_left"])
    print([layer.name for layer in viewer.layers if layer.visible])
    save(viewer, path)

launch.save_screenshot = seen
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow  # test_signatures shows them in the dock
def test_open_shows_a_signature(slide_path, model_path, tmp_path):
    env = os.environ | {"NAPARI_CONFIG": str(tmp_path / "napari.yaml"), "HOME": str(tmp_path)}
    shot = tmp_path / "shot.png"
    arguments = ["open", slide_path, "--model", model_path, "--signature", "HER2, EPCAM", "--screenshot", shot]
    command = [sys.executable, "-c", SIGNATURE, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    texts, layers = result.stdout.splitlines()[:2]
    assert texts == "['HER2, EPCAM · mean z-score']"
    assert layers == "['section', 'Signature: HER2, EPCAM']"
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    red, green, blue = np.moveaxis(picture, -1, 0)
    assert ((green > red + 15) & (green > blue + 15)).sum() > 500  # viridis over pink
