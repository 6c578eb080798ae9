"""Sample data: the synthetic sample shipped with the package, and a real one that is downloaded.

The real sample consists of four sections of HER2-positive breast cancer (Andersson et al., Nat Commun 2021; legacy
Spatial Transcriptomics) and single cells of a breast tumour (Wu et al., Nat Genet 2021). Both come from public
repositories at pinned commits, and each file is checked by its SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from napari_cpnn.errors import CpnnError, DownloadError
from napari_cpnn.storage import cache_folder, staged

#: File names in the packaged sample, by role.
SAMPLE_FILES = {
    "slide": "slide.tiff",
    "spots": "spots.h5ad",
    "cells": "cells.h5ad",
    "prototypes": "prototypes.h5ad",
    "model": "model.safetensors",
    "truth": "truth.npz",
}

_SECTIONS = {
    "B4": "data/ST-imgs/B/B4/BT10737_D2_HE.jpg",
    "C2": "data/ST-imgs/C/C2/5714_HE_BT_C2.jpg",
    "C3": "data/ST-imgs/C/C3/5714_HE_BT_D1.jpg",
    "C4": "data/ST-imgs/C/C4/5714_HE_BT_D2.jpg",
}
_CELLS = "spacedeconv/single_cell_data_2.RData"

#: Names of the sections in the real sample.
HER2ST_SECTIONS = tuple(_SECTIONS)


@dataclass(frozen=True)
class _Source:
    """A public repository at a fixed commit, and the folder its files are saved in."""

    folder: str
    base: str
    sha256: dict[str, str]


_HER2ST = _Source(
    "her2st",
    "https://raw.githubusercontent.com/almaan/her2st/85df7411b987a7dec3feff9718b869a7a82091ec/",
    {
        "data/ST-cnts/B4.tsv.gz": "e38231c2a38c9bc7e6d550eec0e527c1869ee0e525fc913e708d1323c34f5ebb",
        "data/ST-cnts/C2.tsv.gz": "c1c59ea6cffae36b9ecb561b8e2a97e3aa5f4085f748e991a0e330ed9d09773d",
        "data/ST-cnts/C3.tsv.gz": "e00c55a3eb9caac5d9c71b8906aae8be8b38f93e23938f4a0ebee17683ef6a2a",
        "data/ST-cnts/C4.tsv.gz": "33201f76d41d7131dc600a0f87d9a70383af3503e81698b4d11e6f2e8d73e9da",
        "data/ST-imgs/B/B4/BT10737_D2_HE.jpg": "3cb165614ce2a13426381e450220dccac980cc9bda6a90fb041c28ca0e2c753d",
        "data/ST-imgs/C/C2/5714_HE_BT_C2.jpg": "26e2f73ae840cdd46c5bba405aae181f13a56a376b9848dff23f7a9c5de7f19e",
        "data/ST-imgs/C/C3/5714_HE_BT_D1.jpg": "0005a92674014d473040a28f0afca89ce5fa5c44019b479b638ceb3272ceb568",
        "data/ST-imgs/C/C4/5714_HE_BT_D2.jpg": "f40607eb1d5f0d125decd71c48b0c5d29cf6776ad92297fd185631208c82d6f2",
        "data/ST-spotfiles/B4_selection.tsv": "192b46f3ca414c85753a01a4fb5760a697ca6c0a1aadb949c4687cc6efa9faa0",
        "data/ST-spotfiles/C2_selection.tsv": "235b5f4306b3b57c628ffc82c98c7109602474fbcc79a917b9c50517f99b6b1c",
        "data/ST-spotfiles/C3_selection.tsv": "7fd76c13370b7804ac3bb377b846d22485cf9223f9dd8dfc25be06e5aaf65755",
        "data/ST-spotfiles/C4_selection.tsv": "47e79f3b9dbfa3a8c18af9e948ba7ba4bf0a75ea1b4c292bc714ced7d0917d4c",
    },
)
# The package keeps this file in its own data/; here it is placed where the project expects its data folder.
_WU2021 = _Source(
    "scref-human-breast-wu2021",
    "https://raw.githubusercontent.com/omnideconv/spacedeconv/3c3317a5fd861ed4d42bb096f58a5634b0a16899/",
    {_CELLS: "5f719b65edd292429ff69aa1a648252508298069002337c785e9688f8af150fa"},
)
_REMOTE_NAMES = {_CELLS: "data/single_cell_data_2.RData"}


def sample_folder() -> Path:
    """Return the folder of the packaged sample, which holds the files of ``SAMPLE_FILES``.

    Raises
    ------
    CpnnError
        If this installation does not include the sample.

    Examples
    --------
    >>> sorted(path.name for path in nc.sample_folder().glob("*.h5ad"))
    ['cells.h5ad', 'prototypes.h5ad', 'spots.h5ad']
    """
    here = Path(__file__).resolve()
    for folder in (here.parent / "sample_data", here.parents[2] / "sample_data"):
        if (folder / SAMPLE_FILES["slide"]).is_file():
            return folder
    raise CpnnError(
        f"This installation in {here.parent} has no sample data; install napari-cpnn from its wheel, or run "
        "scripts/make_sample_data.py in a checkout."
    )


def fetch_her2st(
    folder: str | Path | None = None,
    mirror: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Download the real sample (about 30 MB), keeping files that are already present and intact.

    Parameters
    ----------
    folder
        Destination; by default ``samples`` in :func:`cache_folder`.
    mirror
        A local folder with the same files, used instead of the network; by default ``$NAPARI_CPNN_MIRROR``.
    progress
        Called before each file with its name, its index (from 0) and the number of files.

    Returns
    -------
    Path
        The destination folder, to be passed to :func:`her2st_section` and :func:`her2st_cells`.

    Raises
    ------
    DownloadError
        If a file cannot be downloaded or arrives damaged. Files fetched earlier are kept.

    Examples
    --------
    >>> data = nc.fetch_her2st("samples")  # doctest: +SKIP
    >>> nc.fetch_her2st("samples", mirror="a folder without it")
    Traceback (most recent call last):
        ...
    napari_cpnn.errors.DownloadError: data/ST-cnts/B4.tsv.gz could not be fetched from a folder without it ...
    """
    target = Path(folder) if folder is not None else cache_folder() / "samples"
    mirror = mirror or os.environ.get("NAPARI_CPNN_MIRROR") or None
    files = [(source, name) for source in (_HER2ST, _WU2021) for name in source.sha256]
    for number, (source, name) in enumerate(files):
        if progress is not None:
            progress(name, number, len(files))
        _fetch(source, name, target / source.folder / name, None if mirror is None else Path(mirror))
    return target


