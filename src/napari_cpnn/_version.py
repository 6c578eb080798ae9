"""The version, on the lowest floor, so that every part may write it into what it makes."""

__version__ = "0.1.0"
