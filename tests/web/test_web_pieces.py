"""The pieces of the page in web/ that are no network compute what the library computes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from command_line import ROOT, needs
from recordings import RATE, spoken, write

from vqcodec.audio import load, open_recording, pitch_tracker
from vqcodec.audio.resampling import resample_blocks, resampled_length
from vqcodec.format.codes import Codes
from vqcodec.format.stream_records import StreamRecord
from vqcodec.inference import loudness
from vqcodec.models.config import PitchConfig
from vqcodec.models.pitch import PitchQuantizer, PitchStream, bent, mean_log_f0
from vqcodec.models.speaker_vector import guided, mean_vector

PIECES = ROOT / "tests" / "web" / "pieces.test.mjs"
HOP_LENGTH = 128


def put(folder: Path, name: str, array: np.ndarray) -> None:
    (folder / name).write_bytes(array.astype("<f4").tobytes())


def wavs(folder: Path) -> list[dict[str, Any]]:
    """Files of every coding; some have an offset, drift, pauses or several channels."""
    speech = spoken("slt", 0.0, 1.5)
    seconds = np.arange(len(speech)) / RATE
    cases = {
        "offset.wav": (speech + 0.02, "PCM_16"),
        "drift.wav": (speech + 0.1 * np.sin(2 * np.pi * 3 * seconds), "PCM_24"),
        "stereo.wav": (np.stack([speech, spoken("rms", 0.0, 1.5)], 1), "FLOAT"),
        "eight.wav": (speech, "PCM_U8"),
        "long.wav": (np.tile(0.1 * speech + 0.003, 4), "PCM_32"),
        "three.wav": (np.stack([speech, 0.5 * speech, 0.1 * speech], 1), "DOUBLE"),
        "soft.wav": (1e-6 * speech, "FLOAT"),
        "short.wav": (speech[4000:4100], "PCM_16"),
    }
    found = []
    for name, (samples, subtype) in cases.items():
        path = write(folder / name, samples, RATE, subtype)
        recording = open_recording(path)
        gain = recording.gain()
        heard = np.concatenate(list(recording.speech(RATE, 1 << 16, gain))) / np.float32(gain)
        put(folder, f"{name}.mono", load(path, RATE))
        put(folder, f"{name}.heard", heard)
        found.append({"name": name, "rate": RATE, "gain": gain})
    soundfile.write(folder / "adpcm.wav", speech, RATE, "IMA_ADPCM")
    return found


def rates(folder: Path) -> list[dict[str, Any]]:
    found = []
    for own in (8000, 22_050, 44_100, 48_000):
        samples, name = spoken("rms", 0.0, 0.8), f"from{own}"
        put(folder, f"{name}.in", samples)
        n_samples = resampled_length(len(samples), own, RATE)
        put(
            folder,
            f"{name}.out",
            np.concatenate([*resample_blocks([samples], own, RATE, n_samples)]),
        )
        found.append({"name": name, "from": own, "to": RATE})
    return found


def code_files(folder: Path) -> list[dict[str, Any]]:
    """Of one chunk and of several, with a stream of pitch and without."""
    rng = np.random.default_rng(0)
    found = []
    for name, n_codes, config in (
        ("small.codes", 7, None),
        ("pitched.codes", 1249, PitchConfig()),
        ("large.codes", 2603, PitchConfig()),
    ):
        vector = rng.integers(-128, 128, 64).astype(np.int8)
        streams, symbols = (), {}
        if config:
            streams = (
                StreamRecord(
                    kind="pitch",
                    codes_per_symbol=config.codes_per_symbol,
                    alphabet_size=config.alphabet_size,
                    step=config.step_cents,
                    reference=178.3,
                ),
            )
            symbols = {"pitch": rng.integers(0, 64, n_codes // config.codes_per_symbol)}
        codes = Codes(
            rng.integers(0, 2048, (1, n_codes)),
            codebook_size=2048,
            sample_rate=RATE,
            hop_length=HOP_LENGTH,
            fingerprint=bytes(range(1, 9)),
            original_sample_rate=44_100,
            n_samples=n_codes * HOP_LENGTH * 44_100 // RATE,
            gain=0.37,
            speaker=vector,
            streams=streams,
            symbols=symbols,
        )
        (folder / name).write_bytes(codes._packed())
        recording = {
            "codes": codes.codes[0].tolist(),
            "symbols": codes.symbols["pitch"].tolist() if config else [],
            "referenceHz": streams[0].reference if config else None,
            "vector": vector.tolist(),
            "gain": codes.gain,
            "nSamples": codes.n_samples,
            "rate": codes.original_sample_rate,
        }
        model = {
            "fingerprint": codes.fingerprint.hex(),
            "sample_rate": RATE,
            "hop_length": HOP_LENGTH,
            "n_codebooks": 1,
            "codebook_size": 2048,
            "pitch": config and config.model_dump(),
        }
        found.append({"name": name, "model": model, "recording": recording})
    return found


def pitches(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    frames = np.log(rng.uniform(60, 500, 120)).astype(np.float32) * (rng.random(120) < 0.7)
    n_codes = len(frames) * pitch_tracker.FRAME_LENGTH // HOP_LENGTH
    contour = pitch_tracker._between(frames, 0, np.arange(n_codes), HOP_LENGTH)
    config, mean, new_mean = PitchConfig(), mean_log_f0(contour), np.log(230.0)
    quantizer = PitchQuantizer(config.codes_per_symbol, config.alphabet_size, config.step_cents)
    symbols = quantizer.encode(contour, mean)
    told = quantizer.decode(symbols, mean, n_codes)
    moved = bent(told, mean, new_mean)
    arrays = {"frames": frames, "contour": contour, "told": told, "moved": moved}
    for name, array in {**arrays, "features": PitchStream.features(moved)}.items():
        put(folder, name, array)
    return {
        "config": config.model_dump(),
        "hop_length": HOP_LENGTH,
        "mean": mean,
        "new_mean": new_mean,
        "symbols": symbols.tolist(),
        "usual": mean_log_f0(np.zeros(8, np.float32)),
    }


def levels(folder: Path) -> dict[str, Any]:
    """Of a decoding that is too soft, and then too loud, for a recording with a pause."""
    reference = np.concatenate([spoken("rms", 0.0, 1.6), spoken("slt", 0.0, 1.6)])
    decoded = 0.4 * np.roll(reference, 40) + 0.003 * np.random.default_rng(0).normal(
        size=len(reference)
    ).astype(np.float32)
    decoded[len(decoded) // 2 :] *= 6
    layout = {"sample_rate": RATE, "hop_length": HOP_LENGTH}
    followed = np.concatenate([*loudness.followed([decoded], [reference], **layout)])
    for name, array in (("decoded", decoded), ("reference", reference), ("followed", followed)):
        put(folder, name, array)
    gains = [0.05, 5]
    for gain in gains:
        blocks = loudness.normalised([decoded], gain=gain, **layout)
        put(folder, f"levelled.{gain}", np.concatenate([*blocks]))
    return {"rate": RATE, "hop_length": HOP_LENGTH, "gains": gains}


def speakers() -> dict[str, Any]:
    vectors = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    return {
        "vectors": vectors.tolist(),
        "mean": mean_vector(vectors).tolist(),
        "target": vectors[0].tolist(),
        "source": vectors[1].tolist(),
        "beyond": guided(vectors[0], vectors[1]).tolist(),
    }


@needs("node")
def test_pieces_of_the_page_compute_what_the_library_does(tmp_path: Path) -> None:
    expected = {
        "wavs": wavs(tmp_path),
        "rates": rates(tmp_path),
        "codes": code_files(tmp_path),
        "pitch": pitches(tmp_path),
        "loudness": levels(tmp_path),
        "speakers": speakers(),
    }
    (tmp_path / "expected.json").write_text(json.dumps(expected))
    node = shutil.which("node")
    assert node
    done = subprocess.run(
        [node, "--test", PIECES],
        env={**os.environ, "EXPECTED": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"pass (\d+)", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) > 20
