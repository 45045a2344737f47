from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from vqcodec.models.config import IstftDecoderConfig, ModelConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.istft import IstftDecoder
from vqcodec.models.receptive_field import STREAM_KERNEL_SIZE
from vqcodec.models.streams import build_streams

CONFIG = IstftDecoderConfig(channels=16, n_layers=5, upsample=2)


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

    for inputs in decoder.streams.values():
        inputs.convolutions["melody"].weight.normal_()
    assert torch.equal(decoder(Condition(latents, speaker)), expected)  # zeros are no news
    silent = {"melody": torch.zeros(1, 3, 40)}
    assert torch.equal(decoder(Condition(latents, speaker, silent)), expected)
    before, after = decoder.context
    # In place of the kernel that latents pass.
    farther = STREAM_KERNEL_SIZE // 2 - CONFIG.kernel_size // 2
    assert (before, after) == tuple(n + farther for n in plain.context)
    other = melody.clone()
    other[..., 20] += 1
    moved = decoder(told) != decoder(Condition(latents, speaker, {"melody": other}))
    codes = moved[0].nonzero()[:, 0] // 128 - 20
    assert -after <= int(codes.min()) < 0 < int(codes.max()) <= before


def test_weights_of_a_model_without_streams_have_the_names_that_they_had() -> None:
    assert not [name for name in make({}).state_dict() if "stream" in name]
    assert "streams" not in ModelConfig().model_dump_json()


def test_streams_are_those_of_the_sections() -> None:
    assert not build_streams(ModelConfig())
    config = ModelConfig.model_validate({"pitch": {"step_cents": 25}})
    assert list(build_streams(config)) == ["pitch"]
    with pytest.raises(ValidationError, match="pitch is tracked at a sample_rate of 16000"):
        ModelConfig.model_validate({"pitch": {}, "sample_rate": 24000})


@torch.no_grad()
def test_a_chunk_with_its_context_decodes_to_the_bits_of_the_whole() -> None:
    decoder = make({"melody": 3})
    for inputs in decoder.streams.values():
        inputs.convolutions["melody"].weight.normal_()
    latents, speaker, melody = torch.randn(1, 8, 90), torch.randn(1, 64), torch.randn(1, 3, 90)
    whole = decoder(Condition(latents, speaker, {"melody": melody}))
    before, after = decoder.context
    first, last = 40 - before, 50 + after
    part = Condition(latents[..., first:last], speaker, {"melody": melody[..., first:last]})
    samples = slice(before * 128, (before + 10) * 128)
    assert torch.equal(decoder(part)[:, samples], whole[:, 40 * 128 : 50 * 128])
