"""Sources of pre-trained weights, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

#: Names of an encoder's own pre-trained weights in the settings ``weights`` and ``encoder_weights``.
PRETRAINED = ("imagenet", "pretrained")


@dataclass(frozen=True)
class WeightsSource:
    """A file of pre-trained weights.

    Parameters
    ----------
    url
        Download address.
    sha256
        Its full checksum; without one nothing is downloaded, and the user must provide the file.
    """

    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """Last component of the URL path."""
        return self.url.rsplit("/", 1)[-1]


class Weighted(Protocol):
    """Name and weights of an image network (:class:`~napari_cpnn.models.backbones.encoder.EncoderInfo`)."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> WeightsSource | None: ...
