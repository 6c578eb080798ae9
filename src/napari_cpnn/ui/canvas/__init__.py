"""What lies on the canvas beside the map: keys, peek, fading, lines, lens, overview, measurements and halos."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
