"""The engine that trains: the networks in PyTorch, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from vqcodec.inference import chunking
from vqcodec.inference.engines import NO_STREAMS, Encoded, EngineName, Streams
from vqcodec.inference.wavenet import LANES_PER_THREAD
from vqcodec.models import DecoderName
from vqcodec.models.interfaces import Condition, Decoder
from vqcodec.models.vqvae import VQVAE


class TorchEngine:
    """`Engine` of PyTorch.

    Args:
        model: in evaluation mode; it moves to the device.
        device: `cpu` or `cuda`.
    """

    name: EngineName = "torch"

    def __init__(self, model: VQVAE, device: str = "cpu") -> None:
        self.device, self.config = device, model.config
        self.model = model.to(device)
        if chunking.thread_count() == 1:
            torch.set_num_threads(1)  # torch may have come to a thread that computes alone

    @property
    def n_threads(self) -> int:
        return chunking.thread_count() if self.device == "cpu" else 1

    @property
    def n_lanes(self) -> int:
        return LANES_PER_THREAD * chunking.thread_count()

    @torch.no_grad()
    def encode_chunk(self, waveform: np.ndarray) -> Encoded:
        latents = self.model.norm(self.model.encoder(self.tensor(waveform)))
        return Encoded(*(part[0].cpu().numpy() for part in self.model.quantizer.margins(latents)))

    @torch.no_grad()
    def speaker_vector(self, reference: np.ndarray) -> np.ndarray:
        vector: np.ndarray = self.model.speaker(self.tensor(reference))[0].cpu().numpy()
        return vector

    def decoder_context(self, decoder: DecoderName) -> tuple[int, int]:
        return self._decoder(decoder).context

    @torch.no_grad()
    def decode_chunk(
        self,
        decoder: DecoderName,
        codes: np.ndarray,
        speaker: np.ndarray,
        streams: Streams = NO_STREAMS,
    ) -> np.ndarray:
        condition = self._condition(codes, speaker, streams)
        return run_decoder(self._decoder(decoder), condition)[0].cpu().numpy()

    @torch.no_grad()
    def wavenet_condition(
        self, codes: np.ndarray, speaker: np.ndarray, streams: Streams = NO_STREAMS
    ) -> np.ndarray:
        assert self.model.wavenet is not None
        condition = self._condition(codes, speaker, streams)
        told = self.model.wavenet.per_code(self.model.wavenet.informed(condition, self.model.fast))
        return told[0].cpu().numpy()

    @torch.no_grad()
    def sample(
        self,
        conditions: Sequence[np.ndarray],
        *,
        seeds: Sequence[Sequence[int]],
        temperature: float,
    ) -> list[np.ndarray]:
        wavenet = self.model.wavenet
        assert wavenet is not None
        # The samplers are imported here: numba takes a second, and only this decoder needs it.
        if self.device == "cpu":
            from vqcodec.inference.wavenet.cpu import sampled

            state = {name: tensor.numpy() for name, tensor in wavenet.state_dict().items()}
            return sampled(state, self.config, conditions, seeds=seeds, temperature=temperature)
        from vqcodec.inference.wavenet.graph import GraphSampler

        sampler = GraphSampler(wavenet, seeds=seeds, temperature=temperature)
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(one) for one in conditions], batch_first=True
        )
        waveforms = torch.cat(list(sampler.blocks(padded.to(self.device))), 1).cpu().numpy()
        hop_length = self.config.hop_length
        return [
            waveform[: len(one) * hop_length]
            for waveform, one in zip(waveforms, conditions, strict=True)
        ]

    def tensor(self, array: np.ndarray) -> Tensor:
        """An array as a batch of one, on the device."""
        return torch.from_numpy(array)[None].to(self.device)

    def _decoder(self, decoder: DecoderName) -> Decoder:
        return cast(Decoder, self.model.decoders[decoder])

    def _condition(self, codes: np.ndarray, speaker: np.ndarray, streams: Streams) -> Condition:
        return Condition(
            self.model.latents(self.tensor(codes.astype(np.int64))),
            self.tensor(speaker),
            {name: self.tensor(stream) for name, stream in streams.items()},
        )


def run_decoder(decoder: Decoder, condition: Condition) -> Tensor:
    """Run a parallel decoder in bfloat16 where that is the faster.

    Args:
        decoder: on the device of the condition.
        condition: of N codes.

    Returns:
        (B, N * hop_length) float32 at normalised level.
    """
    device = condition.latents.device
    with torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)):
        waveform = decoder(condition)
    return waveform.float()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32, being built for it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
