"""Sample data: the synthetic sample shipped with the package, and a real one that is downloaded.

The real sample consists of four sections of HER2-positive breast cancer (Andersson et al., Nat Commun 2021; legacy
Spatial Transcriptomics) and single cells of a breast tumour (Wu et al., Nat Genet 2021). Both come from public
repositories at pinned commits, and each file is checked by its SHA-256. A file has its name only when it is whole: an
interrupted download leaves nothing, and those that were fetched before are kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_cpnn.errors import CpnnError, DownloadError
from napari_cpnn.storage import cache_folder, download, staged
from napari_cpnn.untrusted import to_path

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

#: Terms and citation of the sections, and of the single cells.
HER2ST_TERMS = (
    "her2st: CC BY 4.0 (Zenodo record 4751624); cite Andersson et al., Nat Commun 12, 6012 (2021), "
    "doi.org/10.1038/s41467-021-26271-2"
)
CELLS_TERMS = (
    "single cells: from github.com/omnideconv/spacedeconv, which states no licence of the data; cite Wu et al., "
    "Nat Genet 53, 1334 (2021), doi.org/10.1038/s41588-021-00911-1"
)


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
    sections: Sequence[str] | None = None,
) -> Path:
    """Download the real sample (20 MB), keeping files that are already present and intact.

    The sections are under CC BY 4.0 (Zenodo record 4751624); cite Andersson et al., Nat Commun 12, 6012 (2021).

    Parameters
    ----------
    folder
        Destination; by default ``samples`` in :func:`cache_folder`.
    mirror
        A local folder with the same files, used instead of the network: a data folder with ``her2st`` in it, or a copy
        of the repository itself. By default ``$NAPARI_CPNN_MIRROR`` or ``$NAPARI_CPNN_DATA``.
    progress
        Called before each file with its name, its index (from 0) and the number of files.
    sections
        Fetch only these sections, and no single cells; by default everything.

    Returns
    -------
    Path
        The destination folder, to be passed to :func:`her2st_section` and :func:`her2st_cells`.

    Raises
    ------
    DownloadError
        If a file cannot be downloaded or written, or arrives damaged; or if ``mirror`` holds none of them, even if all
        are there. Files fetched earlier are kept.
    CpnnError
        If there is no such section.

    Examples
    --------
    >>> data = nc.fetch_her2st("samples")  # doctest: +SKIP
    >>> nc.fetch_her2st("samples", mirror="a folder without it")
    Traceback (most recent call last):
        ...
    napari_cpnn.errors.DownloadError: data/ST-cnts/B4.tsv.gz could not be fetched from a folder without it ...
    """
    target, copy = _target(folder), _mirror(mirror)
    files = list(_files(sections))
    for number, (source, name) in enumerate(files):
        if progress is not None:
            progress(name, number, len(files))
        _fetch(source, name, target / source.folder / name, copy)
    if mirror and copy is not None and not any(_found_in(copy, source, name) for source, name in files):
        raise DownloadError(
            f"{copy} holds no file of the real sample, such as {files[0][1]}. Nothing was taken from it, since those "
            f"in {target} are whole; leave the folder out, or give one that holds a copy."
        )
    return target


def is_her2st_local(folder: str | Path | None = None, sections: Sequence[str] | None = None) -> bool:
    """Return whether :func:`fetch_her2st` needs no network: the files are there and whole, or a local copy is known."""
    return _mirror(None) is not None or all(
        _is_whole(_target(folder) / source.folder / name, source.sha256[name]) for source, name in _files(sections)
    )


def her2st_section(folder: str | Path, section: str) -> tuple[Path, Path, Path]:
    """Return the paths of the slide, counts and spot table of a section (``B4``, ``C2``, ``C3`` or ``C4``)."""
    root = Path(folder) / _HER2ST.folder
    slide, counts, positions = (_there(root / name) for name in _section_files(section))
    return slide, counts, positions


def her2st_section_of(slide: Path | None) -> str | None:
    """Return the name of the section that a picture shows, by its file name, with or without extension, or ``None``."""
    names = () if slide is None else (slide.name, f"{slide.name}.jpg")
    return next((section for section, path in _SECTIONS.items() if path.rpartition("/")[2] in names), None)


def her2st_cells(folder: str | Path) -> Path:
    """Return the path of the single cells of the real sample, for use with ``read_cells``."""
    return _there(Path(folder) / _WU2021.folder / _CELLS)


def _section_files(section: str) -> tuple[str, str, str]:
    if section not in _SECTIONS:
        raise CpnnError(f"The real sample has no section {section!r}; choose one of {', '.join(HER2ST_SECTIONS)}.")
    return _SECTIONS[section], f"data/ST-cnts/{section}.tsv.gz", f"data/ST-spotfiles/{section}_selection.tsv"


def _files(sections: Sequence[str] | None) -> Iterator[tuple[_Source, str]]:
    """Yield the files of some sections, or all of the real sample."""
    if sections is None:
        yield from ((source, name) for source in (_HER2ST, _WU2021) for name in source.sha256)
    else:
        yield from ((_HER2ST, name) for section in sections for name in _section_files(section))


def _target(folder: str | Path | None) -> Path:
    return to_path(folder, DownloadError) if folder is not None else cache_folder() / "samples"


def _mirror(given: str | Path | None) -> Path | None:
    place = given or os.environ.get("NAPARI_CPNN_MIRROR") or os.environ.get("NAPARI_CPNN_DATA")
    return to_path(place, DownloadError) if place else None


def _there(path: Path) -> Path:
    if not path.is_file():
        raise CpnnError(f"{path} is missing; run `napari-cpnn fetch her2st`.")
    return path


def _fetch(source: _Source, name: str, target: Path, mirror: Path | None) -> None:
    """Fetch one file through a temporary name in the same folder, so that an interruption leaves no partial file."""
    sha256 = source.sha256[name]
    url = source.base + _REMOTE_NAMES.get(name, name)
    try:
        if _is_whole(target, sha256):
            return
        if target.is_dir() or target.is_symlink():
            raise DownloadError(
                f"{target} is a folder or a link in the place of {name}; move it, or choose another folder."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        origin: str | Path = url
        with staged(target) as temporary:
            if mirror is not None:
                origin = _found_in(mirror, source, name) or mirror / source.folder / name
                shutil.copyfile(origin, temporary)
            else:
                download(url, temporary)
            if not _is_whole(temporary, sha256):
                raise DownloadError(
                    f"{origin} is damaged: its SHA-256 does not match; "
                    + ("try again." if mirror is None else "replace it.")
                )
    except OSError as error:  # includes every error of requests
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)) and mirror is not None:
            advice = f"get it from {url}, or leave the folder out to download it"
        elif error.errno is not None:
            advice = f"check the folder {target.parent}, its rights and the space on its disk"
        else:
            advice = "check the network, or give a folder with a copy of the data (--from FOLDER, or mirror in Python)"
        reason = error.strerror or type(error).__name__
        raise DownloadError(
            f"{name} could not be fetched from {mirror or source.base} ({reason}); {advice}."
        ) from error


def _found_in(mirror: Path, source: _Source, name: str) -> Path | None:
    """Return where a local copy holds a file, laid out as a data folder or as the repository itself."""
    places = (mirror / source.folder / name, mirror / name, mirror / _REMOTE_NAMES.get(name, name))
    return next((place for place in places if place.is_file()), None)


def _is_whole(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
