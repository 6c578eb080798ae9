"""Entry point of ``python -m napari_cpnn.cli``."""

from __future__ import annotations

import sys

from napari_cpnn.cli import main

sys.exit(main())
