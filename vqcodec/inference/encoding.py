"""From a recording, block by block, to its codes and its speaker vector."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from vqcodec.audio.analysis import MAX_REFERENCES, REFERENCE_SECONDS
from vqcodec.audio.offset import FRAME_SECONDS, frame_length, regroup, without_offset
from vqcodec.audio.recording import (
    Recording,
    array_frames,
    as_channels,
    mix,
    open_recording,
)
from vqcodec.audio.resampling import resample_blocks, resampled_length
from vqcodec.audio.soundfiles import checked_rate
from vqcodec.errors import AudioError, SpeakerError
from vqcodec.format.header import StreamMetadata
from vqcodec.format.streaming import Blocks
from vqcodec.inference import chunking
from vqcodec.models.receptive_field import encoder_context
from vqcodec.models.speaker import SpeakerTable, to_grid, to_int8
from vqcodec.models.vqvae import VQVAE

Progress = Callable[[float], None]

# Another chunk is another shape of matrix products, which moves a margin by some 1e-7.
DOUBT = 2e-5
LONGEST_PAUSE = 16.0  # seconds
SOUND_POWER = 1e-5  # mean square: -50 dB full scale


def code_blocks(
    model: VQVAE,
    blocks: Iterable[np.ndarray],
    device: torch.device,
    *,
    live: bool = False,
    distances: list[np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Encode.

    Args:
        model: on `device`.
        blocks: (T,) float32 at the model's rate and normalised level.
        device: a CPU or a GPU.
        live: in short chunks, each as soon as it is heard; the codes are the same.
        distances: gets those of every block of latents to their codes, (n,), squared: for
            `is_unlike_speech`.

    Yields:
        (Q, n) uint16.
    """
    hop_length, quantizer = model.config.hop_length, model.quantizer
    before, after = (-(-n // hop_length) for n in encoder_context(model.config.encoder))
    grid = chunking.chunks(
        blocks,
        # Codes without margins cannot be settled, so their chunks never move.
        length=chunking.LIVE_LENGTH if live and quantizer.has_margins else chunking.LENGTH,
        context=(before, after),
        step=hop_length,
    )

    @torch.no_grad()
    def encode(chunk: chunking.Chunk) -> tuple[np.ndarray, np.ndarray]:
        waveform = torch.from_numpy(chunk.data)[None].to(device)
        indices, margins, squares = quantizer.margins(model.norm(model.encoder(waveform)))
        for frame in (margins[0] < DOUBT).nonzero()[:, 0].tolist():
            if chunk.start <= frame < chunk.end:
                indices[0, :, frame] = settle(waveform, frame)
        span = slice(chunk.start, chunk.end)
        codes = indices[0, :, span].cpu().numpy().astype(np.uint16)
        return codes, squares[0, span].cpu().numpy()

    def settle(waveform: torch.Tensor, frame: int) -> torch.Tensor:
        """The code of a frame from just what it sees, wherever the chunk lay."""
        first = max(frame - before, 0)
        seen = waveform[:, first * hop_length : (frame + after + 1) * hop_length]
        return model.encode(seen)[0, :, frame - first]

    for codes, squares in chunking.map_in_order(encode, grid, device, live=live):
        if distances is not None:
            distances.append(squares)
        yield codes


def live_codes(
    model: VQVAE, blocks: Iterable[np.ndarray], metadata: StreamMetadata, device: torch.device
) -> Blocks:
    """Encode a recording while it is being made.

    Args:
        model: on `device`.
        blocks: (T,) float32 at the recording's own rate and level.
        metadata: of the recording.
        device: a CPU or a GPU.

    Returns:
        A generator as of a `CodesStream`.

    Raises:
        AudioError: the recording ends before it has begun.
    """
    n_samples, has_ended = 0, False

    def counted() -> Iterator[np.ndarray]:
        nonlocal n_samples, has_ended
        for block in blocks:
            n_samples += len(block)
            yield block
        has_ended = True

    rates = metadata.original_sample_rate, metadata.sample_rate
    centred = without_offset(counted(), metadata.original_sample_rate, metadata.gain)
    resampled = resample_blocks(
        centred, *rates, lambda: resampled_length(n_samples, *rates) if has_ended else None
    )
    normalised = (block / np.float32(metadata.gain) for block in resampled)
    yield from code_blocks(model, normalised, device, live=True)
    if not n_samples:
        raise AudioError("stream: holds no samples; record it again")
    return n_samples


def listened(
    blocks: Iterable[np.ndarray], sample_rate: int, *, hold: bool
) -> tuple[Iterator[np.ndarray], Recording]:
    """Mix a live recording to mono, and hold back its beginning if need be.

    A pause before the first word must fix neither the level nor the voice.

    Args:
        blocks: (T,) or (channels, T) samples, T free.
        sample_rate: in Hz.
        hold: hold back the recording until `REFERENCE_SECONDS` of sound have come, or
            `LONGEST_PAUSE` seconds, or its end.

    Returns:
        (T,) float32 blocks of the whole recording, and a recording of what was held back, from
        the first sound on: a moment of silence if there is none.

    Raises:
        AudioError: here or while iterating, a block is no audio.
    """
    name = "stream"
    frames = (frame for block in blocks for frame in array_frames(as_channels(block, name)))
    mono = mix(frames, name, checked_rate(name, sample_rate))
    mono, heard, centred = itertools.tee(mono, 3)
    length = frame_length(sample_rate)
    pairs = zip(regroup(heard, length), without_offset(centred, sample_rate, 0), strict=True)
    held: list[np.ndarray] = []
    n_silent, n_sound, seconds = 0, 0, 1 / FRAME_SECONDS
    while hold and n_sound < REFERENCE_SECONDS * seconds and len(held) < LONGEST_PAUSE * seconds:
        if (pair := next(pairs, None)) is None:
            n_silent = 0  # this is all, however soft
            break
        held.append(pair[0])
        n_sound += int(np.square(pair[1], dtype=np.float64).mean() > SOUND_POWER)
        if not n_sound:
            n_silent = len(held)
    beginning = np.concatenate([np.zeros(0, np.float32), *held[n_silent:]])
    if not len(beginning):
        beginning = np.zeros(1, np.float32)
    return mono, open_recording(beginning, sample_rate)


def speaker_vectors(
    model: VQVAE, recording: Recording, *, gain: float, device: torch.device
) -> torch.Tensor:
    """Hear who speaks in each of the first pieces of a recording.

    Args:
        model: on `device`.
        recording: of any rate.
        gain: of the recording.
        device: a CPU or a GPU.

    Returns:
        (n, 64) on the CPU, n from 1 to 16.

    Raises:
        AudioError: the recording cannot be read.
        SpeakerError: the model has only a table of speakers.
    """
    if isinstance(model.speaker, SpeakerTable):
        raise SpeakerError(
            f"{recording.name}: the model knows speakers only by name; "
            "say who speaks with --speaker"
        )
    sample_rate = model.config.sample_rate
    length = round(REFERENCE_SECONDS * sample_rate)
    pieces: list[torch.Tensor] = []
    for piece in recording.speech(sample_rate, length, gain):
        if pieces and (len(piece) < length // 2 or len(pieces) == MAX_REFERENCES):
            break
        # The mel spectrogram needs a window's worth of samples.
        padded = np.pad(piece / np.float32(gain), (0, max(0, length // 8 - len(piece))))
        pieces.append(torch.from_numpy(padded)[None])

    @torch.no_grad()
    def vector(piece: torch.Tensor) -> torch.Tensor:
        heard: torch.Tensor = model.speaker(piece.to(device))
        return heard.cpu()

    return torch.cat(list(chunking.map_in_order(vector, pieces, device)))


def mean_vector(vectors: torch.Tensor) -> np.ndarray:
    """Speaker vectors (n, 64) -> the stored form of their mean, (64,) int8."""
    return to_int8(to_grid(vectors.mean(0, keepdim=True))[0])
