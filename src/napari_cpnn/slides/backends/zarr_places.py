"""Where a Zarr lies: a folder, a zip file (``.ozx``, ``.zarr.zip``), or an address of a web server or S3.

Each place reads its small files by key, and opens as a Zarr group. Source of the single file: OME-NGFF RFC-9, "Zipped
OME-Zarr", https://ngff.openmicroscopy.org/rfc/9/.
"""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from napari_cpnn.errors import SlideError
from napari_cpnn.storage import check_zarr, check_zarr_array
from napari_cpnn.untrusted import parse_json, read_json, reason_of

#: Files of a Zarr folder that describe it.
METADATA = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
_SECONDS = 60
_MOST_BYTES = 64 * 2**20  # of a file of metadata
_MOST_ENTRIES = 2_000_000
#: Compression of a chunk in a zip file beyond which it is a bomb; chunks are compressed already.
_MOST_GROWTH, _SMALL = 1100, 2**28


class ZarrPlace(Protocol):
    """A folder in or of a Zarr, wherever it lies."""

    @property
    def label(self) -> str:
        """What messages call it."""

    @property
    def name(self) -> str:
        """Name of the folder."""

    def at(self, key: str) -> ZarrPlace:
        """Return a folder inside."""

    def content(self, key: str) -> Any:
        """Return the parsed JSON of a file, ``None`` if there is none."""

    def folders(self) -> list[str]:
        """Return the names of the folders inside; empty where they cannot be listed."""

    def check(self, levels: list[str]) -> None:
        """Raise an error if reading these arrays would run code or exhaust the memory."""

    def group(self) -> Any:
        """Open as a Zarr group."""

    def is_there(self, level: str, *, empty: bool) -> bool:
        """Return whether an array still exists, after a chunk of it was found to be ``empty``."""


def attributes(place: ZarrPlace) -> dict[str, Any]:
    """Return the attributes of a group, those of OME at their top as in versions before 0.5."""
    facts: dict[str, Any] = {}
    for name in ("zarr.json", ".zattrs"):
        content = place.content(name)
        content = content.get("attributes") if isinstance(content, dict) and name == "zarr.json" else content
        facts |= content if isinstance(content, dict) else {}
    ome = facts.get("ome")
    return facts | ome if isinstance(ome, dict) else facts


def is_zarr(place: ZarrPlace) -> bool:
    """Return whether a folder is a Zarr group or array."""
    return any(place.content(name) is not None for name in METADATA)


def labels_in(folder: Path) -> dict[str, Path]:
    """Return the images of labels in a Zarr folder by name: itself, or those in its folder ``labels``.

    >>> labels_in(Path("there is none"))
    {}
    """
    held = folder / "labels"
    if held.is_dir():
        return {p.name: p for p in sorted(held.iterdir()) if p.is_dir() and is_zarr(FolderPlace(p))}
    facts = attributes(FolderPlace(folder))
    is_label = "image-label" in facts or ("multiscales" in facts and folder.parent.name == "labels")
    return {folder.name: folder} if is_label else {}


def _array_file(place: ZarrPlace, level: str) -> tuple[str, Any]:
    """Return name and content of the file that describes an array."""
    for name in ("zarr.json", ".zarray"):
        content = place.content(f"{level}/{name}")
        if content is not None:
            return name, content
    return ".zarray", None


def _check_arrays(place: ZarrPlace, levels: list[str]) -> None:
    for level in levels:
        name, content = _array_file(place, level)
        if content is not None:
            check_zarr_array(content, f"{place.label}/{level}", SlideError, is_array=name == ".zarray")


