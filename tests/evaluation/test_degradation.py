from __future__ import annotations

import numpy as np
import pytest
from recordings import SAID_S, spoken

from vqcodec.errors import VqcodecError
from vqcodec.evaluation.degradation import check_condition, degrade, turned_up
from vqcodec.evaluation.quality import SAMPLE_RATE

CONDITIONS = ["noise-10", "noise--5", "babble-0", "room", "telephone", "dc", "quiet"]


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return spoken("rms", 0.0, SAID_S)


def in_condition(speech: np.ndarray, condition: str, seed: str = "a") -> np.ndarray:
    others = [spoken("slt"), spoken("espeak", 0.0, 1.0)]
    return degrade(speech, condition, seed, others if "babble" in condition else ())


def power_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.square(samples, dtype=np.float64).mean()))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_recording_has_a_condition_of_its_own_and_always_the_same(
    speech: np.ndarray, condition: str
) -> None:
    check_condition(condition)
    found = in_condition(speech, condition)
    assert found.dtype == np.float32
    assert found.shape == speech.shape
    assert np.array_equal(found, in_condition(speech, condition))
    assert not np.array_equal(found, speech)
    is_drawn = condition not in ("telephone", "dc", "quiet")
    assert is_drawn != np.array_equal(found, in_condition(speech, condition, "b"))


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("n_samples", [1, 7, 300])
def test_a_short_clip_and_silence_are_no_fault(condition: str, n_samples: int) -> None:
    for clip in (np.zeros(n_samples, np.float32), np.full(n_samples, 0.1, np.float32)):
        found = in_condition(clip, condition)
        assert found.shape == clip.shape
        assert np.isfinite(found).all()


@pytest.mark.parametrize("condition", ["noise-10", "noise--5", "babble-0"])
def test_noise_is_so_much_softer_than_speech(speech: np.ndarray, condition: str) -> None:
    noise = in_condition(speech, condition) - speech
    ratio = float(condition.partition("-")[2])
    assert power_db(speech) - power_db(noise) == pytest.approx(ratio, abs=0.01)


def test_noise_is_pink(speech: np.ndarray) -> None:
    noise = in_condition(speech, "noise-10") - speech
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    frequencies = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    octaves = [
        10 * np.log10(spectrum[(frequencies >= low) & (frequencies < 2 * low)].sum())
        for low in (125, 250, 500, 1000, 2000)
    ]
    assert np.ptp(octaves) < 2


def test_a_room_decays_by_60_db_in_half_a_second() -> None:
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[0] = 1
    heard = in_condition(click, "room")
    assert heard[0] == pytest.approx(1)
    assert power_db(heard[1:]) == pytest.approx(power_db(click), abs=0.1)  # as loud as the direct
    early, late = heard[800:1600], heard[4800:5600]  # a quarter of a second apart
    assert power_db(early) - power_db(late) == pytest.approx(30, abs=2)
    assert not heard[8000:].any() or np.abs(heard[8000:]).max() < 1e-6


def test_a_telephone_has_its_band_and_its_levels(speech: np.ndarray) -> None:
    heard = in_condition(speech, "telephone")
    spectra = [np.abs(np.fft.rfft(each)) ** 2 for each in (speech, heard)]
    frequencies = np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE)

    def change_db(low: float, high: float) -> float:
        band = (frequencies >= low) & (frequencies < high)
        return float(10 * np.log10(spectra[1][band].sum() / spectra[0][band].sum()))

    assert change_db(400, 3300) == pytest.approx(0, abs=0.2)
    assert change_db(50, 250) < -15
    assert change_db(4200, 7500) < -15


def test_an_offset_and_a_level_are_as_they_are_told(speech: np.ndarray) -> None:
    assert np.mean(in_condition(speech, "dc") - speech) == pytest.approx(0.1, abs=1e-4)
    quiet = in_condition(speech, "quiet")
    assert power_db(quiet) - power_db(speech) == pytest.approx(-40, abs=0.3)
    assert np.array_equal(quiet, np.round(quiet * 32768) / 32768)
    louder = turned_up(quiet, "quiet")
    assert power_db(louder) == pytest.approx(power_db(speech), abs=0.3)
    assert turned_up(quiet, "dc") is quiet


@pytest.mark.parametrize("name", ["noise", "noise-", "noise-x", "hall", "clean", "room-1", ""])
def test_an_unknown_condition_is_refused(name: str) -> None:
    with pytest.raises(VqcodecError, match=rf"^{name}: no such condition; use noise-DB"):
        check_condition(name)
