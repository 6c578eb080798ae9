"""Write one file of each kind that the program opens again, of a synthetic world, into ``<version>.zip`` beside this.

The world is computed with whole numbers, so that each processor makes the same one, and the image network is one
convolution, so that files are small.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from torch import Tensor, nn

import napari_cpnn as nc
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import BACKBONES, ENCODERS, EncoderInfo
from napari_cpnn.prediction import FeatureStore

ROWS, COLS, SIDE, GLASS, GENES = 4, 5, 32, 8, 8
TYPES = ("tumour", "lymphocytes", "fat")
COLORS = np.array([[230, 120, 170], [120, 60, 160], [190, 140, 120]])
KEYS = np.array([3, 17, 4_000_000_000])
FEATURES = np.arange(12).reshape(3, 4) / 8


class OneConvolution(nn.Module):
    """The smallest image network."""

    n_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, stride=8)

    def maps(self, images: Tensor) -> Tensor:
        return self.conv(images).relu()

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).mean(dim=(2, 3))


TINY = EncoderInfo(
    name="tiny", description="one convolution", n_features=4, min_px=8, trained_px=SIDE, trained_mpp=None,
    mean=(0.5,) * 3, std=(0.25,) * 3, licence="none", commercial_use=True, embed=True, source=None,
    network=OneConvolution,
)  # fmt: skip
#: What the registry of networks needs to know.
REGISTERED = ((ENCODERS, TINY), (BACKBONES, TINY.description))


def prototypes() -> nc.Prototypes:
    counts = 1 + np.arange(len(TYPES) * GENES).reshape(len(TYPES), GENES) * 7 % 11
    profiles = (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return nc.Prototypes(
        profiles, TYPES, tuple(f"GENE{i}" for i in range(GENES)), np.full(len(TYPES), 30), {"source": "made"}
    )


def sample(name: str, first: int) -> tuple[nc.Slide, AnnData]:
    """A slide of touching patches on glass, and a spot in the middle of each."""
    y, x = np.mgrid[:ROWS, :COLS]
    share = np.stack([(first + y * a + x * b) % 5 for a, b in ((1, 2), (3, 1), (2, 4))], axis=-1) + 1
    colors = share @ COLORS // share.sum(axis=-1, keepdims=True)
    pixels = np.full((SIDE * (ROWS + 2 * GLASS), SIDE * (COLS + 2 * GLASS), 3), 244)
    pixels[GLASS * SIDE : -GLASS * SIDE, GLASS * SIDE : -GLASS * SIDE] = colors.repeat(SIDE, 0).repeat(SIDE, 1)
    pixels -= np.arange(pixels[..., :1].size).reshape(*pixels.shape[:2], 1) * 37 % 11
    counts = share.reshape(-1, len(TYPES)) @ (1 + np.arange(len(TYPES) * GENES).reshape(len(TYPES), GENES) * 7 % 11) * 5
    table = sparse.csr_matrix(counts.astype(np.int32))
    spots = AnnData(
        table,
        obs=pd.DataFrame({"patient": name[0]}, index=[f"{i}" for i in range(len(counts))]),
        var=pd.DataFrame(index=list(prototypes().genes)),
        layers={"counts": table.copy()},
        obsm={"spatial": (np.c_[x.ravel(), y.ravel()] + GLASS + 0.5) * SIDE},
    )
    return nc.Slide.from_arrays([pixels.astype(np.uint8)], 0.5, name=name), spots


def samples() -> list[tuple[nc.Slide, AnnData]]:
    return [sample("A1", 0), sample("B1", 2)]


#: Of runs in the present folder, since files hold no absolute path.
TRAINING = nc.TrainingSettings(
    backbone="tiny", weights="none", patch=PatchSpec(SIDE, 0.5), hidden=4, n_programs=1, max_epochs=2, batch_size=10,
    composition_weight=1.0, device="cpu", precision="float32", validation="none", augment=False, patch_cache="cache",
)  # fmt: skip
#: Of a network that does not learn, the features are kept beside the patches.
FROZEN = TRAINING.replace(backbone="frozen", encoder="tiny", encoder_weights="none")
MAPPING = nc.MappingSettings(
    device="cpu", precision="float32", cache_dir="cache/maps",
    tissue=nc.TissueSettings(mpp=2.0, min_area_um2=100.0, max_hole_um2=100.0),
)  # fmt: skip
EVALUATION = nc.EvaluationSettings(ceiling_repeats=1, precision="float32")


def write() -> None:
    """Write a model, maps, prototypes, a run to be resumed, folds and caches into the present folder."""

    def interrupt(_row: object) -> None:
        raise KeyboardInterrupt

    protos, pairs = prototypes(), samples()
    protos.save("prototypes.h5ad")
    nc.train(pairs, protos, TRAINING, "run", progress=False, on_epoch=interrupt)
    model = nc.train(pairs, protos, FROZEN, "frozen", progress=False)
    nc.predict_map(pairs[0][0], model, settings=MAPPING).save("map.zarr")
    one = TRAINING.replace(max_epochs=1)
    nc.cross_validate(pairs, protos, one, out="folds", evaluation=EVALUATION, progress=False)
    store = FeatureStore(FEATURES.shape[1], Path("cache/features/0123456789abcdef0123456789abcdef"))
    store.add(KEYS, FEATURES)
    store.flush()


if __name__ == "__main__":
    for registry, entry in REGISTERED:
        registry["tiny"] = entry
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write()
        for picture in Path().rglob("*.png"):
            picture.unlink()  # nothing opens them again, and they are large
        shutil.make_archive(str(Path(__file__).with_name(nc.__version__)), "zip")
