"""The Align dock: another slide, or spots, laid on the slide by landmarks or by a first guess.

The public API is listed in ``__init__.pyi``; names are imported lazily.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
