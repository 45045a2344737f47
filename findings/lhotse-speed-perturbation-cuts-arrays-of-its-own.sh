#!/usr/bin/env bash
# Lhotse 1.33.0 keeps temporal arrays that a cut carries (codes, alignments) under `perturb_speed` and takes from them
# as many frames as the new duration has: at 1.1 times the speed the first 455 of 500, though the sound still is all of
# it. Nothing is warned of, and the frames no longer lie where the sound does. `resample` keeps them all, rightly.
# Output seen:
#   at 1.1 times the speed: 3.636 s of sound, frames 0 to 454 of 500
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lhotse==1.33.0 urllib3==2.8.0 torch==2.14.1 numpy==2.4.6 soundfile==0.14.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np
import soundfile
from lhotse import Recording
from lhotse.features.io import NumpyFilesWriter

folder, rate, hop = sys.argv[1], 16_000, 128
rng = np.random.default_rng(0)
soundfile.write(f"{folder}/speech.wav", 0.1 * rng.standard_normal(4 * rate), rate)
cut = Recording.from_file(f"{folder}/speech.wav").to_cut()
with NumpyFilesWriter(f"{folder}/arrays") as writer:
    frames = np.arange(4 * rate // hop)
    cut.codes = writer.store_array("speech", frames, frame_shift=hop / rate, temporal_dim=0, start=0)

faster = cut.perturb_speed(1.1)
seconds, kept = faster.load_audio().shape[1] / rate, faster.load_codes()
print(f"at 1.1 times the speed: {seconds:.3f} s of sound, frames {kept[0]} to {kept[-1]} of {len(frames)}")
assert abs(seconds - 4 / 1.1) < 0.01 and np.array_equal(kept, frames[:455])
assert np.array_equal(cut.resample(8000).load_codes(), frames)
PYTHON
