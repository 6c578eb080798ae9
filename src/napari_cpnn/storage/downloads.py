"""Download a file."""

from __future__ import annotations

from pathlib import Path


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
