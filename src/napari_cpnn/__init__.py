"""See molecular maps on an H&E slide: lazy, patch-level CPNN predictions in napari, Python and the terminal.

The public API is what ``__init__.pyi`` lists; each name is imported when it is first used, so that importing the
package loads neither torch nor napari nor Qt.

Examples
--------
Examples of the public functions go on from these lines, which open the sample of the package.

>>> import napari_cpnn as nc
>>> folder = nc.sample_folder()
>>> slide = nc.open_slide(folder / "slide.tiff")
>>> spots = nc.read_spots(folder / "spots.h5ad", slide=slide)
>>> protos = nc.Prototypes.load(folder / "prototypes.h5ad")
>>> model = nc.load_model(folder / "model.safetensors")
>>> cmap = nc.predict_map(slide, model, region=(1000, 1000, 1400, 1400))
>>> scores = nc.evaluate(model, slide, spots[:5])
"""

from __future__ import annotations

import os

import lazy_loader

# OpenMP's threads spin while they wait. Beside a viewer's own threads, or on shared cores, two spinning threads of
# torch are slower than one (docs/performance_history.md). It must be said before torch is loaded; the user's own word
# counts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
