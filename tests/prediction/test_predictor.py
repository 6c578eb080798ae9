from __future__ import annotations

import numpy as np
import pytest
import torch

from fakes import ColorModel
from napari_cpnn.errors import MappingError
from napari_cpnn.models.devices import choose_device, choose_precision, is_out_of_memory
from napari_cpnn.prediction.predictor import Predictor

IMAGES = np.random.default_rng(0).integers(0, 255, (11, 32, 32, 3), dtype=np.uint8)


def test_predictions_are_those_of_the_model(model):
    weights, programs, _ = Predictor(model, "cpu", "float32").predict(IMAGES)
    with torch.no_grad():
        expected, z = model(model.normalize(torch.from_numpy(IMAGES)))
    np.testing.assert_allclose(weights, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(programs, z.numpy(), atol=1e-6)
    assert weights.dtype == programs.dtype == np.float32


def test_the_callers_model_is_left_alone(model):
    model.train()
    Predictor(model, "cpu", "float32")
    assert model.training


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_halving_gives_the_same_answer(model, limit):
    class Small(ColorModel):
        def forward(self, x):
            if len(x) > limit:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return super().forward(x)

    predictor = Predictor(Small().eval(), "cpu", "float32")
    weights = predictor.predict(IMAGES).weights
    expected, *_ = Predictor(model, "cpu", "float32").predict(IMAGES)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    # A model on a CPU is never given more than 8 at once.
    assert predictor.max_batch is None if limit == 8 else predictor.max_batch <= limit


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    class Broken(ColorModel):
        def forward(self, x):
            raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        Predictor(Broken().eval(), "cpu", "float32").predict(IMAGES)
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "meta", "cuda:x"])
def test_a_device_that_is_not_there_is_a_short_sentence(name):
    with pytest.raises(MappingError, match=r"cannot be used here|There is no device") as caught:
        choose_device(name)
    assert len(str(caught.value)) < 200


def test_device_and_precision_by_choice():
    assert choose_device("cpu").type == "cpu"
    assert choose_precision(torch.device("cpu"), "float32") == "float32"
    assert choose_precision(torch.device("cpu"), "bfloat16") == "bfloat16"
    assert choose_precision(torch.device("mps")) == "float32"


def test_bfloat16_is_close_to_float32_on_a_real_network():
    from napari_cpnn.models import build_model
    from napari_cpnn.settings import TrainingSettings

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    prototypes = rng.dirichlet(np.ones(30), 4).astype(np.float32)
    genes = [f"G{i}" for i in range(30)]
    chosen = TrainingSettings(backbone="squeezenet", weights="none", n_programs=2)
    model = build_model(chosen, genes, list("ABCD"), prototypes, np.ones(30, np.float32)).eval()
    images = rng.integers(0, 255, (4, 224, 224, 3), dtype=np.uint8)
    exact, *_ = Predictor(model, "cpu", "float32").predict(images)
    rough, *_ = Predictor(model, "cpu", "bfloat16").predict(images)
    np.testing.assert_allclose(rough, exact, atol=0.02)
    assert rough.dtype == np.float32
