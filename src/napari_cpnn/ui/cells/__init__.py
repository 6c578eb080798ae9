"""The Cells dock: nuclei and single cells of a slide, their counts, neighbours and gallery.

The public API is listed in ``__init__.pyi``; names are imported lazily.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
