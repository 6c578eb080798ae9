"""Command ``doctor``: what is installed, what the computer can do, whether a model predicts; for bug reports."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from napari_cpnn._version import __version__
from napari_cpnn.cli.console import Facts
from napari_cpnn.cli.options import AddCommand
from napari_cpnn.errors import CpnnError
from napari_cpnn.texts import duration
from napari_cpnn.untrusted import reason_of

#: Packages without which nothing works, by the name under which they are installed.
_NEEDED = ("torch", "numpy", "dask", "zarr", "anndata", "scikit-image", "openslide-python", "openslide-bin", "tifffile")

#: Packages that add something, with what they add and how to get it.
_OPTIONAL = {
    "napari": ("the window", "all"),
    "openvino": ("faster maps on a processor", "fast"),
    "squidpy": ("Moran's I, neighbourhoods", "squidpy"),
    "spatialdata": ("SpatialData", "spatialdata"),
    "pyarrow": ("Parquet, positions of Visium HD", "parquet"),
    "rdata": ("tables of R", "rdata"),
    "slideio": ("slides of Olympus (VSI), CZI with JPEG XR, ZVI", "formats"),
    "pyisyntax": ("slides of Philips (iSyntax)", "formats"),
    "openpyxl": ("Excel manifests", "excel"),
    "distributed": ("cohorts on several processes or computers", "cluster"),
    "transformers": ("foundation encoders", "foundation"),
    "timm": ("foundation encoders", "foundation"),
}

_CODECS = {
    "JPEG": "JPEG8",
    "JPEG 2000": "JPEG2K",
    "JPEG XR": "JPEGXR",
    "LZW": "LZW",
    "Zstandard": "ZSTD",
    "WebP": "WEBP",
}


def add_doctor_command(command: AddCommand) -> None:
    """Register the command ``doctor``."""
    sub = command("doctor", _doctor, "say what is installed, what this computer can do, and whether a model predicts")
    sub.add_argument("--speed", action="store_true", help="measure how fast this computer reads and predicts (20 s)")
    sub.add_argument("--paths", action="store_true", help="name folders of this computer, too")


class NotWellError(CpnnError):
    """A part of the installation fails; ``facts`` are those of all parts."""

    def __init__(self, message: str, facts: Facts) -> None:
        super().__init__(message)
        self.facts = facts


def _doctor(args: argparse.Namespace) -> Facts:
    parts: dict[str, Callable[[], Mapping[str, object]]] = {
        "Program": lambda: _program(with_paths=args.paths),
        "Packages": _packages,
        "Computer": _computer,
        "Window": _window,
        "Slides": _slides,
        "Cache": lambda: _cache(with_paths=args.paths),
        "Self-test": _self_test,
    }
    if args.speed:
        parts["Speed"] = _speed
    report: dict[str, dict[str, str]] = {}
    for title, part in parts.items():
        try:
            report[title] = {name: str(value) for name, value in part().items()}
        except Exception as error:  # noqa: BLE001 -- one part that fails is a finding, and the others count
            report[title] = {"fails": reason_of(error)}
        print(f"{title}")
        for name, value in report[title].items():
            print(f"  {name:<22} {value}")
    failed = [title for title, part in report.items() if "fails" in part]
    if failed:
        raise NotWellError(f"Not all is well: {', '.join(failed)}; see above.", dict(report))
    return dict(report)


def _program(*, with_paths: bool) -> dict[str, str]:
    found = {
        "napari-cpnn": __version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    return {**found, "interpreter": sys.executable} if with_paths else found


def _packages() -> dict[str, str]:
    found = {name: _version(name) or "missing: reinstall napari-cpnn" for name in _NEEDED}
    for name, (what, extra) in _OPTIONAL.items():
        found[name] = _version(name) or f'not installed ({what}: pip install "napari-cpnn[{extra}]")'
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _computer() -> dict[str, str]:
    import psutil
    import torch

    from napari_cpnn.models import choose_device, choose_engine, choose_precision

    device = choose_device()
    memory = psutil.virtual_memory()
    fast = {
        "AVX2": torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"),
        "AVX-512": torch.backends.cpu.get_cpu_capability() == "AVX512",
        "bfloat16": torch.cpu._is_avx512_bf16_supported(),  # noqa: SLF001 -- there is no public way
        "AMX": torch.cpu._is_amx_tile_supported(),  # noqa: SLF001
    }
    able = ", ".join(name for name, is_there in fast.items() if is_there) or "plain"
    found = {
        "processor": f"{os.cpu_count()} cores; {able}",
        "memory": f"{memory.total / 2**30:.0f} GB, {memory.available / 2**30:.0f} GB free",
        "maps are computed on": f"{device} in {choose_precision(device)} by {choose_engine(device)}",
    }
    if torch.cuda.is_available():
        found["graphics cards"] = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return found


def _window() -> dict[str, str]:
    if find_spec("napari") is None:
        return {"napari": 'not installed; pip install "napari-cpnn[all]"'}
    from qtpy import API_NAME, QT_VERSION

    from napari_cpnn.ui.viewer import require_display

    found = {"Qt": f"{API_NAME} {QT_VERSION}"}
    try:
        require_display("napari-cpnn demo --screenshot demo.png")
    except CpnnError as error:
        return {**found, "display": str(error)}
    return {**found, "display": "a window can be opened"}


def _slides() -> dict[str, str]:
    import imagecodecs
    import openslide

    there = [name for name, codec in _CODECS.items() if getattr(imagecodecs, codec).available]
    return {"OpenSlide": openslide.__library_version__, "codecs": ", ".join(there)}


def _cache(*, with_paths: bool) -> dict[str, str]:
    from napari_cpnn.storage import cache_folder

    folder = cache_folder()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    above = next(path for path in (folder, *folder.parents) if path.is_dir())
    found = {
        "kept": f"{size / 2**30:.2f} GB",
        "free": f"{shutil.disk_usage(above).free / 2**30:.0f} GB",
        "can be written": "yes" if os.access(above, os.W_OK) else "no: maps are not kept; set NAPARI_CPNN_CACHE",
    }
    return {**found, "folder": str(folder)} if with_paths else found


def _self_test() -> dict[str, str]:
    """Predict patches of the packaged sample as maps do, and compare with torch in float32 on the processor."""
    import numpy as np

    from napari_cpnn.models import load_model
    from napari_cpnn.prediction import Predictor
    from napari_cpnn.samples import sample_folder
    from napari_cpnn.slides import open_slide, read_patches
    from napari_cpnn.spots import read_spots

    folder, start = sample_folder(), time.perf_counter()
    model = load_model(folder / "model.safetensors")
    slide, spots = open_slide(folder / "slide.tiff"), read_spots(folder / "spots.h5ad")
    chosen = np.linspace(0, spots.n_obs - 1, 16).astype(int)
    mpp = slide.require_mappable()
    centers = spots.obsm["spatial"][chosen][:, ::-1] * np.asarray(mpp)
    predictor = Predictor(model)
    found = predictor.predict(read_patches(slide, centers, model.patch)).weights
    exact = (
        Predictor(model, "cpu", "float32", engine="torch").predict(read_patches(slide, centers, model.patch)).weights
    )
    off = float(np.abs(found - exact).max())
    if not off < 0.02:
        raise CpnnError(f"Shares differ by {off:.3f} from float32 on the processor; report this, please.")
    return {
        "composition": f"of 16 patches as in float32 within {off:.4f} ({predictor.description})",
        "took": f"{time.perf_counter() - start:.1f} s",
    }


def _speed() -> dict[str, str]:
    """Measure reading and the packaged models for a few seconds each, and say what that means for a section."""
    import numpy as np

    from napari_cpnn.models import load_model
    from napari_cpnn.prediction import Predictor
    from napari_cpnn.samples import sample_folder
    from napari_cpnn.slides import open_slide, read_patches

    slide = open_slide(sample_folder() / "slide.tiff")
    height, width = (side * mpp for side, mpp in zip(slide.shape, slide.require_mappable(), strict=False))
    side = np.linspace(0.2, 0.8, 4)
    centers = np.stack(np.meshgrid(side * height, side * width), axis=-1).reshape(-1, 2)
    models: dict[str, str | Path] = {
        "ST-Net (DenseNet-121)": sample_folder() / "model.safetensors",
        "breast-her2st": "breast-her2st",
    }
    found = {}
    for title, name in models.items():
        model = load_model(name)
        images = read_patches(slide, centers, model.patch)
        predictor = Predictor(model)
        rate = _rate(partial(predictor.predict, images), len(images))
        n = (1e4 / model.patch.size_um) ** 2
        found[title] = (
            f"{rate:,.0f} patches/s ({predictor.description}); 1 cm2 of tissue has {n:,.0f}: {duration(n / rate)}"
        )
    patch = load_model(sample_folder() / "model.safetensors").patch
    found["reading"] = (
        f"{_rate(partial(read_patches, slide, centers, patch), len(centers)):,.0f} patches/s of the sample"
    )
    copied = np.ones(2**25, dtype=np.uint8)
    found["memory"] = f"{_rate(copied.copy, 1) * copied.nbytes / 1e9:.1f} GB/s copied"
    return found


def _rate(function: Callable[[], Any], n: int, seconds: float = 2.0) -> float:
    function()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        function()
        done += n
    return done / (time.perf_counter() - start)