@dataclass(frozen=True)
class FolderPlace:
    """A folder of this computer."""

    path: Path

    @property
    def label(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def at(self, key: str) -> FolderPlace:
        return FolderPlace(self.path / key)

    def content(self, key: str) -> Any:
        file = self.path / key
        return read_json(file, SlideError) if file.is_file() else None

    def folders(self) -> list[str]:
        return sorted(p.name for p in self.path.iterdir() if p.is_dir()) if self.path.is_dir() else []

    def check(self, levels: list[str]) -> None:  # noqa: ARG002 -- all of it is checked, links included
        check_zarr(self.path, SlideError)

    def group(self) -> Any:
        import zarr

        return zarr.open_group(str(self.path), mode="r", use_consolidated=False)

    def is_there(self, level: str, *, empty: bool) -> bool:  # noqa: ARG002 -- cheap
        return any((self.path / level / name).is_file() for name in ("zarr.json", ".zarray"))


@dataclass(frozen=True)
class ZipPlace:
    """A folder in a zip file; :func:`open_zip` checks the file."""

    path: Path
    archive: zipfile.ZipFile = field(repr=False, compare=False)
    key: str = ""

    @property
    def label(self) -> str:
        return f"{self.path}/{self.key}".rstrip("/")

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[-1] or self.path.name

    def at(self, key: str) -> ZipPlace:
        return ZipPlace(self.path, self.archive, f"{self.key}/{key}".strip("/"))

    def content(self, key: str) -> Any:
        name = f"{self.key}/{key}".strip("/")
        try:
            info = self.archive.getinfo(name)
        except KeyError:
            return None
        if info.file_size > _MOST_BYTES:
            raise SlideError(f"{self.label}/{key} is too large for a file of its kind.")
        return parse_json(self.archive.read(info), f"{self.label}/{key}", SlideError)

    def folders(self) -> list[str]:
        start = f"{self.key}/".lstrip("/")
        inside = {name[len(start) :].split("/")[0] for name in self.archive.namelist() if name.startswith(start)}
        return sorted(name for name in inside if name and f"{start}{name}" not in self.archive.NameToInfo)

    def check(self, levels: list[str]) -> None:
        _check_arrays(self, levels)

    def group(self) -> Any:
        import zarr
        from zarr.storage import ZipStore

        return zarr.open_group(ZipStore(self.path, mode="r"), path=self.key, mode="r", use_consolidated=False)

    def is_there(self, level: str, *, empty: bool) -> bool:  # noqa: ARG002 -- the file is checked by the slide
        return self.path.is_file()


def open_zip(path: Path) -> ZipPlace:
    """Open a zip file and find the Zarr in it: at its root, or in its only folder.

    Raises
    ------
    SlideError
        If the file is damaged, encrypted, or grows beyond measure.
    """
    archive = zipfile.ZipFile(path)
    entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES:
        raise SlideError(f"{path} holds more than {_MOST_ENTRIES:,} files; it is not a slide.")
    for entry in entries:
        if entry.flag_bits & 1:
            raise SlideError(f"{path} is encrypted; unpack it first.")
        if entry.file_size > max(_SMALL, _MOST_GROWTH * entry.compress_size):
            raise SlideError(f"{path} declares {entry.file_size:,} bytes for {entry.filename[:60]!r}; it is damaged.")
    place = ZipPlace(path, archive)
    if not is_zarr(place) and len(folders := place.folders()) == 1:
        return place.at(folders[0])
    return place


@dataclass(frozen=True)
class AddressPlace:
    """A folder on a web server (``https://``, ``http://``) or in S3 (``s3://``), read as it is needed."""

    address: str
    system: Any = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        return self.address.rsplit("/", 1)[-1]

    def at(self, key: str) -> AddressPlace:
        return AddressPlace(f"{self.address}/{key}", self.system)

    def content(self, key: str) -> Any:
        place = f"{self.address}/{key}"
        try:
            found = self.system.cat_file(place)
        except (FileNotFoundError, PermissionError):  # S3 forbids what is not there if its folders are not public
            return None
        except Exception as error:  # any exception of the client
            if getattr(error, "status", None) in (403, 404, 410):
                return None
            raise SlideError(f"{place} cannot be read ({_reason(error)}); is the server reachable?") from error
        if len(found) > _MOST_BYTES:
            raise SlideError(f"{place} is too large for a file of its kind.")
        return parse_json(found, place, SlideError)

    def folders(self) -> list[str]:
        return []

    def check(self, levels: list[str]) -> None:
        _check_arrays(self, levels)

    def group(self) -> Any:
        import zarr
        from zarr.storage import FsspecStore

        store = FsspecStore.from_url(self.address, _options(self.address), read_only=True)
        version: Any = 3 if self.content("zarr.json") is not None else 2
        return zarr.open_group(store, mode="r", zarr_format=version, use_consolidated=False)

    def is_there(self, level: str, *, empty: bool) -> bool:
        return not empty or _array_file(self, level)[1] is not None


def _reason(error: Exception) -> str:
    """Say what a server answered; the text of its client repeats the address, and may be empty."""
    if type(error).__name__ == "TooManyRedirects":
        return "its server leads from one address to the next without an end"
    status, message = getattr(error, "status", 0), getattr(error, "message", "")
    return f"its server answers {status} {message}".strip() if status else reason_of(error)


def address_of(path: str | Path) -> str | None:
    """Return a path as an address, ``None`` if it is none; ``pathlib`` has made one slash of two.

    >>> address_of(Path("https://example.org/a.ome.zarr/"))
    'https://example.org/a.ome.zarr'
    >>> address_of("a.ome.zarr") is None
    True
    """
    found = re.fullmatch(r"(https?|s3):[/\\]+(.+)", str(path))
    return None if found is None else f"{found[1]}://{found[2].replace(os.sep, '/').rstrip('/')}"


def open_address(address: str) -> AddressPlace:
    """Return the place at an address; nothing is asked of the server yet.

    Raises
    ------
    SlideError
        If the package that reads such addresses is not installed.
    """
    try:
        from fsspec import filesystem

        system = filesystem(address.partition(":")[0], **_options(address))
    except ImportError as error:
        needed = "s3fs" if address.startswith("s3:") else "fsspec and aiohttp"
        raise SlideError(f'{address} needs {needed}: pip install "napari-cpnn[remote]".') from error
    return AddressPlace(address, system)


def _options(address: str) -> dict[str, Any]:
    """Return the options of fsspec: time limits, and no credentials where the user has none in the environment."""
    if address.startswith("s3:"):
        known = any(
            os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
        )
        return {"anon": not known, "config_kwargs": {"connect_timeout": 10, "read_timeout": _SECONDS}}
    import aiohttp

    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=_SECONDS)}}
