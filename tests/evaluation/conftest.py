"""Fixtures of the small world."""

from small_world import no_curves, quick, real_curves, world

__all__ = ["no_curves", "quick", "real_curves", "world"]
