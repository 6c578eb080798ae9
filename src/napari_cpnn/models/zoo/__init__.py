"""Trained models by name: those of the package, and those that can be downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_cpnn.errors import CheckpointError
from napari_cpnn.models.backbones.sources import WeightsSource
from napari_cpnn.storage import cache_folder


@dataclass(frozen=True)
class ZooModel:
    """A trained model with a name.

    Parameters
    ----------
    name
        Name for ``load_model`` and ``--model``.
    tissue
        Tissue that it is for.
    licence
        Licence of the file.
    source
        The file: a bare name is a file of this package, an address is downloaded once and checked.
    sample
        The sample slide that the model is for; where models are offered, it comes after those for any slide.
    """

    name: str
    tissue: str
    licence: str
    source: WeightsSource
    sample: str = ""

    @property
    def path(self) -> Path:
        """Place of the file, which need not be there yet if it is to be downloaded."""
        folder = Path(__file__).parent if self.source.is_packaged else cache_folder() / "models"
        return folder / self.source.file_name


_BREAST = "BSD-3-Clause; trained on data under CC BY 4.0 (Andersson et al. 2021; Wu et al. 2021)"

#: Models by name.
ZOO: dict[str, ZooModel] = {
    model.name: model
    for model in (
        ZooModel("breast-her2st", "HER2-positive breast cancer", _BREAST, WeightsSource("breast-her2st.safetensors")),
        ZooModel(
            "breast-her2st-without-c4",
            "HER2-positive breast cancer",
            _BREAST,
            WeightsSource("breast-her2st-without-c4.safetensors"),
            sample="C4",
        ),
    )
}


def model_file(name: str | Path) -> Path:
    """Return the file of a model, given its path or its name in `ZOO`; a file of that name comes first.

    Raises
    ------
    CheckpointError
        If there is no such file or name, or the named model cannot be downloaded or arrives damaged.
    """
    path = Path(name)
    model = ZOO.get(str(name))
    if model is None and path.name == str(name) and not path.suffix and not path.exists():
        raise CheckpointError(f"There is no model file {name}, and no model of that name; known are {', '.join(ZOO)}.")
    if model is None or path.is_file():
        return path
    return model.path if model.source.is_packaged else _downloaded(model)


def _downloaded(model: ZooModel) -> Path:
    if model.source.sha256 is None:
        raise CheckpointError(f"Model {model.name!r} has no published checksum, so it is not downloaded.")
    otherwise = "get the file by other means and give its path"
    return model.source.retrieve(model.path.parent, f"Model {model.name!r}", otherwise, CheckpointError)
