"""Reference codecs, run through the command-line tools of Debian's packages codec2 and opus-tools.

And one that codes nothing, `narrowband`, which tells how much of their error is bandwidth.
Waveforms are float arrays of shape (T,), full scale 1, at 16 kHz.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import partial

import numpy as np
import soxr

from vqcodec.audio.writing import to_int16
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.external import Baseline, Coded, external_codec
from vqcodec.evaluation.quality import SAMPLE_RATE

CODEC2_MODES = ("3200", "2400", "1600", "1400", "1300", "1200", "700C", "450")

_NARROW_RATE = 8000
_CODEC2_FRAME_LENGTH = 320  # 40 ms; modes with frames of 20 ms divide it
_OPUS_BITRATES = range(6, 257)


def baseline(name: str) -> Baseline:
    """Find a reference codec by its name.

    That is `codec2-MODE`, such as `codec2-1200`, `opus-KBITS`, such as `opus-6`, `narrowband`, or
    NAME=ACTION of the user's (see `external.ExternalCodec`). Raises VqcodecError for any other.
    """
    if "=" in name:
        return external_codec(name)
    kind, _, setting = name.partition("-")
    if kind == "codec2" and setting in CODEC2_MODES:
        return partial(codec2, mode=setting)
    if kind == "opus" and setting.isdecimal() and int(setting) in _OPUS_BITRATES:
        return partial(opus, bitrate=int(setting))
    if name == "narrowband":
        return narrowband
    raise VqcodecError(
        f"{name}: no such reference codec; use codec2-MODE with a mode of "
        f"{' '.join(CODEC2_MODES)}, opus-KBITS with {_OPUS_BITRATES[0]} to {_OPUS_BITRATES[-1]}, "
        "narrowband, or a codec of your own as NAME=CODEC"
    )


def narrowband(waveform: np.ndarray) -> Coded:
    """The waveform at 8 kHz and 16 bits, as telephones have it and Codec 2 hears it."""
    narrow = soxr.resample(waveform, SAMPLE_RATE, _NARROW_RATE)
    return Coded(soxr.resample(narrow, _NARROW_RATE, SAMPLE_RATE), 2 * len(narrow))


def codec2(waveform: np.ndarray, *, mode: str) -> Coded:
    """Codec 2 (Rowe 2010), resampled to its 8 kHz and back; its bytes are the bare stream.

    The last frame is padded with silence. Modes 1300, 700C and 450 take 1400, 800 and 600 bit/s:
    c2enc fills the last byte of every frame. Raises VqcodecError if c2enc or c2dec is not
    installed, or fails.
    """
    narrow = soxr.resample(waveform, SAMPLE_RATE, _NARROW_RATE)
    narrow = np.pad(narrow, (0, -len(narrow) % _CODEC2_FRAME_LENGTH))
    coded = _run(["c2enc", mode, "-", "-"], to_int16(narrow).tobytes(), package="codec2")
    decoded = _from_pcm(_run(["c2dec", mode, "-", "-"], coded, package="codec2"))
    return Coded(soxr.resample(decoded, _NARROW_RATE, SAMPLE_RATE), len(coded))


def opus(waveform: np.ndarray, *, bitrate: int) -> Coded:
    """Opus (RFC 6716) at variable bit rate; its bytes are the .opus file, Ogg container included.

    Comments, and the padding that opusenc adds for later ones, are left out. `bitrate` is in
    kbit/s, 6 to 256; what speech takes may be more or less. Raises VqcodecError if opusenc or
    opusdec is not installed, or fails.
    """
    encode = (
        f"opusenc --quiet --raw --raw-rate {SAMPLE_RATE} --raw-chan 1 --bitrate {bitrate} "
        "--padding 0 --discard-comments - -"
    )
    decode = f"opusdec --quiet --rate {SAMPLE_RATE} --no-dither - -"
    coded = _run(encode.split(), to_int16(waveform).tobytes(), package="opus-tools")
    return Coded(_from_pcm(_run(decode.split(), coded, package="opus-tools")), len(coded))


def _run(command: Sequence[str], data: bytes, *, package: str) -> bytes:
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise VqcodecError(
            f"{command[0]}: not installed; apt-get install {package}, or leave this codec out"
        ) from error
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.decode(errors="replace").split())[-200:]
        raise VqcodecError(
            f"{' '.join(command)}: failed ({reason}); leave this codec out"
        ) from error
    return done.stdout


def _from_pcm(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768
