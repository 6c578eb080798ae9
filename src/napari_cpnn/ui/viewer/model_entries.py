"""What the lists of models say about each, from the cards of their files. No Qt here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_cpnn.errors import CheckpointError, CpnnError
from napari_cpnn.samples import her2st_section_of
from napari_cpnn.texts import shown
from napari_cpnn.ui.viewer import recent_models
from napari_cpnn.untrusted import reading

#: File names that say nothing: runs write them, and their folder is the name.
_GENERIC = ("model", "calibrated", "best", "checkpoint")
#: Folders between a section and its runs.
_BETWEEN = ("runs", "cpnn-runs", "models")
_MOST_LETTERS = 60

SYNTHETIC = "SYNTHETIC"
"""What a model of drawn tissue is called wherever it is named."""


@dataclass(frozen=True)
class ModelEntry:
    """Model in a list.

    Attributes
    ----------
    path
        Its file.
    trained, held_out, saved
        Training tissue, score on held-out spots and date of the file; empty if unknown, or installed with the package.
    purpose
        What it is for, if not for any slide of its tissue.
    synthetic
        Whether it was trained on drawn tissue.
    frozen
        Whether its image network is an encoder that is not trained: no run can start from it.
    of_cells
        Whether it predicts single cells, not patches.
    problem
        Why the file cannot be used; one sentence.
    provenance
        For :meth:`knows`.
    """

    path: Path
    trained: str = ""
    held_out: str = ""
    saved: str = ""
    purpose: str = ""
    synthetic: bool = False
    frozen: bool = False
    of_cells: bool = False
    problem: str = ""
    provenance: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def knows(self, slide: Path | None) -> bool:
        """Whether a slide, by its name, was in the training: scores do not hold there."""
        from napari_cpnn.models import has_seen

        return slide is not None and has_seen(self.provenance, slide.name)

    def details(self) -> str:
        """Describe the model in one line: ``breast cancer, 2 patients, 4 slides · held-out PCC 0.18 · 2026-11-29``."""
        if self.problem:
            return self.problem
        return " · ".join(part for part in (self.trained, self.held_out, self.saved) if part)

    def why_no_map(self) -> str:
        """Say why it cannot map patches; empty if it can."""
        return "It predicts single cells: choose it in the Cells dock." if self.of_cells else ""

    def why_no_cells(self) -> str:
        """Say why it cannot predict single cells; empty if it can."""
        return "" if self.of_cells else "It maps patches, not single cells: choose it in the Explore dock."

    def warning(self, slide: Path | None) -> str:
        """Say why its scores do not hold on a slide; empty if they may."""
        if self.knows(slide):
            return "It was trained on this slide: its scores do not hold here."
        section = her2st_section_of(slide)
        made_for_it = section is not None and f" {section}," in f" {self.purpose},"
        return f"For {self.purpose}." if self.purpose and not made_for_it else ""


_KNOWN: dict[Path, tuple[tuple[int, int], ModelEntry]] = {}


def known_entry(path: Path) -> ModelEntry | None:
    """Return what was read about a file, unless it has changed since."""
    stamp, entry = _KNOWN.get(path, (None, None))
    return entry if stamp is not None and stamp == _stamp(path) else None


def read_entry(path: Path) -> ModelEntry:
    """Read the card of a model, once per version of its file; a file that cannot be used says why."""
    if (known := known_entry(path)) is not None:
        return known
    stamp = _stamp(path)
    try:
        with reading(path, CheckpointError, "get the file again"):
            entry = _entry(path)
    except CpnnError as error:
        entry = ModelEntry(path, problem=str(error))
    if stamp is not None:
        _KNOWN[path] = (stamp, entry)
    return entry


def offered(slide: Path | None, entries: Iterable[Path]) -> list[Path]:
    """Return the models to offer for a slide, in their order: a synthetic one only, and first, for the sample's own.

    Parameters
    ----------
    slide
        File of the slide; None while there is none.
    entries
        Files of models, the most likely first.
    """
    from napari_cpnn.models import ZOO

    sample = recent_models.sample_model()
    of_sample, section = recent_models.belongs_to_sample(slide), her2st_section_of(slide)
    made_for = {model.path: model.sample for model in ZOO.values() if model.sample}
    synthetic, mine, others = [], [], []
    for path in entries:
        if _is_synthetic(path, sample):
            synthetic.append(path)
        elif section is not None and made_for.get(path) == section:
            mine.append(path)
        else:
            others.append(path)
    if of_sample:
        return [*synthetic, *others]
    return [*mine, *others, *(synthetic if slide is None else [])]


def names_of(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the shortest names that tell models apart: a run's by its folder, and then by the one around it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_cpnn.ui.viewer import names_of
    >>> names_of([Path("A/cpnn-runs/run-1/model.safetensors"), Path("B/cpnn-runs/run-1/model.safetensors")]).values()
    dict_values(['run-1 (A)', 'run-1 (B)'])
    >>> names_of([Path("runs/her2st/model.safetensors"), Path("breast.safetensors")]).values()
    dict_values(['her2st', 'breast'])
    """
    sample = recent_models.sample_model()
    parts = {path: ["sample model"] if path == sample else _parts(path) for path in paths}
    depth = dict.fromkeys(paths, 1)
    for _ in range(8):
        names = {path: tuple(parts[path][: depth[path]]) for path in paths}
        twice = Counter(names.values())
        deeper = [path for path in paths if twice[names[path]] > 1 and depth[path] < len(parts[path])]
        if not deeper:
            break
        for path in deeper:
            depth[path] += 1
    return {path: _joined(name, synthetic=_is_synthetic(path, sample)) for path, name in names.items()} if paths else {}


