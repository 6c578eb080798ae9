"""Image networks on a CPU by OpenVINO, which is up to twice as fast there as torch (docs/performance.md).

Only the image networks are replaced; heads and everything after them stay as they are. Converting a network takes some
seconds, so that converted networks are kept in the user's cache.
"""

from __future__ import annotations

import copy
import io
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_cpnn.arrays import Float32Array
from napari_cpnn.errors import CpnnWarning, MappingError
from napari_cpnn.models.backbones.backbone import n_features_of
from napari_cpnn.models.backbones.build import weights_fingerprint
from napari_cpnn.models.backbones.frozen import FrozenEncoder
from napari_cpnn.models.backbones.side_by_side import Part, SideBySide
from napari_cpnn.models.cpnn import CPNN
from napari_cpnn.storage import folder_of, key_of, prune_kept, staged
from napari_cpnn.untrusted import reason_of

_LOG = logging.getLogger(__name__)

#: Method and shape of the input.
_Shaped = tuple[str, tuple[int, ...]]

_FILES = ("network.xml", "network.bin")
_KEPT_BYTES = 2**30


def compile_with_openvino(model: CPNN, bfloat16: bool = False, keep: bool = True) -> CPNN:
    """Copy ``model`` into a form whose image networks are computed by OpenVINO.

    Parameters
    ----------
    model
        The model; not modified.
    bfloat16
        Whether the networks are computed in bfloat16.
    keep
        Whether converted networks are kept in the user's cache.

    Returns
    -------
    CPNN
        In eval mode, for prediction on a CPU only.

    Raises
    ------
    MappingError
        If OpenVINO cannot compute a network.

    Examples
    --------
    >>> from napari_cpnn.models import compile_with_openvino
    >>> compile_with_openvino(model).genes == model.genes
    True
    """
    ready = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    backbone = ready.backbone_interface
    for name in backbone.image_networks:  # the transformers of TRIPLEX are not changed
        setattr(backbone, name, _replaced(getattr(backbone, name), "bf16" if bfloat16 else "f32", keep))
    if not isinstance(backbone, nn.Module):
        ready.backbone = backbone.network
    blank = torch.zeros(1, 3, model.patch.size_px, model.patch.size_px)
    with torch.inference_mode():  # networks are compiled when they first see a picture
        ready.patch_features(blank)
        if backbone.own_network is not backbone.network:
            ready.features(blank)
    return ready


def quantize_with_openvino(model: CPNN, predict: Callable[[], object]) -> Callable[[], None]:
    """Compute the image networks of a model of :func:`compile_with_openvino` in int8 from now on.

    Parameters
    ----------
    model
        The compiled model.
    predict
        Predicts patches by which the ranges of the networks are chosen.

    Returns
    -------
    Function that takes it back.

    Raises
    ------
    MappingError
        If NNCF is not installed or cannot quantise a network.
    """
    networks = [module for module in model.modules() if isinstance(module, OpenVinoNetwork)]
    for network in networks:
        network.record()
    predict()
    steps = [network.quantize() for network in networks]

    def take_back() -> None:
        for step in steps:
            step()

    return take_back


def _replaced(network: nn.Module, precision: str, keep: bool) -> nn.Module:
    """Replace the encoders inside of a network; what has no weights is as fast as it is."""
    if isinstance(network, FrozenEncoder):
        network.encoder = _replaced(network.encoder, precision, keep)
    elif isinstance(network, SideBySide):
        for part in network.parts:
            _replaced(part, precision, keep)
    elif isinstance(network, Part):
        network.network = _replaced(network.network, precision, keep)
    elif any(True for _ in network.parameters()):
        return OpenVinoNetwork(network, precision, keep)
    return network


