"""The pitch tracker: what it finds, and that it finds the same however a recording comes."""

from __future__ import annotations

import numpy as np
import pytest
from recordings import spoken

from vqcodec.audio.pitch_tracker import STEP, UNVOICED, contour, contour_blocks
from vqcodec.audio.recording import open_recording

HOP = 128


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Nine seconds at normalised level."""
    recording = open_recording(np.concatenate([spoken("slt"), spoken("rms")]), 16_000)
    return np.concatenate(list(recording.blocks(16_000, 1 << 16))) / np.float32(recording.gain())


def test_a_tone_is_heard_and_silence_is_not() -> None:
    time = np.arange(16_000) / 16_000
    tone = sum(0.05 / k * np.sin(2 * np.pi * 150 * k * time) for k in range(1, 8))
    heard = contour(np.concatenate([np.zeros(8_000), tone]).astype(np.float32), HOP)
    assert heard.shape == (188,)
    assert not heard[:50].any()
    assert np.exp(heard[75:180]) == pytest.approx(150, rel=0.02)


def test_speech_is_voiced_in_part(speech: np.ndarray) -> None:
    heard = contour(speech, HOP)
    voiced = heard != UNVOICED
    assert 0.3 < voiced.mean() < 0.9
    assert 80 < np.exp(np.median(heard[voiced])) < 250


@pytest.mark.parametrize("step", [25, 500, STEP])
@pytest.mark.parametrize("length", [160, 4001, 1 << 20])
def test_values_do_not_depend_on_how_a_recording_comes(
    speech: np.ndarray, step: int, length: int
) -> None:
    pieces = [speech[start : start + length] for start in range(0, len(speech), length)]
    blocks = list(contour_blocks(pieces, HOP, step=step))
    assert all(len(block) == step for block in blocks[:-1])
    assert np.array_equal(np.concatenate(blocks), contour(speech, HOP))


@pytest.mark.parametrize("n_samples", [1, 128, 129, 255, 257, 5_000, 63_999, 66_000])
@pytest.mark.parametrize("hop_length", [HOP, 640])
def test_there_is_a_value_for_each_hop(speech: np.ndarray, n_samples: int, hop_length: int) -> None:
    assert contour(speech[:n_samples], hop_length).shape == (-(-n_samples // hop_length),)


def test_a_block_is_known_192_ms_after_its_end(speech: np.ndarray) -> None:
    fed = 0

    def live() -> np.ndarray:
        nonlocal fed
        for start in range(0, 48_000, 160):
            fed = start + 160
            yield speech[start:fed]

    blocks = contour_blocks(live(), HOP, step=25)
    for number in range(1, 10):
        next(blocks)
        assert fed <= 25 * number * HOP + 16 * 192 + 160
