"""A small slide of known tissue, a quick model, and a dock in a real viewer."""

from __future__ import annotations

import functools
import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from tests.ui import once

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.settings import MappingSettings, TrainingSettings

MPP = 0.5
SHAPE = (1536, 2048)
GENES = ("ERBB2", "EPCAM", "COL1A1", "CD3E", "MS4A1")
TYPES = ("Epithelial", "Stroma", "Immune")
#: Quick, deterministic, and nothing is kept between tests.
SETTINGS = MappingSettings(device="cpu", precision="float32", readers=1, cache=False)


def tissue_image() -> np.ndarray:
    """White glass with a textured pink rectangle, ``[256:1280, 256:1792]``."""
    return _tissue_image().copy()


@functools.cache
def _tissue_image() -> np.ndarray:
    rng = np.random.default_rng(0)
    image = np.full((*SHAPE, 3), 245, dtype=np.uint8)
    texture = rng.integers(-25, 25, (1024, 1536, 1))
    image[256:1280, 256:1792] = np.clip(np.array([205, 120, 175]) + texture, 0, 255)
    image[256:1280, 256:1024, 0] -= 60  # two kinds of tissue, so that maps are not flat
    return image


def write_slide(path: Path, image: np.ndarray, mpp: float | None = MPP) -> Path:
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        options = {"tile": (256, 256), "photometric": "rgb"}
        file.write(image, subifds=1, **options, **resolution)
        file.write(image[::2, ::2], subfiletype=1, **options)
    return path


@pytest.fixture(autouse=True, scope="session")
def imported() -> None:
    """What all tests of the docks import is left out of the collections that napari asks for around each viewer."""
    import napari.qt  # noqa: F401 -- what a viewer imports

    import napari_cpnn.ui.explore.dock  # noqa: F401 -- what the dock imports


@pytest.fixture(autouse=True, scope="session")
def computed_once() -> Iterator[None]:
    """What is the same for every viewer is computed for the first."""
    from napari_cpnn.ui.canvas import read_programs_once

    read_programs_once()
    with pytest.MonkeyPatch.context() as patch:
        for step in (
            once.read_plugins_once,
            once.draw_letters_once,
            once.inspect_callbacks_once,
            once.keep_settings_in_memory,
        ):
            step(patch)
        yield


@pytest.fixture(autouse=True)
def own_preferences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with the defaults of our page of napari's preferences, and leaves none to the next."""
    import napari.settings

    from napari_cpnn.palette import colors
    from napari_cpnn.ui.viewer import preferences

    napari.settings._clear_plugin_settings_cache()
    monkeypatch.setattr(napari.settings, "_CFG_PATH", str(tmp_path / "preferences" / "settings.yaml"))
    monkeypatch.setattr(colors, "_chosen", {})
    monkeypatch.setattr(preferences, "_of_session", {})
    yield
    napari.settings._clear_plugin_settings_cache()


@pytest.fixture(autouse=True, scope="module")
def collected() -> None:
    """What is garbage after the tests of a file is collected before those of the next."""
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def only_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What earlier tests left is left out of the collections, too; tests of the collections themselves do without."""
    gc.freeze()
    for name in ("freeze", "unfreeze"):  # a dock would hold its own viewer, too
        monkeypatch.setattr(gc, name, lambda: None)
    if sys.platform != "win32":  # napari collects after each layer that is removed, for the drivers of Windows
        monkeypatch.setattr("napari._vispy.canvas.gc", SimpleNamespace(collect=lambda: 0))


@pytest.fixture(autouse=True)
def no_tour(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tour does not start by itself: it would lie over what is tested."""
    monkeypatch.setattr("napari_cpnn.ui.explore.dock.wants_tour", lambda: False)


@pytest.fixture(scope="session")
def written_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "section.tif", tissue_image())


@pytest.fixture
def slide_path(written_slide: Path, tmp_path: Path) -> Path:
    """A copy for each test, which may change it."""
    return Path(shutil.copyfile(written_slide, tmp_path / "section.tif"))


@pytest.fixture(scope="session")
def model():
    import torch

    from napari_cpnn.models import build_model

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.5, 1.0, (len(TYPES), len(GENES))).astype(np.float32)
    settings = TrainingSettings(backbone="squeezenet", weights="none", n_programs=2, patch=PatchSpec(64, 1.0))
    model = build_model(
        settings, GENES, TYPES, profiles / profiles.sum(axis=1, keepdims=True), np.ones(len(GENES), dtype=np.float32)
    )
    with torch.no_grad():  # untrained weights are nearly flat; maps with contrast are easier to look at
        model.head.composition[-1].weight *= 30
        model.head.log_alpha += 3
    scores = {"slide": "C4", "pcc_mean": 0.15, "scc_mean": 0.12, "n_genes": 5, "per_gene_pcc": {"ERBB2": 0.41}}
    model.provenance |= {"training_data": [{"slide": "C2", "n_spots": 176}], "metrics": {"held_out": scores}}
    return model.eval()


@pytest.fixture(scope="session")
def model_path(model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from napari_cpnn.models import save_model

    path = tmp_path_factory.mktemp("model") / "quick.safetensors"
    save_model(model, path)
    return path


@pytest.fixture
def explore(make_napari_viewer_proxy, qtbot) -> Callable:
    """Opens a viewer with an Explore dock; ``explore(slide_path)`` adds the slide first."""
    from napari_cpnn.ui.explore.dock import Explore
    from napari_cpnn.ui.layers.reader import read_slides

    docks = []

    def open_dock(*paths: Path, show: bool = False):
        viewer = make_napari_viewer_proxy(show=show)
        for path in paths:
            for data, keywords, _ in read_slides(str(path)):
                viewer.add_image(data, **keywords)
        dock = Explore(viewer, SETTINGS)
        viewer.window.add_dock_widget(dock, name="Explore")
        docks.append(dock)
        return dock

    yield open_dock
    for dock in docks:
        dock.shut_down()
    docks.clear()


@pytest.fixture
def beside_explore(explore, monkeypatch) -> Callable:
    """Opens Explore and a dock beside it: ``beside_explore(Regions, slide_path)``.

    What napari would say is in ``dock.told``.
    """
    docks = []

    def open_docks(kind: Callable, *paths: Path):
        other = explore(*paths)
        dock = kind(other.session.viewer)
        dock.told = []
        monkeypatch.setattr("napari_cpnn.ui.frame.dock.warn", dock.told.append)
        other.session.viewer.window.add_dock_widget(dock, name=kind.__name__)
        docks.append(dock)
        return other, dock

    yield open_docks
    for dock in docks:
        dock.shut_down()
        dock.background.close(wait=True)


@pytest.fixture
def wait(qtbot) -> Callable:
    """Lets Qt work until a condition holds; fails after two minutes, since machines may be slow or loaded."""
    return lambda condition: qtbot.waitUntil(condition, timeout=120_000)
