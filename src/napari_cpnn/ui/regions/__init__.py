"""The Regions dock: what is in a region, and which cell types make a gene there."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
