"""Any codec in the tables: a command, or a Python function, that the user names.

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
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import soundfile

from vqcodec.audio import load
from vqcodec.audio.writing import to_int16
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.quality import SAMPLE_RATE

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
            told = " ".join(done.stderr.decode(errors="replace").split())[-200:]
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
