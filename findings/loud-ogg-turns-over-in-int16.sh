#!/usr/bin/env bash
# Where a recording is loud, what a lossy codec decodes goes beyond full scale. soundfile 0.14.0 tells libsndfile to
# clip that; libsndfile 1.2.2 does so for MP3, and for Vorbis and Opus it does not: read as int16, as recognisers and
# detectors of speech want it, samples just above the highest value come out near the lowest one, and the other way
# round. They are clicks of full scale in the loudest vowels. Vorbis needs no more than a peak of 0.95, as corpora are
# often normalised to. Read as float32 and clipped, there are none. Output seen (6 s at 16 kHz):
#   peak at 0.95, VORBIS: 4 samples beyond full scale, 4 turned over in int16
#   peak at 0.95, OPUS: 0 samples beyond full scale, 0 turned over in int16
#   peak at 0.95, MPEG_LAYER_III: 0 samples beyond full scale, 0 turned over in int16
#   6 dB louder, limited to 0.95, VORBIS: 747 samples beyond full scale, 744 turned over in int16
#   6 dB louder, limited to 0.95, OPUS: 1499 samples beyond full scale, 1499 turned over in int16
#   6 dB louder, limited to 0.95, MPEG_LAYER_III: 455 samples beyond full scale, 0 turned over in int16
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet soundfile==0.14.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/voice" <<'PYTHON'
import sys

import numpy as np
import soundfile

path, rate, rng = sys.argv[1], 16_000, np.random.default_rng(0)
assert soundfile.__libsndfile_version__ == "1.2.2"
time = np.arange(6 * rate) / rate
syllables = np.sin(2 * np.pi * 1.7 * time)
phase = 2 * np.pi * np.cumsum(120 * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * time))) / rate
vowel = sum(np.sin(k * phase) / k for k in range(1, 40)) * np.clip(syllables, 0, 1)
hiss = rng.standard_normal(len(time)) * np.clip(-syllables, 0, 1)
voice = 0.3 * vowel + 0.05 * hiss + 1e-3 * rng.standard_normal(len(time))
voice *= 0.95 / np.abs(voice).max()


def measure(name, sound, coding, container):
    soundfile.write(path, sound, rate, coding, format=container)
    exact, _ = soundfile.read(path, dtype="float32")
    coarse = soundfile.read(path, dtype="int16")[0] / 32768
    turned = np.abs(coarse - exact) > 1
    assert np.abs(coarse - exact.clip(-1, 1))[~turned].max() < 1e-3
    beyond = np.abs(exact) > 1
    counts = f"{beyond.sum()} samples beyond full scale, {turned.sum()} turned over in int16"
    print(f"{name}, {coding}: {counts}")
    assert not (turned & ~beyond).any()
    return int(beyond.sum()), int(turned.sum())


limited = (2 * voice).clip(-0.95, 0.95)
vorbis, opus, mp3 = ("VORBIS", "OGG"), ("OPUS", "OGG"), ("MPEG_LAYER_III", "MP3")
found = [measure("peak at 0.95", voice, *format) for format in (vorbis, opus, mp3)]
assert found[0][1] > 0
found = [measure("6 dB louder, limited to 0.95", limited, *format) for format in (vorbis, opus, mp3)]
assert found[0][1] > 100 and found[1][1] > 100
assert found[2][0] > 50 and found[2][1] == 0
PYTHON
