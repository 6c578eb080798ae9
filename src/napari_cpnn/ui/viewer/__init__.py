"""What the docks of one viewer share: its state, what is remembered of slides and models, preferences."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
