"""Reference codecs: those of Debian's packages codec2 and opus-tools, and any that the user names.

And one that codes nothing, `narrowband`, which tells how much of their error is bandwidth.
Waveforms are float arrays of shape (T,), full scale 1, at 16 kHz.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

from vqcodec.audio import load
from vqcodec.audio.writing import to_int16
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.quality import SAMPLE_RATE

CODEC2_MODES = ("3200", "2400", "1600", "1400", "1300", "1200", "700C", "450")

_NARROW_RATE = 8000
_CODEC2_FRAME_LENGTH = 320  # 40 ms; modes with frames of 20 ms divide it
_OPUS_BITRATES = range(6, 257)
_NAME = re.compile(r"\w[\w.+ -]*")


class Coded(NamedTuple):
    """What a codec made of a recording.

    Attributes:
        waveform: decoded, (any,); late by the codec's delay.
        n_bytes: size of the coded file; None where it is not known.
    """

    waveform: np.ndarray
    n_bytes: int | None


Baseline = Callable[[np.ndarray], Coded]


def baseline(name: str) -> Baseline:
    """Find a reference codec by its name.

    That is `codec2-MODE`, such as `codec2-1200`, `opus-KBITS`, such as `opus-6`, `narrowband`, or
    NAME=ACTION of the user's (see `ExternalCodec`). Raises VqcodecError for any other.
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
        raise VqcodecError(
            f"{' '.join(command)}: failed ({_told(error.stderr)}); leave this codec out"
        ) from error
    return done.stdout


def _told(stderr: bytes) -> str:
    """The end of what a program says, in a line."""
    return " ".join(stderr.decode(errors="replace").split())[-200:]


def _from_pcm(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


@dataclass(frozen=True)
class ExternalCodec:
    """A codec that the user brings; calling it codes and decodes a waveform (T,).

    Attributes:
        name: in the tables.
        action: a command with `{input}` and `{output}`, which are WAV files, and `{bits}`, a file
            whose bytes are counted, if it writes one; or FILE.py:FUNCTION or MODULE:FUNCTION, a
            function from a waveform (T,) to a pair of the decoded waveform (any,), both at 16 kHz,
            and the number of bytes, or None.
    """

    name: str
    action: str

    def __call__(self, waveform: np.ndarray) -> Coded:
        """Code and decode; raises VqcodecError if the codec fails, or gives no waveform."""
        if self._is_command:
            return self._run(waveform)
        try:
            coded = Coded(*_function(self.name, self.action)(waveform))
        except VqcodecError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise self._fault(f"{type(error).__name__}: {error}") from error
        decoded = np.asarray(coded.waveform, np.float32)
        if decoded.ndim != 1:
            raise self._fault(f"gives no waveform (T,), but an array of shape {decoded.shape}")
        if not np.isfinite(decoded).all():
            raise self._fault("gives samples that are NaN or infinite")
        return Coded(decoded, coded.n_bytes)

    def digest(self) -> str:
        """Tell it from another of the same name: by the command, or the function's source."""
        if self._is_command:
            return self.action
        source = Path(str(_module(self.name, self.action).__file__))
        return f"{self.action} {hashlib.sha256(source.read_bytes()).hexdigest()}"

    @property
    def _is_command(self) -> bool:
        return "{output}" in self.action

    def _run(self, waveform: np.ndarray) -> Coded:
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder) / name for name in ("input.wav", "output.wav", "bits")}
            soundfile.write(paths["input.wav"], to_int16(waveform), SAMPLE_RATE)
            command = self.action
            for path in paths.values():
                command = command.replace(f"{{{path.stem}}}", shlex.quote(str(path)))
            done = subprocess.run(
                command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
            told = _told(done.stderr)
            if done.returncode:
                raise self._fault(f"ends with status {done.returncode}: {told}")
            wanted = [paths["output.wav"], *([paths["bits"]] if "{bits}" in self.action else [])]
            for path in wanted:
                if not path.is_file():
                    raise self._fault(f"writes no {{{path.stem}}}: {told}")
            n_bytes = paths["bits"].stat().st_size if "{bits}" in self.action else None
            return Coded(load(paths["output.wav"], SAMPLE_RATE), n_bytes)

    def _fault(self, what: str) -> VqcodecError:
        line = " ".join(what.split())
        return VqcodecError(f"codec {self.name}: {line}; correct it, or leave it out")


def external_codec(text: str) -> ExternalCodec:
    """Read NAME=ACTION; raises VqcodecError if that is no `ExternalCodec` or not there."""
    name, _, action = (part.strip() for part in text.partition("="))
    codec = ExternalCodec(name, action)
    if "{output}" in action and "{input}" in action and _NAME.fullmatch(name):
        return codec
    if not _NAME.fullmatch(name) or not re.fullmatch(r"[^{}]+:\w+", action):
        raise VqcodecError(
            f"{text}: no codec; give NAME='COMMAND {{input}} {{output}}', NAME=FILE.py:FUNCTION, "
            "or NAME=MODULE:FUNCTION"
        )
    _function(name, action)
    return codec


def _function(name: str, action: str) -> Callable[[np.ndarray], Any]:
    module, function = _module(name, action), action.rpartition(":")[2]
    found: Callable[[np.ndarray], Any] | None = getattr(module, function, None)
    if found is None:
        raise VqcodecError(f"codec {name}: {module.__file__} has no {function}; name another")
    return found


@cache
def _module(name: str, action: str) -> ModuleType:
    """The module of a function, loaded once in every process."""
    place = action.rpartition(":")[0]
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except Exception as error:  # whatever the user's code raises
        reason = f"{type(error).__name__}: {error}"
        raise VqcodecError(
            f"codec {name}: {place} cannot be imported ({' '.join(reason.split())}); correct it"
        ) from error
