"""Model files that the user has opened, newest first; the list is kept in the cache folder."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from napari_cpnn.errors import CpnnError
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.storage import cache_folder, whole_file
from napari_cpnn.untrusted import read_json, to_path

_N_KEPT = 8


def known_models() -> list[Path]:
    """Return recent models that still exist, then those of the package; those for a sample slide come last."""
    from napari_cpnn.models import ZOO

    packaged = [(model.path, model.sample) for model in ZOO.values() if model.path.is_file()]
    of_samples = [path for path, sample in packaged if sample]
    if (synthetic := sample_model()) is not None:
        of_samples.append(synthetic)
    recent = [path for path in _read() if _is_file(path) and path not in of_samples]
    return [*recent, *(path for path, sample in packaged if not sample and path not in recent), *of_samples]


def sample_model() -> Path | None:
    """Return the model of the packaged sample, if it is installed."""
    try:
        path = sample_folder() / SAMPLE_FILES["model"]
    except CpnnError:
        return None
    return path if path.is_file() else None


def belongs_to_sample(path: Path | None) -> bool:
    """Return whether a slide is the packaged sample, which has a model of its own."""
    sample = sample_model()
    return path is not None and sample is not None and path.parent == sample.parent


def remember(path: Path) -> None:
    """Put a model first in the list; a list that cannot be written is no error."""
    paths = [path.resolve(), *(p for p in _read() if p != path.resolve())][:_N_KEPT]
    with suppress(CpnnError), whole_file(_file()) as temporary:
        temporary.write_text(json.dumps([str(p) for p in paths]), encoding="utf-8")


def _is_file(path: Path) -> bool:
    """Return whether a file exists and may be accessed."""
    try:
        return to_path(path, CpnnError).is_file()
    except CpnnError:
        return False


def _file() -> Path:
    return cache_folder() / "recent_models.json"


def _read() -> list[Path]:
    names = []
    with suppress(CpnnError):  # a list that cannot be read is no error either
        names = read_json(_file(), CpnnError)
    return [Path(name) for name in names if isinstance(name, str)] if isinstance(names, list) else []
