"""What a notebook shows: names to complete, and one line for each thing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vqcodec
from vqcodec.errors import CodesError
from vqcodec.format.codes import Codes

CODES = Path(__file__).parents[1] / "samples" / "rms.codes"


def test_names_can_be_completed_without_torch() -> None:
    program = "import sys, vqcodec; print(*dir(vqcodec)); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert set(vqcodec.__all__) <= set(done.stdout.split())


def test_a_codec_says_what_it_is(tiny_model: Path) -> None:
    assert repr(vqcodec.load(tiny_model, device="cpu")) == (
        "<Codec tiny: 16000 Hz, 125 codes/s of 9 bits, fast and wavenet decoder, 2 voices, cpu>"
    )


def test_codes_say_what_they_are(tiny_model: Path) -> None:
    codes = Codes.load(CODES)
    told = f"<Codes of 5.09 s: {codes.n_codes} codes of 11 bits and their pitch, a voice of their "
    assert repr(codes) == f"{told}own, model speech-1k>"
    codec = vqcodec.load(tiny_model, device="cpu")
    assert repr(codec.codes([1, 2, 3], speaker="p225")) == (
        f"<Codes of 0.02 s: 3 codes of 9 bits, speaker p225, model {codec.fingerprint.hex()}>"
    )


def test_a_list_of_codes_is_decoded_to_a_list(tiny_model: Path) -> None:
    codec = vqcodec.load(tiny_model, device="cpu")
    made = [codec.codes(units, speaker="p225") for units in ([1, 2, 3], [4, 5])]
    for given in (made, tuple(made)):
        decoded = codec.decode(given, speaker="anna")
        assert isinstance(decoded, list)
        for codes, samples in zip(made, decoded, strict=True):
            np.testing.assert_array_equal(samples, codec.decode(codes, speaker="anna"))
    assert codec.decode([]) == []


def test_what_are_no_codes_is_refused_with_what_makes_them(tiny_model: Path) -> None:
    codec = vqcodec.load(tiny_model, device="cpu")
    for thing, kind in ((str(CODES), "str"), (np.zeros((1, 3), int), "ndarray")):
        with pytest.raises(CodesError, match=f"no codes but {kind}: read a file .* codec.codes"):
            codec.decode(thing)
    with pytest.raises(CodesError, match=r"Codes need codebook_size, .* makes them"):
        Codes(np.zeros((1, 3), int))
    with pytest.raises(CodesError, match="Codes need codes, "):
        Codes(codebook_size=512)
