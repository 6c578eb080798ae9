"""Fixtures of the coloured slide."""

from coloured_slide import image, model, slide

__all__ = ["image", "model", "slide"]
