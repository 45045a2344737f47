#!/usr/bin/env bash
# soxr 1.1.0 dithers what it resamples in int16, with a fixed seed: the same sound is to give the same samples. A whole
# array does, and so does a stream of blocks of 100 ms. A stream of blocks of 10 or 20 ms, as calls and browsers deliver
# them, does not: nearly half of the samples differ from one time to the next, in one process and in two, so that codes
# or checksums of a call cannot be made again. Also, `clear()` begins another sequence, equal channels come out unequal,
# and digital silence comes out as noise. In float32 everything repeats, however it is cut. Output seen (48 to 16 kHz):
#   int16, whole: 10 times, 1 results, 0 % of the samples differ
#   int16, blocks of 100 ms: 10 times, 1 results, 0 % of the samples differ
#   int16, blocks of 10 ms: 10 times, 9 results, 45 % of the samples differ
#   float32, blocks of 10 ms: 10 times, 1 results, 0 % of the samples differ
#   int16, blocks of 100 ms, after clear(): 45 % of the samples differ
#   int16, digital silence: 23 % of the samples are not 0
#   int16, two equal channels: 45 % of the samples differ
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet soxr==1.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import soxr

high, low, rng = 48_000, 16_000, np.random.default_rng(0)
time = np.arange(2 * high) / high
syllables = np.sin(2 * np.pi * 1.7 * time)
phase = 2 * np.pi * np.cumsum(120 * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * time))) / high
vowel = sum(np.sin(k * phase) / k for k in range(1, 40)) * np.clip(syllables, 0, 1)
hiss = rng.standard_normal(len(time)) * np.clip(-syllables, 0, 1)
voice = (0.3 * vowel + 0.05 * hiss + 1e-3 * rng.standard_normal(len(time))).astype(np.float32)
voice = {"float32": voice, "int16": np.rint(voice / np.abs(voice).max() * 16_000).astype(np.int16)}


def stream(kind, milliseconds, resampler=None):
    sound, size = voice[kind], milliseconds * high // 1000
    resampler = resampler or soxr.ResampleStream(high, low, 1, dtype=kind)
    starts = range(0, len(sound), size)
    return np.concatenate(
        [resampler.resample_chunk(sound[k : k + size], last=k == starts[-1]) for k in starts]
    )


def repeated(name, made, expected_once):
    results = [made() for _ in range(10)]
    differing = max(100 * (result != results[0]).mean() for result in results)
    n_results = len({result.tobytes() for result in results})
    print(f"{name}: 10 times, {n_results} results, {differing:.0f} % of the samples differ")
    assert (n_results == 1) == expected_once and len({len(result) for result in results}) == 1
    assert expected_once or differing > 10


repeated("int16, whole", lambda: soxr.resample(voice["int16"], high, low), True)
repeated("int16, blocks of 100 ms", lambda: stream("int16", 100), True)
repeated("int16, blocks of 10 ms", lambda: stream("int16", 10), False)
repeated("float32, blocks of 10 ms", lambda: stream("float32", 10), True)

resampler = soxr.ResampleStream(high, low, 1, dtype="int16")
first = stream("int16", 100, resampler)
resampler.clear()
cleared = 100 * (stream("int16", 100, resampler) != first).mean()
print(f"int16, blocks of 100 ms, after clear(): {cleared:.0f} % of the samples differ")
silence = 100 * (soxr.resample(np.zeros(high, np.int16), high, low) != 0).mean()
print(f"int16, digital silence: {silence:.0f} % of the samples are not 0")
left, right = soxr.resample(np.stack([voice["int16"]] * 2, axis=1), high, low).T
channels = 100 * (left != right).mean()
print(f"int16, two equal channels: {channels:.0f} % of the samples differ")
assert min(cleared, silence, channels) > 10
PYTHON
