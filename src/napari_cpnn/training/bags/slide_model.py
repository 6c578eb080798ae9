"""Models of slides: what predicts the expression of a bag, whatever head it has, and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CheckpointError, CpnnError, SettingsError
from napari_cpnn.models import CPNN, StandardisedEncoder, checked_names, load_model, require_whole_file, save_model
from napari_cpnn.settings import SlideLevelSettings
from napari_cpnn.storage import staged
from napari_cpnn.training.bags.cell_heads import CellMlp
from napari_cpnn.training.bags.networks import AttentionPool, BagNetwork, MeanPool, PaperCpnn, predict_network
from napari_cpnn.untrusted import parse_json, reading, reason_of, require_memory, to_path

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.training.bags.bags import Bags

#: Key of the card of a network without a map in the metadata of its file.
_KEY = "napari_cpnn_slide_head"
#: Head of sCellST's network, whose bags are cells of a spot.
CELL_HEAD = "cell-mlp"
#: Name prefix of the scale of the encoder's features.
_ENCODER = "encoder."
#: Name of the exponent of the nuclear area in the card of a model of cells.
EXPONENT = "content_exponent"


@dataclass(frozen=True, eq=False)
class SlideModel:
    """A trained model of slides.

    Attributes
    ----------
    model
        CPNN with a frozen encoder, for heads ``"cpnn"`` and ``"ridge"``: it maps slides, too, and for other heads holds
        the encoder.
    network
        Network of bags of the other heads, or None.
    genes
        Names of the G genes.
    head
        A key of ``SLIDE_HEADS``, or ``"cell-mlp"``.

    Examples
    --------
    >>> from napari_cpnn.training.bags import SlideModel
    >>> SlideModel(model, None, model.genes, "cpnn").head
    'cpnn'
    """

    model: CPNN
    network: BagNetwork | None
    genes: tuple[str, ...]
    head: str

    def predict(self, bags: Bags) -> FloatArray:
        """Predict expression ``(S, G)`` of bags, log1p CP10k, from all patches; ``bags`` hold raw encoder features."""
        if self.network is not None:
            return predict_network(self.network, self._seen(bags))
        weights, programs = self._means(bags)
        values = self.model.decoder().expression(weights, programs, self.genes)
        return np.asarray(values, dtype=np.float64)

    def composition(self, bags: Bags) -> pd.DataFrame:
        """Mean weights ``(S, C)`` of bags: shares of RNA of the cell types.

        Raises
        ------
        SettingsError
            If the head has no cell types.
        """
        import pandas as pd

        if self.network is not None or not self.model.cell_types:
            raise SettingsError(f"The head {self.head!r} has no cell types.")
        weights, _ = self._means(bags)
        return pd.DataFrame(weights, index=bags.names.tolist(), columns=list(self.model.cell_types))

    def save(self, path: str | Path) -> None:
        """Write the model to a ``.safetensors`` file, which appears when it is complete.

        Models of the heads cpnn and ridge are model files as all others; those of other heads are read by
        :func:`load_slide_model` only.
        """
        path = to_path(path, CheckpointError)
        if self.network is None:
            save_model(self.model, path)
            return
        from safetensors.torch import save

        state = {name: t.detach().cpu().contiguous() for name, t in self.network.state_dict().items()}
        if isinstance(self.model.backbone, StandardisedEncoder):  # the scale of its features, not its weights
            scale = {"center": self.model.backbone.center, "spread": self.model.backbone.spread}
            state |= {f"{_ENCODER}{name}": t.detach().cpu().contiguous() for name, t in scale.items()}
        card = {
            "head": self.head, "genes": list(self.genes), "settings": self.model.provenance.get("slide_level", {}),
            "n_features": self.model.n_own_features,
        }  # fmt: skip
        content = save(state, {_KEY: json.dumps(card)})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with staged(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise CheckpointError(f"The model cannot be written to {path}: {error.strerror or error}.") from error

    def _seen(self, bags: Bags) -> Bags:
        with torch.no_grad():
            views = self.model.views(torch.from_numpy(bags.features))[0]
        return replace(bags, features=views.float().numpy())

    @property
    def exponent(self) -> float | None:
        """Exponent of the nuclear area by which cells count in their spot; None if all count alike."""
        known: float | None = self.model.provenance.get(EXPONENT)
        return known

    def _means(self, bags: Bags) -> tuple[FloatArray, FloatArray]:
        weights, programs = [], []
        self.model.eval()
        if self.exponent is not None and bags.log_areas is None:
            raise SettingsError(
                "This model weighs cells by their nuclear area, and the bags have none; read the spots with "
                "rna_content 'area'."
            )
        with torch.no_grad():
            for i in range(len(bags)):
                w, z = (v.double() for v in self.model.head_outputs(self.model.views(torch.from_numpy(bags.bag(i)))[0]))
                if self.exponent is None or bags.log_areas is None:
                    mean_w, mean_z = w.mean(dim=0), z.mean(dim=0)
                else:
                    areas = torch.from_numpy(bags.log_areas[bags.starts[i] : bags.starts[i + 1]]).double()
                    content = (self.exponent * areas).softmax(dim=0)  # adds up to 1
                    mean_w, mean_z = content @ w, content @ z
                weights.append(mean_w.numpy())
                programs.append(mean_z.numpy())
        return np.stack(weights), np.stack(programs)


def load_slide_model(path: str | Path, encoder_weights: str | None = None) -> SlideModel:
    """Load a model that :meth:`SlideModel.save` wrote, or any model with a frozen encoder.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or no model.
    """
    path = to_path(path, CheckpointError)
    metadata = require_whole_file(path) if path.is_file() else {}
    if _KEY not in metadata:
        model = load_model(path, encoder_weights)
        return SlideModel(model, None, model.genes, "ridge" if model.spec.head == "linear" else "cpnn")
    with reading(path, CheckpointError, "get the file again"):
        return _load_network(path, parse_json(metadata[_KEY], path, CheckpointError), encoder_weights)


def _load_network(path: Path, card: dict[str, Any], encoder_weights: str | None) -> SlideModel:
    from safetensors.torch import load_file

    from napari_cpnn.training.bags.features import BagReader

    try:
        head, genes = str(card["head"]), checked_names(card["genes"], "its genes")
        settings = SlideLevelSettings.from_dict(card["settings"])
        require_memory(2 * path.stat().st_size, path, CheckpointError)
        state = load_file(path)
        if encoder_weights:
            settings = settings.replace(encoder_weights=encoder_weights)
        n_features = int(card["n_features"])
        network: BagNetwork
        if head == "paper":
            network = PaperCpnn(n_features, torch.ones_like(state["initial"]))
        elif head == CELL_HEAD:
            network = CellMlp(n_features, len(genes))
        elif head in ("mlp", "abmil"):
            kind = MeanPool if head == "mlp" else AttentionPool
            network = kind(n_features, len(genes), settings.hidden)
        else:
            raise SettingsError(f"there is no head {head[:40]!r}")
        scale = {name.removeprefix(_ENCODER): t for name, t in state.items() if name.startswith(_ENCODER)}
        network.load_state_dict({name: t for name, t in state.items() if not name.startswith(_ENCODER)})
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, CpnnError) as error:
        raise CheckpointError(f"{path} is damaged: {reason_of(error)}; get the file again.") from error
    model = BagReader(settings).model
    if isinstance(model.backbone, StandardisedEncoder):
        model.backbone.center.copy_(scale["center"])
        model.backbone.spread.copy_(scale["spread"])
    return SlideModel(model, network.eval(), genes, head)
