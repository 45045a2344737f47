"""The quantiser of pitch and what a decoder is told of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vqcodec.models.config import PitchConfig
from vqcodec.models.pitch import CENT, UNVOICED, PitchQuantizer, PitchStream, bent, mean_log_f0

MEAN = math.log(120.0)


def contour(n: int = 64) -> np.ndarray:
    """(n,) three semitones up and down about 120 Hz, silent in the middle third."""
    semitones = 3 * np.sin(np.arange(n) * (2 * np.pi / 32))
    log_f0 = MEAN + semitones * 100 * CENT
    log_f0[n // 3 : 2 * n // 3] = UNVOICED
    return log_f0.astype(np.float32)


@pytest.mark.parametrize("r", [1, 2, 4])
def test_a_contour_comes_back_within_half_a_step_and_what_pooling_costs(r: int) -> None:
    quantizer = PitchQuantizer(r, 64, 50)
    symbols = quantizer.encode(contour(), MEAN)
    back = quantizer.decode(symbols, MEAN, 64)
    both = (back != UNVOICED) & (contour() != UNVOICED)
    error = np.abs(back - contour())[both].max() / (100 * CENT)
    assert error < 0.3 + 0.35 * (r - 1)
    assert symbols.max() < 64
    assert ((back != UNVOICED) != (contour() != UNVOICED)).sum() <= r


def test_symbols_are_those_of_the_format() -> None:
    quantizer = PitchQuantizer(1, 64, 50)
    hertz = np.array([120.0, 240.0, 60.0, 120 * 2 ** (1 / 24), 5000.0, 2.0])
    log_f0 = np.append(np.log(hertz), UNVOICED).astype(np.float32)
    assert quantizer.encode(log_f0, MEAN).tolist() == [32, 56, 8, 33, 63, 1, 0]
    back = quantizer.decode(np.array([33, 0, 56], np.uint16), MEAN, 3)
    assert back == pytest.approx([math.log(120 * 2 ** (50 / 1200)), UNVOICED, math.log(240)])


def test_symbols_of_a_decoded_contour_are_the_same() -> None:
    quantizer = PitchQuantizer(1, 64, 50)
    symbols = quantizer.encode(contour(), MEAN)
    assert np.array_equal(quantizer.encode(quantizer.decode(symbols, MEAN, 64), MEAN), symbols)


def test_another_mean_moves_the_contour_and_no_symbol() -> None:
    quantizer = PitchQuantizer(4, 64, 50)
    symbols = quantizer.encode(contour(), MEAN)
    assert np.array_equal(quantizer.encode(bent(contour(), MEAN, MEAN + 1), MEAN + 1), symbols)
    higher = quantizer.decode(symbols, MEAN + 1, 64)
    assert higher == pytest.approx(
        bent(quantizer.decode(symbols, MEAN, 64), MEAN, MEAN + 1), abs=1e-5
    )


def test_codes_after_the_last_symbol_are_as_it_says() -> None:
    quantizer = PitchQuantizer(4, 64, 50)
    assert quantizer.encode(contour(11), MEAN).shape == (2,)
    assert quantizer.decode(np.array([0, 40], np.uint16), MEAN, 11)[8:].all()
    assert not quantizer.decode(np.array([40, 0], np.uint16), MEAN, 11)[8:].any()
    assert not quantizer.decode(np.zeros(0, np.uint16), MEAN, 3).any()


@pytest.mark.parametrize("r", [1, 2, 3, 4])
def test_no_later_symbol_changes_what_is_settled(r: int) -> None:
    quantizer, rng = PitchQuantizer(r, 64, 50), np.random.default_rng(r)
    symbols = rng.integers(0, 64, 30).astype(np.uint16)
    whole = quantizer.decode(symbols, MEAN, 30 * r)
    for n in range(1, 30):
        settled = quantizer.n_settled(n)
        part = quantizer.decode(symbols[:n], MEAN, n * r)
        assert np.array_equal(part[:settled], whole[:settled])
        assert settled >= (n - 1) * r


def test_bins_share_one_and_unvoiced_has_its_own() -> None:
    log_f0 = np.array([UNVOICED, math.log(30.0), math.log(100.0), math.log(900.0)], np.float32)
    features = PitchStream(PitchConfig()).features(np.stack([log_f0, log_f0]))
    assert features.shape == (2, PitchStream.channels, 4)
    assert features.dtype == np.float32
    assert features[0, :-1].sum(0) == pytest.approx([0, 1, 1, 1], abs=1e-5)
    assert features[1, -1].tolist() == [1, 0, 0, 0]
    assert (features[0, :-1, 2] > 0).sum() <= 2


def test_a_recording_is_stored_about_its_own_mean() -> None:
    stream = PitchStream(PitchConfig(codes_per_symbol=1))
    assert mean_log_f0(contour()) == pytest.approx(MEAN, abs=0.1)
    assert np.abs(stream.stored(contour()) - contour()).max() < 26 * CENT
    assert not stream.stored(np.zeros(5, np.float32)).any()


def test_a_stretch_of_0_is_monotone_and_of_2_moves_twice_as_far() -> None:
    voiced = contour() != UNVOICED
    flat, far = (bent(contour(), MEAN, 5.0, stretch) for stretch in (0.0, 2.0))
    assert np.array_equal(flat != UNVOICED, voiced)
    assert flat[voiced] == pytest.approx(5.0)
    assert far[voiced] - 5 == pytest.approx(2 * (contour()[voiced] - MEAN), abs=1e-5)
