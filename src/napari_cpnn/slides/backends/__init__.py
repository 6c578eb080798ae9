"""The registry of backends: who opens which file, and what is said when nobody does."""

from __future__ import annotations

from pathlib import Path

from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends.base import Backend, Refused, Source
from napari_cpnn.untrusted import reading

#: File name endings that :func:`napari_cpnn.open_slide` is asked for (a reader plugin may list them).
SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".btf", ".tf8", ".qptiff", ".ndpi", ".ndpis", ".mrxs", ".scn", ".vms", ".vmu", ".bif",
    ".svslide", ".dcm", ".czi", ".jpg", ".jpeg", ".png", ".bmp",
)  # fmt: skip

_HEAD_BYTES = 256


def backends() -> tuple[Backend, ...]:
    """All backends; their libraries are imported here, not with the package."""
    from napari_cpnn.slides.backends.openslide import OpenSlideBackend
    from napari_cpnn.slides.backends.plain import PlainBackend
    from napari_cpnn.slides.backends.tiff import TiffBackend

    return TiffBackend(), OpenSlideBackend(), PlainBackend()


def open_source(path: Path, name: str | None = None) -> tuple[str, Source]:
    """The name of the backend and the open file.

    Parameters
    ----------
    path
        A file.
    name
        Take this backend only (a slide that is re-opened stays with the backend that it had).

    Raises
    ------
    SlideError
        When every backend refuses, with what each said, or one finds the file damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not head:
        raise SlideError(f"{path} is empty.")
    ranked = sorted(((b.rank(path, head), b) for b in backends()), key=lambda item: -item[0])
    said: list[str] = []
    may_try: tuple[str, ...] | None = None
    for rank, backend in ranked:
        if rank == 0 or (name is not None and backend.name != name) or (may_try and backend.name not in may_try):
            continue
        answer = _ask(backend, path)
        if not isinstance(answer, Refused):
            return backend.name, answer
        said.append(f"{backend.name}: {answer}")
        may_try = answer.then or may_try
    if not said:
        raise SlideError(f"{path} is not a slide or image of a known kind.")
    raise SlideError(f"{path} cannot be opened as a slide ({'; '.join(said)}).")


def _ask(backend: Backend, path: Path) -> Source | Refused:
    """The open file, or why the backend does not open it; whatever else a library raises is a :class:`SlideError`."""
    with reading(path, SlideError, "the file may be damaged."):
        try:
            return backend.open(path)
        except Refused as reason:
            return reason