def _joined(name: tuple[str, ...], *, synthetic: bool) -> str:
    text = shown(name[0] if len(name) == 1 else f"{name[0]} ({'/'.join(reversed(name[1:]))})", _MOST_LETTERS)
    return f"{SYNTHETIC} · {text}" if synthetic else text


def _parts(path: Path) -> list[str]:
    """The name of a model and of the folders that it is in, from the inside; a run's model has the name of its run."""
    folders = [name for name in reversed(path.parent.parts) if name not in (*_BETWEEN, path.anchor)]
    stem = path.stem
    if stem in _GENERIC and folders:
        return [folders[0] if stem == "model" else f"{folders[0]} {stem}", *folders[1:]]
    return [stem, *folders]


def _is_synthetic(path: Path, sample: Path | None) -> bool:
    if path == sample:
        return True
    entry = known_entry(path)
    return entry is not None and entry.synthetic


def _entry(path: Path) -> ModelEntry:
    from napari_cpnn.models import ZOO, is_synthetic, read_card, trained_on

    card = read_card(path)
    provenance = card["provenance"]
    held_out = provenance.get("metrics", {}).get("held_out", {})
    score = f"held-out PCC {held_out['pcc_mean']:.2f}" if "pcc_mean" in held_out else "no held-out score"
    packaged = path == recent_models.sample_model() or any(model.path == path for model in ZOO.values())
    tissue = next((model.tissue for model in ZOO.values() if model.path == path), "")
    trained = trained_on(provenance)
    if tissue and not provenance.get("settings", {}).get("tissue"):
        trained = ", ".join(part for part in (tissue, trained) if part)
    return ModelEntry(
        path,
        trained=trained or "training unknown",
        held_out=score,
        saved="" if packaged else time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime)),
        purpose=provenance.get("purpose", ""),
        synthetic=is_synthetic(provenance),
        frozen=card["model"].get("backbone") in ("frozen", "triplex"),
        of_cells=card["model"].get("sees") == "nucleus",
        provenance={"training_data": provenance.get("training_data", [])},
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
