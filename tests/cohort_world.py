"""A cohort of small slides of coloured tissue on disk, for a network that looks at the mean colour."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import torch

from fakes import ColorModel, settings, tissue_image
from napari_cpnn.cohort import Cohort, read_cohort
from napari_cpnn.cohort_run import CohortStatus, run_cohort
from napari_cpnn.settings import CohortSettings

SIZE = (12, 14)


class ExactModel(ColorModel):
    """A patch has the same bits whatever its batch, as with networks on a processor; matrix products do not."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        color = x.double().flatten(2).sum(dim=2) / (x.shape[2] * x.shape[3])
        distance = (color[:, None] - self.colors.double()[None]).square().sum(dim=2).sqrt()
        return torch.softmax(-distance / 20, dim=1).float(), (color[:, :1] / 255).float()


@dataclass(frozen=True)
class CohortWorld:
    """Slides, their manifest, and runs over it."""

    folder: Path
    manifest: Path

    @property
    def cohort(self) -> Cohort:
        return read_cohort(self.manifest)

    def run(self, out: str | Path = "out", cohort: Cohort | None = None, **options: Any) -> CohortStatus:
        chosen = options.pop("settings", None) or run_settings()
        model = options.pop("model", None) or ExactModel().eval()
        return run_cohort(cohort or self.cohort, model, self.folder / out, chosen, **options)


def run_settings(**changes: Any) -> CohortSettings:
    """In this process, and with tissue that is as small as these slides."""
    return CohortSettings(**{"workers": 0, "mapping": settings(), "qc_patches": 8, "thumbnail_px": 64, **changes})


def make_cohort(folder: Path, n: int = 4, damaged: Sequence[int] = ()) -> CohortWorld:
    """Slides ``s0`` to ``s{n-1}``, two of a patient, patients in two groups in turn."""
    for i in range(n):
        path = folder / f"s{i}.tif"
        tifffile.imwrite(path, tissue_image(*SIZE, seed=i), photometric="rgb", tile=(64, 64))
        if i in damaged:
            path.write_bytes(path.read_bytes()[:300])
    patients = [f"P{i // 2}" for i in range(n)]
    table = pd.DataFrame({"slide": [f"s{i}.tif" for i in range(n)], "patient": patients, "mpp": 1.0})
    table["group"] = ["treated" if i // 2 % 2 else "control" for i in range(n)]
    table.to_csv(folder / "manifest.csv", index=False)
    return CohortWorld(folder, folder / "manifest.csv")


def results_of(out: Path) -> dict[str, Any]:
    """All that a run has found, without when and where."""
    from napari_cpnn.mapping import CompositionMap

    found: dict[str, Any] = {}
    for folder in sorted((out / "slides").iterdir()):
        facts = json.loads((folder / "slide.json").read_text())
        facts.pop("run")
        cmap = CompositionMap.load(folder / "map.zarr")
        arrays = (np.asarray(cmap.weights), np.asarray(cmap.programs), cmap.state)
        pictures = {name: (folder / name).read_bytes() for name in ("thumbnail.jpg", "dominant.jpg", "slide.csv")}
        found[folder.name] = (facts, [a.tobytes() for a in arrays], pictures)
        assert not (folder / ".work").exists()
    return found
