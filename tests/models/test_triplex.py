from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_cpnn.errors import SettingsError
from napari_cpnn.models import CPNN, build_model, load_model, predict_symmetric, save_model
from napari_cpnn.models.backbones.squeezenet import SqueezeNetFeatures
from napari_cpnn.models.heads import _mlp
from napari_cpnn.models.triplex import (
    CENTER,
    SIDE,
    WIDTH,
    SlideTokens,
    Surroundings,
    Triplex,
    block_order,
    turned,
)
from napari_cpnn.models.triplex.attention import Attention, _attend_with_one, masking_bias
from napari_cpnn.models.triplex.encoders import GlobalEncoder, NeighbourEncoder, PositionEncoding
from napari_cpnn.settings import TrainingSettings

F = 12  # frozen features in these tests


class TinyNet(nn.Module):
    """An image network of one convolution."""

    n_features = F

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, F, 8, stride=8)

    def maps(self, images: Tensor) -> Tensor:
        return self.conv(images).relu()

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).mean(dim=(2, 3))


@pytest.fixture
def triplex() -> Triplex:
    torch.manual_seed(0)
    return Triplex(TinyNet(), TinyNet(), ((1.0,) * 3, (0.0,) * 3)).eval()


def lattice(rows: int, cols: int, spacing: float = 200.0) -> Tensor:
    return torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).float() * spacing