class OpenVinoNetwork(nn.Module):
    """Image network ``(N, 3, S, S)`` -> ``(N, F)`` float32, compiled when a shape of input is first seen.

    Parameters
    ----------
    network
        In eval mode, on the CPU.
    precision
        ``"f32"`` or ``"bf16"``.
    keep
        Whether converted networks are kept in the user's cache.
    """

    def __init__(self, network: nn.Module, precision: str, keep: bool = True) -> None:
        super().__init__()
        self.n_features = n_features_of(network)
        self._network = [network]  # no submodule: its weights are not those of this module
        self._precision, self._keep = precision, keep
        self._compiled: dict[_Shaped, Any] = {}
        self._seen: dict[_Shaped, list[Float32Array]] | None = None  # inputs, while they are recorded
        self._lock = threading.Lock()  # requests are not for several threads

    def forward(self, images: Tensor) -> Tensor:
        return self._run("forward", images)

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps of the network."""
        return self._run("maps", images)

    def _run(self, method: str, images: Tensor) -> Tensor:
        # Without a copy where colours are innermost, as they are after CPNN.normalize.
        given = images.float().permute(0, 2, 3, 1).contiguous().numpy()
        with self._lock:
            key = method, tuple(images.shape)
            if key not in self._compiled:
                self._compiled[key] = self._compile(key)
            if self._seen is not None:
                self._seen.setdefault(key, []).append(given.transpose(0, 3, 1, 2).copy())
            (result,) = self._compiled[key].infer(given).values()
            return torch.from_numpy(result.copy())  # the next request overwrites it

    def record(self) -> None:
        """Keep what the network is given, for :meth:`quantize`."""
        self._seen = {}

    def quantize(self) -> Callable[[], None]:
        """Compute in int8 from now on, with ranges of the recorded pictures; return what takes that back."""
        seen, self._seen = self._seen or {}, None
        before = dict(self._compiled)
        self._compiled.update({key: self._compile(key, given) for key, given in seen.items()})
        return lambda: self._compiled.update(before)

    def _compile(self, key: _Shaped, ranges: Sequence[Float32Array] = ()) -> Any:
        ov = _openvino()
        network = self._network[0]
        settings = {
            "INFERENCE_PRECISION_HINT": self._precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        try:
            core = ov.Core()
            model = _colours_innermost(self._converted(core, key, ranges))
            return core.compile_model(model, "CPU", settings).create_infer_request()
        except Exception as error:  # whatever a converter meets in a network from elsewhere
            name = getattr(network, "architecture", type(network).__name__)
            raise MappingError(
                f"OpenVINO cannot compute {name}: {reason_of(error)}; choose the engine 'torch'."
            ) from error

    def _converted(self, core: Any, key: _Shaped, ranges: Sequence[Float32Array] = ()) -> Any:
        """Convert the network for one shape of input, in int8 if ranges are given, or take it from the cache."""
        network = self._network[0]
        facts = [type(network).__name__, *key, version("openvino"), weights_fingerprint(network.state_dict())]
        if ranges:
            facts.append(version("nncf"))
        entry = folder_of("engines") / key_of(facts, *ranges)
        if self._keep and entry.is_dir():
            with suppress(RuntimeError):  # damaged: converted again
                os.utime(entry)
                return core.read_model(entry / _FILES[0])
        model = _quantized(self._converted(core, key), ranges) if ranges else _convert(network, *key)
        if self._keep:
            _write(model, entry)
        return model


def _openvino(name: str = "openvino") -> Any:
    """Import OpenVINO or NNCF without telemetry, which would make an ID for the user and report each conversion."""
    if name not in sys.modules:
        kept = sys.modules.get("openvino_telemetry")
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as if it were not installed
        try:
            import_module(name)
        finally:
            sys.modules.pop("openvino_telemetry")
            if kept is not None:
                sys.modules["openvino_telemetry"] = kept
    return import_module(name)


def _colours_innermost(model: Any) -> Any:
    """Let a converted network take pictures ``(N, S, S, 3)``, which its first layer reads as quickly."""
    ov = _openvino()
    steps = ov.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    return steps.build()


def _quantized(model: Any, ranges: Sequence[Float32Array]) -> Any:
    """Post-training quantisation of weights and activations (NNCF), with the ranges that the pictures have."""
    _openvino()
    if find_spec("nncf") is None:
        raise MappingError('nncf is not installed; pip install "napari-cpnn[fast]"')
    nncf = _openvino("nncf")
    nncf.set_log_level(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # its bars
        _ignore_warnings_of_others()
        return nncf.quantize(
            model, nncf.Dataset(list(ranges)), subset_size=len(ranges), preset=nncf.QuantizationPreset.MIXED
        )


def _ignore_warnings_of_others() -> None:
    """Ignore warnings of other libraries; ours are kept, since filters are those of all threads."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", CpnnWarning)


def _convert(network: nn.Module, method: str, shape: tuple[int, ...]) -> Any:
    _openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.inference_mode(mode=False), torch.no_grad():
        _ignore_warnings_of_others()  # of tracing: shapes are constant
        module = _Method(network, method).eval()
        traced = torch.jit.trace(module, torch.zeros(shape), check_trace=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced)  # must live as long as the conversion
        front_end = FrontEndManager().load_by_framework("pytorch")
        model = front_end.convert(front_end.load(decoder))
    model.reshape(list(shape))
    return model


def _write(model: Any, entry: Path) -> None:
    """Keep a converted network; if that fails it is converted again next time."""
    ov = _openvino()
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with staged(entry) as unfinished:
            unfinished.mkdir()
            ov.save_model(model, unfinished / _FILES[0], compress_to_fp16=False)
        prune_kept(entry.parent, _KEPT_BYTES, re.compile("|".join(map(re.escape, _FILES))))
    except (OSError, RuntimeError) as error:
        _LOG.warning("The network converted for OpenVINO is not kept: %s", reason_of(error))


class _Method(nn.Module):
    """One method of a network as a module, which is what is converted."""

    def __init__(self, network: nn.Module, method: str) -> None:
        super().__init__()
        self.network, self._method = network, method

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = getattr(self.network, self._method)(images)
        return values
