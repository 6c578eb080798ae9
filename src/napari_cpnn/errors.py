"""Errors that a user can cause or meet, each one sentence long.

Every message says what is wrong, with which file, and what to do about it. The command line prints it as one
line and exits with 2; napari shows it as a notification. Anything else that is raised is a bug of ours.
"""

from __future__ import annotations

#: A message that is longer has a value from a file in it, and is shortened in the middle.
MAX_LENGTH = 480
_TAIL = 160


class CpnnError(Exception):
    r"""Base of every error that napari-cpnn raises on purpose.

    Examples
    --------
    Whatever a file has put into it, the message is one line of bearable length.

    >>> from napari_cpnn import CpnnError
    >>> str(CpnnError("a.csv has no\ncolumn x."))
    'a.csv has no column x.'
    >>> len(str(CpnnError("x" * 5000)))
    480
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_one_line(arg) if isinstance(arg, str) else arg for arg in args))


def _one_line(text: str) -> str:
    line = text if text.isprintable() else " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH - _TAIL - 5]} ... {line[-_TAIL:]}"


class SettingsError(CpnnError):
    """A setting has a value that makes no sense."""


class SlideError(CpnnError):
    """A slide cannot be opened or read, or is not of a kind that can be mapped."""


class PixelSizeError(SlideError):
    """The slide has no believable pixel size, and the task needs one."""


class NoTissueError(SlideError):
    """No tissue was found on the slide."""


class SpotsError(CpnnError):
    """A table of spots cannot be read, or does not fit its slide."""


class RegistrationError(CpnnError):
    """Two pictures cannot be registered, or a registration cannot be read, written or used."""


class CellsError(CpnnError):
    """A single-cell table cannot be read or used."""


class GenesError(CpnnError):
    """Gene names do not fit together."""


class PrototypesError(CpnnError):
    """Prototypes cannot be estimated, read or used."""


class WeightsError(CpnnError):
    """Pre-trained backbone weights are missing or of another network."""


class CheckpointError(CpnnError):
    """A model file cannot be read, or is not one of ours."""


class TrainingError(CpnnError):
    """Training cannot start or go on with these data and settings."""


class MappingError(CpnnError):
    """A map cannot be computed, read or stored."""


class ExportError(CpnnError):
    """A map cannot be written for another program."""


class RegionsError(CpnnError):
    """Regions of a slide cannot be read, written or summarised."""


class NucleiError(CpnnError):
    """Nuclei cannot be found, read or written."""


class CellMapError(CpnnError):
    """A map of single cells cannot be computed, read or written."""


class SessionError(CpnnError):
    """A saved session cannot be read, written or opened."""


class CohortError(CpnnError):
    """A manifest of slides cannot be used, or a run over its slides cannot start or go on.

    ``problems`` holds all that is wrong with a manifest, one sentence each.
    """

    def __init__(self, *args: object, problems: tuple[str, ...] = ()) -> None:
        super().__init__(*args)
        self.problems = problems


class DownloadError(CpnnError):
    """A file could not be downloaded, or arrived damaged."""


class CpnnWarning(UserWarning):
    """Something was handled in a documented way that the user should know about."""
