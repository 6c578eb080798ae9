"""Download a file."""

from __future__ import annotations

from pathlib import Path

from napari_cpnn.errors import DownloadError


def download(url: str, target: Path) -> None:
    """Write what a web address answers to a file.

    Raises
    ------
    OSError
        If there is no whole answer: of `requests`, whose ``response`` is closed, or of the disk.
    """
    import pooch

    try:
        pooch.HTTPDownloader(chunk_size=2**16)(url, target, None)
    except OSError as error:
        answer = getattr(error, "response", None)
        if answer is not None:
            answer.close()
        raise


def download_or_say(url: str, target: Path) -> None:
    """Download as :func:`download`; an error is a sentence that names the option for a file from elsewhere.

    Raises
    ------
    DownloadError
        If there is no whole answer.
    """
    try:
        download(url, target)
    except OSError as error:  # includes every error of requests
        answer = getattr(error, "response", None)
        reason = error.strerror or (type(error).__name__ if answer is None else f"HTTP {answer.status_code}")
        raise DownloadError(
            f"{url} could not be downloaded ({reason}); download it elsewhere, and give the file (--from FILE)."
        ) from error
