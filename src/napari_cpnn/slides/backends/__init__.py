"""Registry of backends: choose one for a file, and report why none can open it."""

from __future__ import annotations

from pathlib import Path

from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends.base import Backend, Refused, Source
from napari_cpnn.untrusted import reading

#: File extensions supported by :func:`napari_cpnn.open_slide`, for a reader plugin.
SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".btf", ".tf8", ".qptiff", ".ndpi", ".ndpis", ".mrxs", ".scn", ".vms", ".vmu", ".bif",
    ".svslide", ".dcm", ".czi", ".vsi", ".zvi", ".isyntax", ".ozx", ".jpg", ".jpeg", ".png", ".bmp",
)  # fmt: skip

_HEAD_BYTES = 256


def backends() -> tuple[Backend, ...]:
    """Return all backends; their libraries are imported here rather than with the package."""
    from napari_cpnn.slides.backends.isyntax import ISyntaxBackend
    from napari_cpnn.slides.backends.ome_zarr import OmeZarrBackend
    from napari_cpnn.slides.backends.openslide import OpenSlideBackend
    from napari_cpnn.slides.backends.plain import PlainBackend
    from napari_cpnn.slides.backends.slideio import SlideioBackend
    from napari_cpnn.slides.backends.tiff import TiffBackend

    ours = TiffBackend(), OpenSlideBackend(), PlainBackend(), OmeZarrBackend()
    return *ours, SlideioBackend(), ISyntaxBackend()


def open_source(path: Path | str, name: str | None = None) -> tuple[str, Source]:
    """Open a file, and return the name of the backend and the source.

    Parameters
    ----------
    path
        File to open, or the address of an OME-Zarr.
    name
        Name of the only backend to try, of whatever file; a slide that is re-opened keeps its backend.

    Raises
    ------
    SlideError
        If every backend refuses the file, with the reason of each, or one finds it damaged.
    """
    if isinstance(path, str):
        from napari_cpnn.slides.backends.ome_zarr import OmeZarrBackend, open_at

        with reading(path, SlideError, "is it the address of an OME-Zarr?"):
            return OmeZarrBackend.name, open_at(path)
    head = _head_of(path)
    ranked = sorted(((b.rank(path, head), b) for b in backends()), key=lambda item: -item[0])
    said: list[str] = []
    may_try: tuple[str, ...] | None = None
    for rank, backend in ranked:
        if (rank == 0 if name is None else backend.name != name) or (may_try and backend.name not in may_try):
            continue
        answer = _ask(backend, path)
        if not isinstance(answer, Refused):
            return backend.name, answer
        said.append(f"{backend.name}: {answer}")
        may_try = answer.then or may_try
    if not said:
        raise SlideError(f"{path} is not a slide or image of a known format.")
    raise SlideError(f"{path} cannot be opened as a slide ({'; '.join(said)}).")


def _head_of(path: Path) -> bytes:
    """Return the first bytes of a file, none of a folder."""
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not head:
        raise SlideError(f"{path} is empty.")
    return head


def _ask(backend: Backend, path: Path) -> Source | Refused:
    """Open a file with one backend, or return its refusal; other exceptions become :class:`SlideError`."""
    with reading(path, SlideError, "the file may be damaged."):
        try:
            return backend.open(path)
        except Refused as reason:
            return reason