def surroundings(n: int, n_tokens: int = 20) -> Surroundings:
    tokens = SlideTokens(torch.randn(n_tokens, F), lattice(n_tokens // 5, 5), 200.0)
    present = torch.rand(n, SIDE * SIDE) > 0.3
    present[:, CENTER] = True
    return Surroundings(
        torch.randn(n, SIDE * SIDE, F), present, torch.rand(n, 2) * 800, torch.zeros(n, dtype=torch.long), [tokens]
    )


def test_attention_is_the_textbook_formula() -> None:
    torch.manual_seed(0)
    attention = Attention(width=8, heads=2, dropout=0.5).eval()
    queries, tokens = torch.randn(3, 4, 8), torch.randn(3, 6, 8)
    present = torch.rand(3, 6) > 0.4
    present[:, 0] = True
    got = attention(queries, tokens, masking_bias(present))
    q = queries @ attention.query.weight.T
    k, v = (tokens @ attention.key_value.weight.T).split(8, dim=-1)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        logits = q[..., h] @ k[..., h].transpose(1, 2) / 4**0.5
        logits[~present[:, None].expand_as(logits)] = -torch.inf
        heads.append(logits.softmax(dim=-1) @ v[..., h])
    expected = torch.cat(heads, dim=-1) @ attention.out.weight.T + attention.out.bias
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_a_single_query_takes_the_same_wherever_it_stands(masked: bool) -> None:
    """As torch's own attention to rounding, and unlike that to the bit in each row of a batch, on several threads."""
    torch.manual_seed(0)
    attention = Attention(width=512, heads=4, dropout=0.0).eval()
    queries, tokens = torch.randn(8, 1, 512), torch.randn(1, 49, 512).expand(8, -1, -1)
    bias = masking_bias(torch.rand(1, 49).expand(8, -1) > 0.3) if masked else None
    with torch.inference_mode():
        torch.testing.assert_close(attention(queries, tokens, bias), attention.train()(queries, tokens, bias))
        q, k, v = torch.randn(1, 4, 1, 128), torch.randn(1, 4, 49, 128), torch.randn(1, 4, 49, 128)
        taken = _attend_with_one(*(part.repeat(8, 1, 1, 1) for part in (q, k, v)), bias)
    assert len(torch.unique(taken, dim=0)) == 1


@pytest.mark.parametrize("learns", [True, False])
def test_the_position_encoding_is_a_convolution_on_a_square_array(learns: bool) -> None:
    torch.manual_seed(0)
    encoding = PositionEncoding(6).train(learns)
    nn.init.normal_(encoding.bias)
    picture = torch.randn(6, 5, 7)
    at = lattice(5, 7, 1.0)
    tokens = picture.flatten(1).T
    got = encoding(tokens, at, tokens, at)
    kernel = encoding.weight.T.reshape(6, 1, 3, 3)
    expected = nn.functional.conv2d(picture[None], kernel, encoding.bias, padding=1, groups=6)[0] + picture
    torch.testing.assert_close(got, expected.flatten(1).T)


@pytest.mark.parametrize("kind", ["hexagonal", "irregular"])
def test_the_position_encoding_takes_any_array(kind: str) -> None:
    torch.manual_seed(0)
    encoding = PositionEncoding(4)
    at = lattice(6, 6, 1.0)
    if kind == "hexagonal":
        at = torch.stack([at[:, 0] * 3**0.5 / 2, at[:, 1] + at[:, 0] % 2 / 2], dim=1)
    else:
        at = at + 0.3 * torch.randn_like(at)
    tokens = torch.randn(36, 4)
    got = encoding(tokens, at, tokens, at)
    expected = tokens + encoding.bias
    for i in range(36):  # by the definition: every tap, every token
        for tap, weight in zip(encoding.taps, encoding.weight, strict=True):
            overlap = (1 - (at - at[i] - tap).abs()).clamp(min=0).prod(dim=1)
            expected[i] = expected[i] + weight * (overlap[:, None] * tokens).sum(dim=0)
    torch.testing.assert_close(got, expected)
    moved = encoding(tokens, at + 3.7, tokens, at + 3.7)  # where the array lies on the slide does not matter
    torch.testing.assert_close(moved, got, rtol=1e-4, atol=1e-5)


def test_a_place_on_a_token_becomes_what_the_token_becomes() -> None:
    """As in TRIPLEX, where the spots are the tokens: written here as one sequence through all layers."""
    torch.manual_seed(0)
    encoder = GlobalEncoder(F, 32, heads=4).eval()
    features, at = torch.randn(30, F), lattice(5, 6, 1.0)
    got = encoder(features, at, encoder.encode(features, at), at)
    tokens = encoder.layers[0](encoder.embed(features)[None])
    tokens = encoder.position(tokens[0], at, tokens[0], at)[None]
    for layer in encoder.layers[1:]:
        tokens = layer(tokens)
    torch.testing.assert_close(got, encoder.norm(tokens[0]))


def test_the_order_of_tokens_and_places_does_not_matter(triplex: Triplex) -> None:
    torch.manual_seed(1)
    around, images = surroundings(6), torch.randn(6, 3, 64, 64)
    expected = triplex(images, around)
    shuffled = torch.randperm(20)
    tokens = around.slides[0]
    others = SlideTokens(tokens.features[shuffled], tokens.places_um[shuffled], 200.0)
    order = torch.randperm(6)
    again = Surroundings(
        around.neighbours[order], around.present[order], around.places_um[order], around.slide_of[order], [others]
    )
    torch.testing.assert_close(triplex(images[order], again), expected[order], rtol=1e-4, atol=1e-5)


def test_what_is_not_present_has_no_influence(triplex: Triplex) -> None:
    torch.manual_seed(1)
    around, images = surroundings(4), torch.randn(4, 3, 64, 64)
    elsewhere = around.neighbours.masked_fill(~around.present[..., None], torch.nan)
    other = Surroundings(elsewhere, around.present, around.places_um, around.slide_of, around.slides)
    torch.testing.assert_close(triplex(images, other), triplex(images, around))


def test_a_patch_without_neighbours_on_a_slide_of_one_token(triplex: Triplex) -> None:
    images = torch.randn(3, 3, 64, 64)
    around = Surroundings.alone(triplex.own_features(images))
    views = triplex.views(triplex.patch_features(images), around)
    assert all(view.shape == (3, WIDTH) and view.isfinite().all() for view in views)
    torch.testing.assert_close(
        views.fused[1:2], triplex(images[1:2], Surroundings.alone(triplex.own_features(images[1:2])))
    )


def test_patches_of_several_slides_see_their_own_only(triplex: Triplex) -> None:
    torch.manual_seed(2)
    first, second = surroundings(3), surroundings(2)
    both = Surroundings(
        torch.cat([first.neighbours, second.neighbours])[[3, 0, 1, 4, 2]],
        torch.cat([first.present, second.present])[[3, 0, 1, 4, 2]],
        torch.cat([first.places_um, second.places_um])[[3, 0, 1, 4, 2]],
        torch.tensor([1, 0, 0, 1, 0]),
        [first.slides[0], second.slides[0]],
    )
    torch.testing.assert_close(triplex.place(both)[[1, 2, 4]], triplex.place(first), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(triplex.place(both)[[0, 3]], triplex.place(second), rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter_that_learns(triplex: Triplex) -> None:
    triplex.train()
    assert not triplex.encoder.training
    views = triplex.views(triplex.patch_features(torch.randn(5, 3, 64, 64)), surroundings(5))
    sum((view * torch.randn_like(view)).sum() for view in views).backward()
    for name, parameter in triplex.named_parameters():
        if name.startswith("encoder."):
            assert not parameter.requires_grad, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_the_relative_bias_has_one_value_per_offset() -> None:
    encoder = NeighbourEncoder(F, 32, heads=4, side=SIDE)
    row, col = np.divmod(np.arange(SIDE * SIDE), SIDE)
    apart = list(zip((row[:, None] - row).ravel(), (col[:, None] - col).ravel(), strict=True))
    codes = encoder.offsets.numpy().ravel()
    assert len(set(codes)) == len(set(apart)) == (2 * SIDE - 1) ** 2
    assert len({(code, pair) for code, pair in zip(codes, apart, strict=True)}) == (2 * SIDE - 1) ** 2


@pytest.mark.parametrize("symmetry", range(8))
def test_the_block_turns_with_the_patch(symmetry: int) -> None:
    """A picture of 5 x 5 patches of 4 x 4 px, turned as a whole."""
    picture = torch.arange(20 * 20).view(1, 1, 20, 20).float()
    blocks = picture.unfold(2, 4, 4).unfold(3, 4, 4).reshape(25, 1, 4, 4)
    whole = turned(picture, symmetry).unfold(2, 4, 4).unfold(3, 4, 4).reshape(25, 1, 4, 4)
    assert torch.equal(turned(blocks[block_order(symmetry)], symmetry), whole)
    codes = torch.stack([turned(picture, s) for s in range(8)])
    assert len(torch.unique(codes.flatten(1), dim=0)) == 8


@pytest.mark.parametrize(("size", "n_tokens"), [(224, 49), (64, 9)])
def test_tokens_of_a_patch(size: int, n_tokens: int) -> None:
    """SqueezeNet has 13 x 13 maps at 224 px; TRIPLEX takes at most 7 x 7 tokens."""
    network = Triplex(SqueezeNetFeatures(), TinyNet(), ((1.0,) * 3, (0.0,) * 3))
    assert network.patch_features(torch.randn(2, 3, size, size)).shape == (2, n_tokens, 512)


def make_model(profiles: np.ndarray, mean_expression: np.ndarray, **changes: object) -> CPNN:
    settings = TrainingSettings(
        **{
            "backbone": "triplex",
            "weights": "none",
            "encoder": "squeezenet",
            "encoder_weights": "none",
            "target": "squeezenet",
            "context_pitch_um": 200.0,
            "n_programs": 3,
            "hidden": 16,
            **changes,
        }
    )
    return build_model(settings, [f"g{i}" for i in range(40)], ["a", "b", "c"], profiles, mean_expression).eval()


@pytest.mark.parametrize("head", ["cpnn", "linear"])
def test_a_patch_gets_the_same_numbers_whatever_its_batch(
    head: str, profiles: np.ndarray, mean_expression: np.ndarray, rng: np.random.Generator
) -> None:
    model = make_model(profiles, mean_expression, head=head, n_programs=3 if head == "cpnn" else 0)
    images = model.normalize(rng.integers(0, 256, (11, 64, 64, 3), dtype=np.uint8))
    with torch.inference_mode():
        frozen = model.features(images)
        tokens = SlideTokens(frozen, torch.rand(11, 2) * 1000, 200.0)
        around = Surroundings(
            frozen[torch.randint(11, (11, 25))], torch.ones(11, 25, dtype=torch.bool), tokens.places_um,
            torch.zeros(11, dtype=torch.long), [tokens],
        )  # fmt: skip
        together = model.predict(images, around)
        for rows in (torch.tensor([4]), torch.tensor([10, 4, 0]), torch.randperm(11)):
            apart = model.predict(images[rows], around[rows])
            for part, whole in zip(apart, together, strict=True):
                torch.testing.assert_close(part, whole[rows], rtol=1e-5, atol=1e-5, equal_nan=True)
        for part, whole in zip(model.predict(images, around), together, strict=True):
            assert torch.equal(part.nan_to_num(), whole.nan_to_num())
        torch.testing.assert_close(model(images[:1])[1], model(images)[1][:1], rtol=1e-4, atol=1e-4)
        symmetric = predict_symmetric(model, images[:2], around[:2])
        mirrored = predict_symmetric(model, turned(images[:2], 5), around[:2].turned(5))
    torch.testing.assert_close(symmetric.programs, mirrored.programs, rtol=1e-4, atol=1e-5)


def test_a_model_comes_back_from_its_file(
    tmp_path: Path, profiles: np.ndarray, mean_expression: np.ndarray, rng: np.random.Generator
) -> None:
    model = make_model(profiles, mean_expression)
    save_model(model, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    images = model.normalize(rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    assert again.needs_surroundings
    assert again.encoder_fingerprint == model.encoder_fingerprint
    assert again.features_fingerprint == model.encoder_fingerprint  # so kept features are found again
    assert torch.equal(model(images)[0], again(images)[0])


@pytest.mark.parametrize("hidden", [16, 32, 64])
@pytest.mark.parametrize("n_out", [1, 2, 3, 4, 25])
def test_a_head_says_the_same_wherever_a_patch_stands(n_out: int, hidden: int) -> None:
    torch.manual_seed(0)
    mlp = _mlp(64, hidden, n_out).eval()
    features = torch.randn(1, 64).expand(8, 64)
    with torch.inference_mode():
        rows = mlp(features)
        row = rows[0]
        torch.testing.assert_close(rows, row.expand_as(rows), rtol=1e-5, atol=1e-6)
        if n_out <= 3:  # summed by ourselves
            assert len(torch.unique(mlp[-1](torch.randn(1, hidden).expand(8, hidden)), dim=0)) == 1
        expected = torch.nn.functional.linear(mlp[:-1](features[:1]), mlp[-1].weight, mlp[-1].bias)[0]
    torch.testing.assert_close(row, expected)


@pytest.mark.parametrize("head", ["cpnn", "linear"])
def test_every_view_has_a_head(head: str, profiles: np.ndarray, mean_expression: np.ndarray) -> None:
    model = make_model(profiles, mean_expression, head=head, n_programs=3 if head == "cpnn" else 0)
    images = torch.randn(2, 3, 64, 64)
    views = model.views(model.patch_features(images), Surroundings.alone(model.features(images)))
    assert len(views) == 1 + len(model.view_heads) == 4
    for view, view_head in zip(views[1:], model.view_heads, strict=True):
        assert [len(part) for part in view_head(view)] == [2, 2]


def test_triplex_without_a_pitch_is_refused(profiles: np.ndarray, mean_expression: np.ndarray) -> None:
    with pytest.raises(SettingsError, match="context_pitch_um"):
        make_model(profiles, mean_expression, context_pitch_um=None)
