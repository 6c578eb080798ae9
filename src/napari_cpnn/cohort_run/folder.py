"""The folder of a run over a cohort: where things are, who works in it, and how far it is.

::

    run.json, cohort.csv          model, settings and slides of the run
    slides/NAME/slide.json        written last, so that a slide that has one is complete
    slides/NAME/map.zarr, slide.csv, thumbnail.jpg, dominant.jpg
    slides/NAME/small.safetensors its map at low resolution, for the gallery
    slides/NAME/failed.json       why a slide has none
    slides/NAME/.work             the map while it is computed; a run that is killed goes on from there
    report.html, *.csv, ...       of all slides
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from napari_cpnn.cohort import Cohort
from napari_cpnn.errors import CohortError
from napari_cpnn.storage import remove, whole_file
from napari_cpnn.texts import file_name, json_value, shown
from napari_cpnn.untrusted import read_json, to_path

RUN_FILE, TABLE_FILE, PROGRESS_FILE = "run.json", "cohort.csv", "progress.json"
_LOCK_FILE, _HOLDER_FILE = ".running", "holder.json"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole; numbers that are not finite become null."""
    text = json.dumps(json_value(content), indent=1, ensure_ascii=False, allow_nan=False)
    with whole_file(path, CohortError) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


class SlideFolder:
    """Files of one slide in the folder of a run; ``job`` and workers on other computers share it by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.summary, self.failure = path / "slide.json", path / "failed.json"
        self.map, self.table, self.work = path / "map.zarr", path / "slide.csv", path / ".work"
        self.thumbnail, self.dominant = path / "thumbnail.jpg", path / "dominant.jpg"
        self.small = path / "small.safetensors"

    def read(self) -> dict[str, Any] | None:
        """Return the summary of a slide that is complete, else None."""
        found = _read(self.summary)
        parts = () if found is None else (found.get("composition"), found.get("quality"), found.get("file"))
        return found if all(isinstance(part, dict) for part in parts) else None

    def is_done(self, key: str) -> bool:
        """Return whether the slide is complete, with the model, the settings and the file that make up ``key``."""
        found = self.read()
        return found is not None and found.get("key") == key and self.map.is_dir()

    def why_failed(self) -> dict[str, Any] | None:
        return None if self.summary.is_file() else _read(self.failure)


class RunFolder:
    """The folder of a run."""

    def __init__(self, path: str | Path) -> None:
        self.path = to_path(path, CohortError)

    def slide(self, name: str) -> SlideFolder:
        return SlideFolder(self.path / "slides" / file_name(name))

    def read_run(self) -> dict[str, Any]:
        """Return what the run is of; :class:`CohortError` if there is none."""
        if not (self.path / RUN_FILE).is_file():
            raise CohortError(f"{self.path} is no folder of a run over a cohort; it has no {RUN_FILE}.")
        content = read_json(self.path / RUN_FILE, CohortError)
        slides = content.get("slides") if isinstance(content, dict) else None
        named = isinstance(slides, list) and all(isinstance(s, dict) and isinstance(s.get("name"), str) for s in slides)
        if not named:
            raise CohortError(f"{self.path / RUN_FILE} is damaged; start the run again with the same command.")
        return dict(content)

    def begin(self, cohort: Cohort, facts: dict[str, Any], *, overwrite: bool) -> None:
        """Write what the run is of; :class:`CohortError` if the folder holds another run, or something else."""
        if (self.path / RUN_FILE).is_file():
            before = self.read_run()
            if before.get("key") != facts["key"] and not overwrite:
                raise CohortError(
                    f"{self.path} holds a run with another model or other settings ({shown(before.get('model'), 60)}); "
                    "choose another folder, or go over its slides again with --overwrite."
                )
        else:
            with suppress(FileNotFoundError):
                if any(not entry.name.startswith(".") and entry.name != _HOLDER_FILE for entry in self.path.iterdir()):
                    raise CohortError(f"{self.path} is not empty and no run over a cohort; choose another folder.")
        slides = [
            {"name": name, **row} for name, row in zip(cohort.names, cohort.table.to_dict("records"), strict=True)
        ]
        write_json(self.path / RUN_FILE, {**facts, "slides": slides, "groups": list(cohort.groups)})
        from napari_cpnn.storage import write_csv

        write_csv(cohort.table, self.path / TABLE_FILE, CohortError)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder; :class:`CohortError` says who does, if another process holds it."""
        if self.path.exists() and not self.path.is_dir():
            raise CohortError(f"{self.path} is a file; choose a folder for the results.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CohortError(f"The folder {self.path} cannot be made: {error.strerror or error}.") from error
        lock = FileLock(self.path / _LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise CohortError(f"{self.path} is in use{self._holder_text()}; wait for it, or end it.") from None
        except OSError as error:
            raise CohortError(f"The folder {self.path} is not writable: {error.strerror or error}.") from error
        try:
            me = {"host": platform.node(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            write_json(self.path / _HOLDER_FILE, me)
            yield
        finally:
            remove(self.path / _HOLDER_FILE)
            lock.release()

    def holder(self) -> dict[str, Any] | None:
        """Return host, pid and start of the process that works in the folder; None if none does."""
        lock = FileLock(self.path / _LOCK_FILE)
        if not (self.path / _LOCK_FILE).exists():
            return None
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return _read(self.path / _HOLDER_FILE) or {}
        except OSError:
            return None
        lock.release()
        return None

    def _holder_text(self) -> str:
        who = _read(self.path / _HOLDER_FILE) or {}
        words = {key: shown(who.get(key, "?"), 60) for key in ("pid", "host", "since")}
        return f" by process {words['pid']} on {words['host']} since {words['since']}" if who else ""


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path, CohortError)
    except CohortError:
        return None
    return content if isinstance(content, dict) else None


@dataclass(frozen=True)
class CohortStatus:
    """How far a run is.

    Attributes
    ----------
    slides, done
        Numbers of slides of the manifest, and of those that are complete.
    failed
        Sentence by name of a slide that could not be mapped.
    mapping
        Slides whose map has been begun.
    holder
        Host, pid and start of the process that works on it; None if none does.
    seconds_left
        Estimate by the slides of this start so far; NaN if unknown.
    """

    slides: int
    done: int
    failed: dict[str, str]
    mapping: tuple[str, ...]
    holder: dict[str, Any] | None
    seconds_left: float = math.nan

    @property
    def waiting(self) -> int:
        """Slides that are neither complete nor failed."""
        return self.slides - self.done - len(self.failed)


def cohort_status(out: str | Path) -> CohortStatus:
    """Return how far the run in a folder is; it may go on meanwhile.

    Raises
    ------
    CohortError
        If there is no run in the folder.

    Examples
    --------
    >>> from napari_cpnn.cohort_run import cohort_status
    >>> cohort_status("nowhere")
    Traceback (most recent call last):
    ...
    napari_cpnn.errors.CohortError: nowhere is no folder of a run over a cohort; it has no run.json.
    """
    folder = RunFolder(out)
    names = [shown(slide.get("name")) for slide in folder.read_run()["slides"] if isinstance(slide, dict)]
    holder = folder.holder()
    done, failed, mapping = 0, {}, []
    for name in names:
        slide = folder.slide(name)
        if slide.summary.is_file():
            done += 1
        elif why := slide.why_failed():
            failed[name] = shown(why.get("sentence"), 500)
        elif slide.work.is_dir():
            mapping.append(name)
    progress = (_read(folder.path / PROGRESS_FILE) or {}) if holder is not None else {}
    left = progress.get("seconds_left")
    seconds = float(left) if isinstance(left, (int, float)) else math.nan
    return CohortStatus(len(names), done, failed, tuple(mapping), holder, seconds)
