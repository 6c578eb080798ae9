"""Shared by the docks of a viewer: its state, memory of slides and models, and preferences."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
