"""Pictures of the Cohort dock for the guide: a run over pieces of the sample, as if they were slides of patients."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from napari_cpnn.cohort import read_cohort
from napari_cpnn.cohort_run import run_cohort
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.settings import CohortSettings
from napari_cpnn.slides import open_slide
from napari_cpnn.ui.cohort import CohortDock
from napari_cpnn.ui.explore import Explore
from napari_cpnn.ui.viewer import pump, wait_until_mapped

COHORT_SCENES = ("cohort", "cohort_groups")
#: Rows and columns of pieces, their side, and the one that is made unreadable.
PIECES, PIECE_PX, UNREADABLE = (3, 4), 3000, 10
RUN_SETTINGS = CohortSettings(workers=0, least_tissue_mm2=0.5)


def cohort_pictures(viewer, explore: Explore, pictures: dict[str, Path], save) -> None:
    """A run over pieces of the sample, as if they were slides of six patients; one of them cannot be read."""
    with tempfile.TemporaryDirectory() as there:
        manifest = sample_cohort(Path(there))
        run_cohort(read_cohort(manifest), sample_folder() / SAMPLE_FILES["model"], Path(there) / "run", RUN_SETTINGS)
        dock = CohortDock(viewer)
        viewer.window.add_dock_widget(dock, name="Cohort (CPNN)", area="right", tabify=True)
        dock.controller.open(Path(there) / "run")
        while dock.controller.picture is None or not dock.controller.is_settled:
            pump(0.1)
        dock.controller.show_gene("ERBB2")
        dock.slides.color("group")
        dock.opener.open("S06")
        while dock.opener.opened is None or dock.opener.kept_layer is not None:
            pump(0.1)
        viewer.reset_view(layers=[explore.state.layer])
        wait_until_mapped(viewer, explore)
        for name, path in pictures.items():
            dock.tabs.setCurrentWidget(dock.groups if name == "cohort_groups" else dock.slides)
            pump(1.0)
            save(viewer, path)
        dock.shut_down()


def sample_cohort(folder: Path) -> Path:
    """Cut the sample into pieces and write their manifest."""
    rows = []
    with open_slide(sample_folder() / SAMPLE_FILES["slide"]) as slide:
        height, width = slide.shape[:2]
        level = slide.levels[0]
        for i in range(PIECES[0] * PIECES[1]):
            row, col = divmod(i, PIECES[1])
            y = round((row + 0.5) * height / PIECES[0] - PIECE_PX / 2)
            x = round((col + 0.5) * width / PIECES[1] - PIECE_PX / 2)
            piece = np.asarray(level[max(y, 0) : y + PIECE_PX, max(x, 0) : x + PIECE_PX])
            path = folder / f"S{i + 1:02d}.tif"
            per_cm = tuple(1e4 / side for side in slide.mpp)
            tifffile.imwrite(path, piece, photometric="rgb", tile=(256, 256), resolution=per_cm, resolutionunit=3)
            if i == UNREADABLE:
                path.write_bytes(path.read_bytes()[:1000])
            group = ("pCR", "residual disease")[i // 2 % 2]
            rows.append({"slide": path.name, "patient": f"P{i // 2 + 1}", "group": group, "grade": 1 + i % 3})
    pd.DataFrame(rows).to_csv(folder / "slides.csv", index=False)
    return folder / "slides.csv"
