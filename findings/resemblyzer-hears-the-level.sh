#!/usr/bin/env bash
# resemblyzer 0.1.4 embeds a voice by its level, too: the same samples 20 dB softer have a cosine of 0.73 with
# themselves, less than some two different people have, and 30 dB softer one of 0.37. Its own preprocess_wav does not
# mend that: it raises soft recordings to -30 dBFS and leaves louder ones, so that the same voice at -14 and at -34 dBFS
# is still told apart. Bring both to one level first. Output seen:
#   0 dB: 1.000, preprocessed 1.000
#   -10 dB: 0.894, preprocessed 0.912
#   -20 dB: 0.734, preprocessed 0.912
#   -30 dB: 0.374, preprocessed 0.912
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'setuptools<81' resemblyzer==0.1.4 torch==2.14.1 numpy==2.4.6 librosa==0.11.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from resemblyzer import VoiceEncoder, preprocess_wav

rate, rng = 16_000, np.random.default_rng(0)
time = np.arange(4 * rate) / rate
phase = 2 * np.pi * np.cumsum(120 * (1 + 0.08 * np.sin(2 * np.pi * 0.7 * time))) / rate
vowel = sum(np.sin(k * phase) / k * np.exp(-(((k * 120 - 700) / 900) ** 2)) for k in range(1, 30))
vowel = vowel * (0.5 + 0.5 * np.sin(2 * np.pi * 2.5 * time))  # syllables
voice = (0.3 * vowel / np.abs(vowel).max() + 1e-4 * rng.standard_normal(len(time))).astype(np.float32)

encoder = VoiceEncoder("cpu", verbose=False)
own = encoder.embed_utterance(voice)
own_preprocessed = encoder.embed_utterance(preprocess_wav(voice, source_sr=rate))
plain, preprocessed = {}, {}
for level in (0, -10, -20, -30):
    softer = voice * np.float32(10 ** (level / 20))
    plain[level] = float(own @ encoder.embed_utterance(softer))
    raised = preprocess_wav(softer, source_sr=rate)
    preprocessed[level] = float(own_preprocessed @ encoder.embed_utterance(raised))
    print(f"{level} dB: {plain[level]:.3f}, preprocessed {preprocessed[level]:.3f}")
assert plain[0] > 0.99 and plain[-20] < 0.85 and plain[-30] < 0.6
assert preprocessed[-20] < 0.95
PYTHON
