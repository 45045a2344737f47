"""The transformer of a prior: what it sees, and how it begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_priors import SMALL, transformer

from vqcodec.models.code_transformer import CodeTransformer
from vqcodec.models.config import PriorConfig

N_CODES = 50  # several contexts


@pytest.fixture(scope="module")
def model() -> CodeTransformer:
    return transformer(SMALL, 16)


def sequence(model: CodeTransformer, batch_size: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    previous = torch.randint(0, model.codebook_size, (batch_size, N_CODES), generator=generator)
    previous[:, 0] = model.begin
    return previous, torch.randn(batch_size, 64, generator=generator)


@pytest.mark.parametrize("length", [1, 5, 12])
def test_pieces_with_a_cache_are_the_whole(model: CodeTransformer, length: int) -> None:
    previous, speaker = sequence(model)
    whole = model(previous, speaker)
    cache = model.cache(2)
    pieces = [model(piece, speaker, cache) for piece in previous.split(length, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-4, rtol=0)
    assert whole.std() > 0.1


def test_attention_is_that_of_the_textbook(model: CodeTransformer) -> None:
    """The first layer's attention, code by code, with rotations as 2 x 2 matrices."""
    layer: Any = model.layers[0]
    previous, speaker = sequence(model, batch_size=1)
    x = model.embedding(previous) + model.speaker(speaker)[:, None]
    query, key, value = (
        layer.projected(layer.attention_norm(x))[0].view(N_CODES, 3, 2, 16).unbind(1)
    )

    def turned(vector: torch.Tensor, position: int) -> torch.Tensor:
        pairs = vector.view(8, 2)
        angle = position * 10_000.0 ** (-torch.arange(8) / 8)
        cosine, sine = angle.cos(), angle.sin()
        return torch.stack(
            [pairs[:, 0] * cosine - pairs[:, 1] * sine, pairs[:, 0] * sine + pairs[:, 1] * cosine],
            dim=1,
        ).flatten()

    heard = torch.zeros(N_CODES, 2, 16)
    for at in range(N_CODES):
        window = range(max(at - SMALL.context + 1, 0), at + 1)
        for head in range(2):
            own = turned(query[at, head], at)
            scores = torch.stack([own @ turned(key[i, head], i) / 4 for i in window])
            heard[at, head] = scores.softmax(0) @ value[window.start : window.stop, head]
    x = x + layer.mixed(heard.flatten(1))
    expected = x + layer.narrowed(F.gelu(layer.widened(layer.feed_forward_norm(x))))
    rotation, mask = model._rotation(0, N_CODES), model._mask(0, N_CODES)
    start = model.embedding(previous) + model.speaker(speaker)[:, None]
    torch.testing.assert_close(layer(start, rotation, mask, None), expected, atol=1e-4, rtol=1e-4)


def test_a_code_depends_on_all_in_reach_and_on_nothing_else(model: CodeTransformer) -> None:
    previous, speaker = sequence(model, batch_size=1)
    changed = previous.clone()
    changed[0, 20] = (changed[0, 20] + 1) % 16
    difference = (model(changed, speaker) - model(previous, speaker)).abs().amax(-1)[0]
    reach = SMALL.n_layers * (SMALL.context - 1)
    assert (difference[:20] == 0).all()
    assert (difference[20 : 20 + reach + 1] > 0).all()
    assert (difference[20 + reach + 1 :] == 0).all()


def test_only_differences_of_positions_matter(model: CodeTransformer) -> None:
    previous, speaker = sequence(model)
    late = model.cache(2)
    late.position = 50_000_000  # four days
    late.n_kept = 0
    first = model(previous[:, :12], speaker, late)
    expected = model(previous[:, :12], speaker)
    torch.testing.assert_close(first, expected, atol=1e-4, rtol=0)


def test_the_speaker_matters(model: CodeTransformer) -> None:
    previous, speaker = sequence(model)
    assert not torch.allclose(model(previous, speaker), model(previous, -speaker), atol=1e-2)


def test_bits_are_those_of_one_pass(model: CodeTransformer) -> None:
    previous, speaker = sequence(model, batch_size=1)
    codes = torch.cat([previous[0, 1:], torch.tensor([3])])
    nats = F.cross_entropy(model(previous, speaker)[0], codes, reduction="none")
    torch.testing.assert_close(model.bits(codes, speaker[0]), nats / np.log(2), atol=1e-4, rtol=0)


def test_codes_alike_start_with_embeddings_alike() -> None:
    torch.manual_seed(0)
    made = CodeTransformer(PriorConfig(), 100).requires_grad_(False)
    plain_std = made.embedding.weight.std().item()
    latents = 3 + torch.randn(100, 16)
    latents[1] = latents[0] + 0.01
    begin = made.embedding.weight[100].clone()
    made.start_from(latents)
    distance = torch.cdist(made.embedding.weight[:100], made.embedding.weight[:100])
    assert distance[0, 1] < 0.05 * distance.mean()
    assert made.embedding.weight.std().item() == pytest.approx(plain_std, rel=0.3)
    assert torch.equal(made.embedding.weight[100], begin)


def test_the_default_is_small_enough_to_be_packaged() -> None:
    n_weights = sum(p.numel() for p in CodeTransformer(PriorConfig(), 512).parameters())
    assert 2 * n_weights < 8_000_000  # bytes, in half precision
