"""From a recording, block by block, to its codes and its speaker vector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from vqcodec import windows
from vqcodec.audio import Recording, resampled_length
from vqcodec.errors import SpeakerError
from vqcodec.models import encoder
from vqcodec.models.speaker import SpeakerTable, to_grid, to_int8
from vqcodec.models.vqvae import VQVAE

Progress = Callable[[float], None]

REFERENCE_SECONDS, MAX_REFERENCES = 4.0, 16


def codes_of(
    model: VQVAE,
    recording: Recording,
    *,
    gain: float,
    device: torch.device,
    on_progress: Progress | None = None,
) -> np.ndarray:
    """Encode.

    Args:
        model: on `device`.
        recording: of any rate.
        gain: of the recording.
        device: a CPU or a GPU.
        on_progress: called with the share done, in [0, 1].

    Returns:
        (Q, N) uint16.

    Raises:
        AudioError: the recording cannot be read.
    """
    sample_rate, hop_length = model.config.sample_rate, model.config.hop_length
    n_samples = resampled_length(recording.n_samples, recording.sample_rate, sample_rate)
    n_codes = -(-n_samples // hop_length)
    context = -(-encoder.receptive_field(model.config.encoder) // (2 * hop_length)) + 1
    blocks = (
        block / np.float32(gain)
        for block in recording.blocks(sample_rate, windows.LENGTH * hop_length)
    )

    def encode(item: tuple[np.ndarray, windows.Window]) -> np.ndarray:
        samples, window = item
        indices = model.encode(torch.from_numpy(samples)[None].to(device))
        return indices[0, :, window.start : window.end].cpu().numpy().astype(np.uint16)

    items = windows.cut(blocks, windows.windows(n_codes, context), hop_length)
    parts: list[np.ndarray] = []
    for part in windows.map_in_order(encode, items, device):
        parts.append(part)
        if on_progress:
            on_progress(len(parts) / -(-n_codes // windows.LENGTH))
    return np.concatenate(parts, axis=1)


def speaker_vector(
    model: VQVAE, recording: Recording, *, gain: float, device: torch.device
) -> np.ndarray:
    """Hear who speaks: the mean over the first pieces of a recording.

    Args:
        model: on `device`.
        recording: of any rate.
        gain: of the recording.
        device: a CPU or a GPU.

    Returns:
        (64,) int8.

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
    for piece in recording.blocks(sample_rate, length):
        if pieces and (len(piece) < length // 2 or len(pieces) == MAX_REFERENCES):
            break
        # The mel spectrogram needs a window's worth of samples.
        padded = np.pad(piece / np.float32(gain), (0, max(0, length // 8 - len(piece))))
        pieces.append(torch.from_numpy(padded)[None])

    @torch.no_grad()
    def vector(piece: torch.Tensor) -> torch.Tensor:
        heard: torch.Tensor = model.speaker(piece.to(device))
        return heard.cpu()

    vectors = list(windows.map_in_order(vector, pieces, device))
    return to_int8(to_grid(torch.stack(vectors).mean(0))[0])