def her2st_section(folder: str | Path, section: str) -> tuple[Path, Path, Path]:
    """Return the paths of the slide, counts and spot table of a section (``B4``, ``C2``, ``C3`` or ``C4``)."""
    if section not in _SECTIONS:
        raise CpnnError(f"The real sample has no section {section!r}; choose one of {', '.join(HER2ST_SECTIONS)}.")
    root = Path(folder) / _HER2ST.folder
    paths = (
        root / _SECTIONS[section],
        root / f"data/ST-cnts/{section}.tsv.gz",
        root / f"data/ST-spotfiles/{section}_selection.tsv",
    )
    for path in paths:
        _there(path)
    return paths


def her2st_cells(folder: str | Path) -> Path:
    """Return the path of the single cells of the real sample, for use with ``read_cells``."""
    return _there(Path(folder) / _WU2021.folder / _CELLS)


def _there(path: Path) -> Path:
    if not path.is_file():
        raise CpnnError(f"{path} is missing; run `napari-cpnn fetch her2st`.")
    return path


def _fetch(source: _Source, name: str, target: Path, mirror: Path | None) -> None:
    """Fetch one file through a temporary name in the same folder, so that an interruption leaves no partial file."""
    if target.is_file() and _sha256(target) == source.sha256[name]:
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if mirror is not None:
            _copy(mirror / source.folder / name, target, source.sha256[name])
        else:
            _download(source.base + _REMOTE_NAMES.get(name, name), target, source.sha256[name])
    except OSError as exc:  # includes every error of requests
        raise DownloadError(
            f"{name} could not be fetched from {mirror or source.base} ({type(exc).__name__}); check the "
            "network and the disk and try again, or give a folder with the files as mirror."
        ) from exc


def _copy(origin: Path, target: Path, sha256: str) -> None:
    with staged(target) as temporary:
        shutil.copyfile(origin, temporary)
        if _sha256(temporary) != sha256:
            raise DownloadError(f"{origin} is damaged: its SHA-256 does not match; replace it.")


def _download(url: str, target: Path, sha256: str) -> None:
    """Download with pooch, which writes to a temporary name, verifies the hash and renames."""
    import pooch

    try:
        pooch.retrieve(url, f"sha256:{sha256}", fname=target.name, path=target.parent)
    except ValueError as exc:  # pooch raises ValueError on a hash mismatch
        raise DownloadError(f"{url} arrived damaged: its SHA-256 does not match; try again.") from exc


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
