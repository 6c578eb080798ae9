"""Folds of a cross-validation: samples are split by group, such as patient, never by spot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anndata import AnnData

from napari_cpnn.errors import TrainingError
from napari_cpnn.slides import Slide

Groups = str | Sequence[str] | Mapping[str, str]


@dataclass(frozen=True)
class Fold:
    """Split of samples into one tested group and training samples.

    Attributes
    ----------
    name
        Name of the tested group.
    test, train
        Indices of the samples. The last training sample is the last one of the group before this one, cyclically: by
        default, :func:`~napari_cpnn.train` holds it out to choose the number of epochs.
    """

    name: str
    test: tuple[int, ...]
    train: tuple[int, ...]


def make_folds(samples: Sequence[tuple[Slide, AnnData]], groups: Groups = "patient") -> list[Fold]:
    """Create one fold per group of samples.

    Parameters
    ----------
    groups
        Grouping of samples, such as sections of a patient: a column of the spots' ``obs`` (or an entry of their
        ``uns``) with one value per sample; ``"section"``, each sample separately; one name per sample; or a mapping of
        slide names to groups.

    Raises
    ------
    TrainingError
        If groups are not found, or there is a single one.
    """
    if not samples:
        raise TrainingError("There is nothing to cross-validate: give slides with their spots.")
    names = groups_of(samples, groups)
    order = list(dict.fromkeys(names))
    if len(order) < 2:
        raise TrainingError(
            f"All {len(samples)} samples belong to the group {order[0]!r}, so that nothing is left to train on when "
            "it is tested; give samples of another group, or take every section by itself (groups='section')."
        )
    members = {name: [i for i, n in enumerate(names) if n == name] for name in order}
    folds = []
    for i, name in enumerate(order):
        others = order[i + 1 :] + order[:i]
        folds.append(Fold(name, tuple(members[name]), tuple(j for other in others for j in members[other])))
    return folds


def sample_labels(samples: Sequence[tuple[Slide, AnnData]]) -> list[str]:
    """Names of the slides, numbered if not unique."""
    return distinct([slide.name for slide, _ in samples])


def distinct(names: Sequence[str]) -> list[str]:
    """Make names unique by appending ``-2`` to the second occurrence, and so on."""
    result: list[str] = []
    for name in names:
        unique, number = name, 1
        while unique in result:
            number += 1
            unique = f"{name}-{number}"
        result.append(unique)
    return result


def folder_names(names: Sequence[str]) -> list[str]:
    """Convert names to folder names: only letters, digits, dots and dashes; unique regardless of case."""
    safe = [re.sub(r"[^\w-]+", "_", name).strip("_") or "group" for name in names]
    lower = distinct([name.lower() for name in safe])
    return [name + unique[len(name) :] for name, unique in zip(safe, lower, strict=True)]


def groups_of(samples: Sequence[tuple[Slide, AnnData]], groups: Groups) -> list[str]:
    """Group of each sample; ``groups`` as for :func:`make_folds`."""
    if isinstance(groups, Mapping):
        return [_group_of_slide(slide.name, groups) for slide, _ in samples]
    if not isinstance(groups, str):
        if len(groups) != len(samples):
            raise TrainingError(f"There are {len(groups)} groups for {len(samples)} samples; give one per sample.")
        return [str(group) for group in groups]
    if groups == "section":
        return sample_labels(samples)
    return [_annotation(slide, spots, groups) for slide, spots in samples]


def _group_of_slide(name: str, groups: Mapping[str, str]) -> str:
    for key in (name, name.rsplit(".", 1)[0]):
        if key in groups:
            return str(groups[key])
    raise TrainingError(f"No group is given for the slide {name}; there are groups for {', '.join(groups)}.")


def _annotation(slide: Slide, spots: AnnData, column: str) -> str:
    if column in spots.obs:
        values = sorted({str(value) for value in spots.obs[column].dropna()})
        if len(values) != 1:
            found = ", ".join(values[:3]) if values else "no value"
            raise TrainingError(
                f"The spots of {slide.name} must have one {column!r} in obs, and there is {found}; "
                "split the table, or give the groups as a list with one name per sample."
            )
        return values[0]
    if isinstance(spots.uns.get(column), str | int):
        return str(spots.uns[column])
    raise TrainingError(
        f"The spots of {slide.name} have no {column!r} in obs; give the groups as a list with one name per sample, or "
        "take every section by itself (groups='section')."
    )
