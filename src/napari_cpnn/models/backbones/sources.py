"""Sources of pre-trained weights, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from napari_cpnn.errors import CpnnError

#: Names of an encoder's own pre-trained weights in the settings ``weights`` and ``encoder_weights``.
PRETRAINED = ("imagenet", "pretrained")


@dataclass(frozen=True)
class WeightsSource:
    """A file of pre-trained weights.

    Parameters
    ----------
    url
        Download address; a bare file name is a file of this package, in ``models/backbones``.
    sha256
        Its full checksum; without one nothing is downloaded, and the user must provide the file.
    """

    url: str
    sha256: str | None = None

    @property
    def is_packaged(self) -> bool:
        """Whether the file comes with the package."""
        return "://" not in self.url

    @property
    def file_name(self) -> str:
        """Last component of the URL path."""
        return self.url.rsplit("/", 1)[-1]

    def retrieve(self, folder: Path, what: str, otherwise: str, error: type[CpnnError]) -> Path:
        """Return the file in ``folder``, downloaded on first use and verified each time.

        Raises
        ------
        CpnnError
            An ``error`` if ``what`` cannot be downloaded or arrives damaged; it says what to do ``otherwise``.
        """
        import pooch

        try:
            return Path(pooch.retrieve(self.url, f"sha256:{self.sha256}", self.file_name, folder))
        except ValueError as damage:
            raise error(
                f"{self.file_name} from {self.url} arrived damaged (its checksum is wrong); try again, or {otherwise}."
            ) from damage
        except OSError as offline:  # includes the errors of requests without a network connection
            raise error(f"{what} could not be downloaded from {self.url}; go online once, or {otherwise}.") from offline


class Weighted(Protocol):
    """Name and weights of an image network (:class:`~napari_cpnn.models.backbones.encoder.EncoderInfo`)."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> WeightsSource | None: ...
