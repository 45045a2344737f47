#!/usr/bin/env bash
# Pink noise has as much power in every octave. What torch-audiomentations 0.12.0 (AddColoredNoise, f_decay 1) and
# speechbrain 1.1.2 (pink_noise_like, as it is by default) make under that name is brown, nearly 3 dB less in an octave
# than in the one below: both divide amplitudes by the frequency, where it should be powers. speechbrain does it down to
# the first bin, so that nearly all the power lies at a few hertz, the more so the longer a recording is, and what
# AddNoise mixes at a signal-to-noise ratio of 0 dB has over 20 dB where there is speech. Half the exponent is pink in
# both. Output seen (4 s at 0 dB, how much more noise is at 250 to 500 Hz than at 2 to 4 kHz, ratio above 50 Hz):
#   torch-audiomentations, f_decay 1: 7.6 dB more, ratio 2.0 dB
#   torch-audiomentations, f_decay 0.5: -0.6 dB more, ratio 0.4 dB
#   speechbrain, alpha 1: 8.9 dB more, ratio 24.9 dB
#   speechbrain, alpha 0.5: 0.1 dB more, ratio 3.1 dB
#   speechbrain, alpha 1, above 50 Hz in 1, 4 and 16 s: 23.3 dB 29.4 dB 34.8 dB
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" --cache-dir "$folder/cache" \
    torch-audiomentations==0.12.0 speechbrain==1.1.2 torch==2.14.1 torchaudio==2.11.1 numpy==2.4.6 'setuptools<81'
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from functools import partial

import numpy as np
import torch
from speechbrain.augment.time_domain import AddNoise, pink_noise_like
from torch_audiomentations import AddColoredNoise

rate = 16_000
torch.manual_seed(0)


def tone(seconds):
    return 0.1 * torch.sin(2 * torch.pi * 1000 / rate * torch.arange(seconds * rate))


def by_torch_audiomentations(recording, exponent):
    decay = {"min_f_decay": exponent, "max_f_decay": exponent}
    add = AddColoredNoise(min_snr_in_db=0, max_snr_in_db=0, **decay, p=1.0, output_type="dict")
    return (add(recording[None, None], sample_rate=rate).samples[0, 0] - recording).numpy()


def by_speechbrain(recording, exponent):
    pink = partial(pink_noise_like, alpha_low=exponent, alpha_high=exponent)
    noisy = AddNoise(snr_low=0, snr_high=0, noise_funct=pink)(recording[None], torch.ones(1))[0]
    return (2 * noisy - recording).numpy()  # at 0 dB it halves both


def measure(made, exponent, seconds):
    recording = tone(seconds)
    noise = made(recording, exponent)
    powers = 2 * np.square(np.abs(np.fft.rfft(noise) / len(noise)))
    frequencies = np.fft.rfftfreq(len(noise), 1 / rate)

    def power(low, high):
        return powers[(frequencies >= low) & (frequencies < high)].sum()

    said = float(recording.square().mean())
    falls = 10 * np.log10(power(250, 500) / power(2000, 4000))
    whole, audible = (10 * np.log10(said / p) for p in (np.square(noise).mean(), power(50, rate)))
    return falls, whole, audible


for name, made, parameter in (
    ("torch-audiomentations", by_torch_audiomentations, "f_decay"),
    ("speechbrain", by_speechbrain, "alpha"),
):
    for exponent in (1, 0.5):
        falls, whole, audible = measure(made, exponent, 4)
        print(f"{name}, {parameter} {exponent}: {falls:.1f} dB more, ratio {audible:.1f} dB")
        assert abs(whole) < 0.1
        assert falls > 7 if exponent == 1 else abs(falls) < 1
ratios = [measure(by_speechbrain, 1, seconds)[2] for seconds in (1, 4, 16)]
print("speechbrain, alpha 1, above 50 Hz in 1, 4 and 16 s:", *(f"{ratio:.1f} dB" for ratio in ratios))
assert ratios[0] > 15 and ratios[2] > ratios[0] + 5
PYTHON
