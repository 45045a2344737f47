from __future__ import annotations

import pytest
import torch

from vqcodec.errors import ConfigError
from vqcodec.models.config import IstftDecoderConfig, ModelConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.istft import IstftDecoder
from vqcodec.models.receptive_field import STREAM_KERNEL_SIZE
from vqcodec.models.streams import build_streams

CONFIG = IstftDecoderConfig(channels=16, n_layers=1)


def make(stream_channels: dict[str, int]) -> IstftDecoder:
    torch.manual_seed(0)
    return IstftDecoder(CONFIG, 8, 64, 128, stream_channels).requires_grad_(False)


def test_a_stream_changes_nothing_until_it_is_trained_and_then_what_it_reaches() -> None:
    plain, decoder = make({}), make({"melody": 3})
    decoder.load_state_dict(plain.state_dict(), strict=False)
    latents, speaker = torch.randn(1, 8, 40), torch.randn(1, 64)
    melody = torch.randn(1, 3, 40)
    expected = plain(Condition(latents, speaker))
    told = Condition(latents, speaker, {"melody": melody, "unknown": melody})
    assert torch.equal(decoder(told), expected)

    decoder.streams.convolutions["melody"].weight.fill_(0.1)
    assert torch.equal(decoder(Condition(latents, speaker)), expected)  # zeros are no news
    before, after = decoder.context
    assert (before, after) == tuple(n + STREAM_KERNEL_SIZE // 2 for n in plain.context)
    other = melody.clone()
    other[..., 20] += 1
    moved = decoder(told) != decoder(Condition(latents, speaker, {"melody": other}))
    codes = moved[0].nonzero()[:, 0] // 128 - 20
    assert -after <= int(codes.min()) < 0 < int(codes.max()) <= before


def test_weights_of_a_model_without_streams_have_the_names_that_they_had() -> None:
    assert not [name for name in make({}).state_dict() if "stream" in name]
    assert "streams" not in ModelConfig().model_dump_json()


def test_only_streams_of_the_table_exist() -> None:
    with pytest.raises(
        ConfigError, match=r"model.streams rhythm: not among those there are \(none\)"
    ):
        build_streams(ModelConfig(streams=("rhythm",)))
