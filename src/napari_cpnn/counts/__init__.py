"""Count tables and gene names, for spots and single cells.

``raw_counts`` validates counts, ``tenx`` and ``matrices`` read the formats of 10x Genomics, ``text_tables`` reads text
tables, and ``genes`` compares gene names.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
