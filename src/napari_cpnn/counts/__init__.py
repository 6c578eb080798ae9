"""Tables of raw counts and the names of their genes, of spots and single cells alike.

``raw_counts`` verifies that counts are counts, ``tenx`` and ``matrices`` read those of 10x Genomics, ``text_tables``
read everything that is text, and ``genes`` compares names.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
