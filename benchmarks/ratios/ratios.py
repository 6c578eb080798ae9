"""Ratios for airspeed velocity: ours over a bare or a peer's way, measured in turns in one process.

``python benchmarks/history.py`` runs them and writes the table of docs/performance.md. Times are those of the
processor, on one thread, the fastest of some turns, so that other work on the machine matters little. More is better,
except where less is said to be.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TURNS = 4


def fastest(*ways: Callable[[], object]) -> list[float]:
    """Seconds of processor time of each way, the fastest of some turns after one to warm up."""
    best = [float("inf")] * len(ways)
    for turn in range(TURNS + 1):
        for i, way in enumerate(ways):
            start = time.process_time()
            way()
            if turn:
                best[i] = min(best[i], time.process_time() - start)
    return best


def own_cache() -> None:
    os.environ["NAPARI_CPNN_CACHE"] = tempfile.mkdtemp()


class Networks:
    """Image networks on a CPU."""

    params = ("stnet", "resnet18", "he-small")
    param_names = ("network",)
    unit = "times"
    timeout = 600

    def setup(self, backbone: str) -> None:
        own_cache()
        import torch

        from common import random_model
        from engines import images
        from napari_cpnn.prediction import Predictor

        torch.set_num_threads(1)
        self.model = random_model(backbone)
        self.images = images(self.model, 16)
        self.make = lambda engine, precision: Predictor(self.model, "cpu", precision, engine=engine)

    def track_ours_over_plain_network(self, _backbone: str) -> float:
        """Our torch engine over the network as it is built, both in the best precision."""
        import torch

        ours = self.make("torch", "auto")
        plain, x = self.model.backbone.eval(), self.model.normalize(torch.from_numpy(self.images))

        def bare() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, ours.precision != "float32"):
                plain(x)

        mine, its = fastest(lambda: ours.predict(self.images), bare)
        return its / mine

    def track_openvino_over_torch(self, _backbone: str) -> float:
        torch_way, openvino_way = self.make("torch", "auto"), self.make("openvino", "auto")
        its, mine = fastest(lambda: torch_way.predict(self.images), lambda: openvino_way.predict(self.images))
        return its / mine


class Maps:
    """A map: the pipeline around the network, reading, and another gene."""

    unit = "times"
    timeout = 900

    def setup(self) -> None:
        own_cache()
        import torch

        torch.set_num_threads(1)

    def track_pipeline_over_network(self) -> float:
        """Processor time per patch of the network alone over that of a map: tissue, reading, network, result."""
        import numpy as np

        from common import random_model, sample_slide
        from engines import images
        from napari_cpnn.mapping import DONE, predict_map
        from napari_cpnn.prediction import Predictor
        from napari_cpnn.settings import MappingSettings
        from napari_cpnn.slides import open_slide

        model = random_model("resnet18")
        predictor = Predictor(model, "cpu", engine="torch")
        ready = images(model, 64)
        settings = MappingSettings(engine="torch", cache=False, stride_um=56.0)
        counts: list[int] = []
        with open_slide(sample_slide()) as slide:

            def whole() -> None:
                cmap = predict_map(slide, model, region=(1500.0, 1500.0, 3000.0, 3000.0), settings=settings)
                counts.append(int(np.count_nonzero(cmap.state == DONE)))

            mapped, network = fastest(whole, lambda: predictor.predict(ready))
        return (network / len(ready)) / (mapped / counts[-1])

    def track_tiles_per_patch(self) -> float:
        """Decoded tiles of a whole slide of 20,000 px without a view, over each tile once; less is better."""
        import numpy as np

        from common import random_model, sparse_slide
        from large_slides import Reads
        from napari_cpnn.mapping import DONE, predict_map
        from napari_cpnn.settings import MappingSettings
        from napari_cpnn.slides import open_slide

        with tempfile.TemporaryDirectory() as folder, open_slide(sparse_slide(Path(folder), 20_000)) as slide:
            reads = Reads()
            cmap = predict_map(slide, random_model("squeezenet"), settings=MappingSettings(cache=False))
            patches = int(np.count_nonzero(cmap.state == DONE))
        per_tile = (512 * 0.5 / 112) ** 2
        return reads.n / patches * per_tile

    def track_gene_switch_over_decoding(self) -> float:
        """Values of another gene on a map of 450 x 450 patches, over decoding them from the stored arrays each time."""
        from gene_switch import filled_map

        cmap = filled_map(450)
        weights, programs = cmap.weights, cmap.programs
        genes = iter(cmap.genes)
        mine, its = fastest(
            lambda: cmap.expression(next(genes)), lambda: cmap.decoder.expression(weights, programs, [next(genes)])
        )
        return its / mine


class Training:
    """An epoch."""

    unit = "times"
    timeout = 900

    def setup(self) -> None:
        own_cache()

    def track_epoch_over_bare_loop(self) -> float:
        """Processor time of an epoch with a frozen network over a bare loop; less is better, the aim is 1.05."""
        from common import sample_slide
        from napari_cpnn.prototypes import Prototypes
        from napari_cpnn.samples import sample_folder
        from napari_cpnn.settings import TrainingSettings
        from napari_cpnn.spots import open_sample
        from training_throughput import compare

        slide, spots = open_sample(sample_slide(), sample_folder() / "spots.h5ad")
        prototypes = Prototypes.load(sample_folder() / "prototypes.h5ad")
        with slide, tempfile.TemporaryDirectory() as folder:
            settings = TrainingSettings(
                backbone="squeezenet", weights="none", validation="none", batch_size=64, calibrate=False,
                max_epochs=TURNS + 1, backbone_learning_rate=0.0, patch_cache=f"{folder}/patches",
            )  # fmt: skip
            _, best = compare([(slide, spots)], prototypes, settings, Path(folder) / "case")
        return float(best[2] / best[3])
