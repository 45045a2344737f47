#!/usr/bin/env bash
# torch-audiomentations 0.12.0 (AddColoredNoise) draws one second of noise for a recording and repeats it to the end,
# white noise too. Whatever looks back by more than a second can subtract it and know nothing of speech: of ten seconds
# at a signal-to-noise ratio of 0 dB, taking from each second the mean of all ten leaves 9.4 dB; of noise drawn for the
# whole recording, 0 dB. Output seen:
#   f_decay 0.0: one second and the next correlate by 1.0000; -0.0 dB, then 9.4 dB
#   f_decay 0.5: one second and the next correlate by 1.0000; 0.0 dB, then 9.4 dB
#   drawn: one second and the next correlate by -0.0044; -0.0 dB, then -0.1 dB
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" --cache-dir "$folder/cache" \
    torch-audiomentations==0.12.0 torch==2.14.1 torchaudio==2.11.1 numpy==2.4.6 'setuptools<81'
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import torch
from torch_audiomentations import AddColoredNoise

rate, seconds, rng = 16_000, 10, np.random.default_rng(0)
time = np.arange(seconds * rate) / rate
phase = 2 * np.pi * np.cumsum(120 * (1 + 0.2 * np.sin(2 * np.pi * 0.37 * time))) / rate
voice = sum(np.sin(k * phase) / k for k in range(1, 30)) * (0.5 + 0.5 * np.sin(2 * np.pi * 2.3 * time))
voice = (0.1 * voice / np.abs(voice).max()).astype(np.float32)


def by_library(f_decay):
    torch.manual_seed(0)
    decay = {"min_f_decay": f_decay, "max_f_decay": f_decay}
    add = AddColoredNoise(min_snr_in_db=0, max_snr_in_db=0, **decay, p=1.0, output_type="dict")
    return add(torch.from_numpy(voice)[None, None], sample_rate=rate).samples[0, 0].numpy()


def measure(name, noisy):
    noise = (noisy - voice).reshape(seconds, rate)
    repeats = float(np.corrcoef(noise[0], noise[1])[0, 1])
    rows = noisy.reshape(seconds, rate)
    left = (rows - rows.mean(axis=0)).ravel() - voice
    before, after = (10 * np.log10(np.square(voice).mean() / np.square(x).mean()) for x in (noise, left))
    print(f"{name}: one second and the next correlate by {repeats:.4f}; {before:.1f} dB, then {after:.1f} dB")
    return repeats, before, after


for f_decay in (0.0, 0.5):
    repeats, before, after = measure(f"f_decay {f_decay}", by_library(f_decay))
    assert repeats > 0.9999 and abs(before) < 0.1 and after > 8
drawn = rng.standard_normal(len(voice)) * np.sqrt(np.square(voice).mean())
repeats, before, after = measure("drawn", (voice + drawn).astype(np.float32))
assert abs(repeats) < 0.05 and abs(before) < 0.1 and after < 1
PYTHON
