"""The named voices of a finished model: one mean vector per training speaker."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import torch

from vqcodec.data.clips import AudioClips, Clip
from vqcodec.data.dataset import speaker_names
from vqcodec.data.stream_tracks import StreamTracks
from vqcodec.models.pitch import mean_log_f0
from vqcodec.models.speaker import SpeakerTable
from vqcodec.models.speaker_vector import mean_vector, to_int8
from vqcodec.models.vqvae import VQVAE

MAX_CLIPS, MIN_CLIPS = 30, 8
MIN_SECONDS = 30.0
# Of a clip: the mel spectrogram needs a window's worth, and hours would not fit in memory.
SHORTEST_S, LONGEST_S = 0.5, 30.0


@torch.no_grad()
def mean_voices(model: VQVAE, data: AudioClips, device: torch.device) -> dict[str, np.ndarray]:
    """Vectors, (64,) int8, of the training speakers that are heard enough to be named.

    A speaker needs 8 training clips, or half a minute of audio; with a speaker table every row
    is a voice.
    """
    clips = data.split("train")
    if isinstance(model.speaker, SpeakerTable):
        rows = torch.arange(len(speaker_names(clips)), device=device)
        vectors = model.speaker(rows)
        return {
            name: to_int8(vector.cpu().numpy())
            for name, vector in zip(speaker_names(clips), vectors, strict=True)
        }
    by_speaker: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_speaker[clip.speaker].append(clip)
    voices = {}
    for name, own in sorted(by_speaker.items()):
        seconds = sum(clip.n_samples for clip in own) / data.sample_rate
        if len(own) < MIN_CLIPS and seconds < MIN_SECONDS:
            continue
        vectors = [
            model.speaker(torch.from_numpy(_beginning(data, clip))[None].to(device))[0]
            for clip in own[:MAX_CLIPS]
        ]
        voices[name] = mean_vector(torch.stack(vectors).cpu().numpy())
    return voices


def mean_pitches(data: AudioClips, tracks: StreamTracks | None) -> dict[str, float]:
    """Mean fundamental frequency in Hz of the training speakers, of whom anything is voiced."""
    if tracks is None or "pitch" not in tracks.values:
        return {}
    contours: dict[str, list[np.ndarray]] = defaultdict(list)
    for clip in data.split("train"):
        start, end = tracks.spans[clip.name]
        contours[clip.speaker].append(tracks.values["pitch"][start:end])
    joined = {name: np.concatenate(own) for name, own in contours.items()}
    return {name: round(math.exp(mean_log_f0(own)), 1) for name, own in joined.items() if own.any()}


def _beginning(data: AudioClips, clip: Clip) -> np.ndarray:
    samples = data.read(clip, 0, round(LONGEST_S * data.sample_rate))
    missing = round(SHORTEST_S * data.sample_rate) - len(samples)
    return np.pad(samples, (0, max(0, missing)))
